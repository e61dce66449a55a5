"""Who runs where: bundles of devices for engines and trainer ranks, reserved as a whole before anything starts.

disaggregated   engines [tp GPUs] [tp GPUs] ...   ranks [1 GPU] [1 GPU] ...   sampling and training overlap
colocated       [GPU: engine i | rank i] ...      in turn: the engine sleeps while its GPU trains

Without GPUs the same groups are made of next to nothing, so that nodes are used, and lost, in the same way. Bundles of
a node that is lost come back on another one that has room.
"""

from collections.abc import Sequence
from typing import Any

from rlvr.cluster.calls import WorkerLost, ray
from rlvr.config import Recipe, RecipeError

TOKEN_CPU = 0.001  # a bundle must ask for something; threads are set by the recipe, and phases alternate
PLACE_S = 60.0  # to reserve what is free already


class Placement:
    """The reserved bundles of a run, until `remove`."""

    def __init__(self, cfg: Recipe):
        self.cfg = cfg
        self.gpus = ray.cluster_resources().get("GPU", 0.0)
        self.colocated = cfg.cluster.placement == "colocated"
        share = 0.5 if self.colocated else None
        self.per_engine = self._gpus(cfg.cluster.gpus_per_engine, share or cfg.rollout.tensor_parallel)
        self.per_rank = self._gpus(cfg.cluster.gpus_per_rank, share or 1)
        check_there_is_enough(cfg, self.per_engine, self.per_rank, self.gpus, largest_node())
        count = cfg.rollout.workers
        if self.colocated:
            self.engines = self.ranks = reserved([self.per_engine + self.per_rank] * count, "PACK")
        else:
            self.ranks = reserved([self.per_rank] * cfg.trainer.ranks, "PACK")
            self.engines = reserved([self.per_engine] * count, "SPREAD")

    def engine(self, number: int) -> dict[str, Any]:
        """Options of the actor that is engine `number`, the first time and after a death."""
        return self._options(self.engines, number, self.per_engine)

    def rank(self, number: int) -> dict[str, Any]:
        return self._options(self.ranks, number, self.per_rank)

    def verifier(self) -> dict[str, Any]:
        return {"num_cpus": 0, "scheduling_strategy": "SPREAD"}

    def remove(self) -> None:
        for group in {self.engines, self.ranks}:
            ray.util.remove_placement_group(group)

    def _options(self, group: Any, bundle: int, gpus: float) -> dict[str, Any]:
        where = ray.util.scheduling_strategies.PlacementGroupSchedulingStrategy(group, bundle)
        return {"num_cpus": 0, "num_gpus": gpus, "scheduling_strategy": where}

    def _gpus(self, asked: float | None, default: float) -> float:
        return asked if asked is not None else (default if self.gpus else 0)


def largest_node() -> float:
    """GPUs of the node that has most."""
    return max((node["Resources"].get("GPU", 0.0) for node in ray.nodes() if node["Alive"]), default=0.0)


def check_there_is_enough(cfg: Recipe, per_engine: float, per_rank: float, gpus: float, of_a_node: float) -> None:
    asked = per_engine * cfg.rollout.workers + per_rank * cfg.trainer.ranks
    colocated = cfg.cluster.placement == "colocated"
    if asked > gpus:
        instead = "" if colocated else ", or set cluster.placement=colocated"
        raise RecipeError(
            f"{asked:g} GPUs asked for (rollout.workers={cfg.rollout.workers} x {per_engine:g} + "
            f"trainer.ranks={cfg.trainer.ranks} x {per_rank:g}), the cluster has {gpus:g}: "
            f"lower the counts, cluster.gpus_per_engine and cluster.gpus_per_rank{instead}"
        )
    engine = f"an engine of {per_engine:g} GPUs (rollout.tensor_parallel={cfg.rollout.tensor_parallel}, "
    engine += "cluster.gpus_per_engine)"
    rank = f"a trainer rank of {per_rank:g} GPUs (cluster.gpus_per_rank)"
    bundles = {engine: per_engine, rank: per_rank}
    if colocated:
        bundles[f"{engine} beside {rank}"] = per_engine + per_rank
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
