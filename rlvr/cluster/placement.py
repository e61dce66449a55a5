"""Who runs where: bundles of devices for engines and trainer ranks, reserved as a whole before anything starts.

disaggregated   engines [tp GPUs] [tp GPUs] ...   ranks [1 GPU] [1 GPU] ...   sampling and training overlap
colocated       [GPU: engine i | rank i] ...      in turn: the engine sleeps while its GPU trains

Without GPUs the same groups are made of next to nothing, so that nodes are used, and lost, in the same way. Bundles of
a node that is lost come back on another one that has room.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rlvr.cluster.calls import WorkerLost, ray
from rlvr.config import Recipe, RecipeError

TOKEN_CPU = 0.001  # a bundle must ask for something; threads are set by the recipe, and phases alternate
PLACE_S = 60.0  # to reserve what is free already


class Placement:
    """The reserved bundles of so many engines and ranks, until `remove`."""

    def __init__(self, cfg: Recipe, engines: int, ranks: int):
        self.cfg = cfg
        self.gpus = ray.cluster_resources().get("GPU", 0.0)
        self.colocated = cfg.cluster.placement == "colocated"
        share = 0.5 if self.colocated else None
        self.per_engine = self._gpus(cfg.cluster.gpus_per_engine, share or cfg.rollout.tensor_parallel)
        self.per_rank = self._gpus(cfg.cluster.gpus_per_rank, share or 1)
        asked = Asked(engines, self.per_engine, ranks, self.per_rank)
        check_there_is_enough(cfg, asked, self.gpus, largest_node())
        if self.colocated:
            self.engines = self.ranks = reserved([self.per_engine + self.per_rank] * engines, "PACK")
        else:
            self.ranks = reserved([self.per_rank] * ranks, "PACK") if ranks else None
            self.engines = reserved([self.per_engine] * engines, "SPREAD") if engines else None

    def engine(self, number: int) -> dict[str, Any]:
        """Options of the actor that is engine `number`, the first time and after a death."""
        return self._options(self.engines, number, self.per_engine)

    def rank(self, number: int) -> dict[str, Any]:
        return self._options(self.ranks, number, self.per_rank)

    def verifier(self) -> dict[str, Any]:
        return {"num_cpus": 0, "scheduling_strategy": "SPREAD"}

    def remove(self) -> None:
        for group in {self.engines, self.ranks} - {None}:
            ray.util.remove_placement_group(group)

    def _options(self, group: Any, bundle: int, gpus: float) -> dict[str, Any]:
        where = ray.util.scheduling_strategies.PlacementGroupSchedulingStrategy(group, bundle)
        return {"num_cpus": 0, "num_gpus": gpus, "scheduling_strategy": where}

    def _gpus(self, asked: float | None, default: float) -> float:
        return asked if asked is not None else (default if self.gpus else 0)


@dataclass(frozen=True)
class Asked:
    """Workers, and the GPUs of each."""

    engines: int
    per_engine: float
    ranks: int
    per_rank: float


def largest_node() -> float:
    """GPUs of the node that has most."""
    return max((node["Resources"].get("GPU", 0.0) for node in ray.nodes() if node["Alive"]), default=0.0)


def check_there_is_enough(cfg: Recipe, asked: Asked, gpus: float, of_a_node: float) -> None:
    colocated = cfg.cluster.placement == "colocated"
    counts = {
        f"rollout.workers={asked.engines} x {asked.per_engine:g}": asked.engines * asked.per_engine,
        f"trainer.ranks={asked.ranks} x {asked.per_rank:g}": asked.ranks * asked.per_rank,
    }
    if (total := sum(counts.values())) > gpus:
        instead = "" if colocated or not all(counts.values()) else ", or set cluster.placement=colocated"
        raise RecipeError(
            f"{total:g} GPUs asked for ({' + '.join(what for what, size in counts.items() if size)}), the cluster has "
            f"{gpus:g}: lower the counts, cluster.gpus_per_engine and cluster.gpus_per_rank{instead}"
        )
    engine = f"an engine of {asked.per_engine:g} GPUs (rollout.tensor_parallel={cfg.rollout.tensor_parallel}, "
    engine += "cluster.gpus_per_engine)"
    rank = f"a trainer rank of {asked.per_rank:g} GPUs (cluster.gpus_per_rank)"
    bundles = {engine: asked.per_engine if asked.engines else 0, rank: asked.per_rank if asked.ranks else 0}
    if colocated:
        bundles[f"{engine} beside {rank}"] = asked.per_engine + asked.per_rank
    for what, size in bundles.items():
        if size > of_a_node:
            raise RecipeError(f"{what} fits on no node: the largest has {of_a_node:g}")


def reserved(gpus: Sequence[float], strategy: str) -> Any:
    """A placement group with a bundle for each; WorkerLost says what was not free."""
    bundles = [{"CPU": TOKEN_CPU} | ({"GPU": one} if one else {}) for one in gpus]
    group = ray.util.placement_group(bundles, strategy=strategy)
    if not group.wait(PLACE_S):
        free = ray.available_resources().get("GPU", 0.0)
        ray.util.remove_placement_group(group)
        raise WorkerLost(
            f"{sum(gpus):g} GPUs for {len(gpus)} workers were not to be had within {PLACE_S:g} s: {free:g} are free, "
            "others use the rest"
        )
    return group
