"""All trainer ranks as one. Every call goes to all of them: their methods are collective."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from time import sleep
from typing import Any

from rlvr.checkpoint.files import Fingerprint
from rlvr.cluster.calls import Budget, WorkerLost, first_failure, get, ray
from rlvr.config import Recipe
from rlvr.objective import Batch, Objective

BUCKETS = 2  # of weights that are made or loaded at a time: what a transfer takes of the object store
ANSWER_S = 15.0  # for a rank to say that it is alive; one that waits for a dead one never does


class RayTrainer:
    """Ranks that die together: where one is lost, all are started again and take up the newest checkpoint."""

    def __init__(self, cfg: Recipe, make: Callable[[int], Any]):
        """`make(rank)` starts the actor of a rank."""
        self.cfg, self.make = cfg, make
        self.budget = Budget("trainer ranks", cfg.cluster)
        self.ranks: list[Any] = []

    def begin(self) -> list[Any]:
        """Starts the ranks; what to wait for until they can be called."""
        self.ranks = [self.make(rank) for rank in range(self.cfg.trainer.ranks)]
        address = get(self.ranks[0].free_address.remote())
        return [rank.build.remote(self.cfg, address) for rank in self.ranks]

    def revive(self) -> str | None:
        """After an error: None when it was none of a dead rank, else what was done about it."""
        alive = [rank.process.remote() for rank in self.ranks]
        answered, _ = ray.wait(alive, num_returns=len(alive), timeout=ANSWER_S, fetch_local=False)
        dead = [n for n, ref in enumerate(alive) if ref in answered and not lives(ref)]
        if not dead:
            return None
        who = f"trainer rank {', '.join(map(str, dead))}"
        reason = "its process ended, or its node went away"
        while True:
            sleep(self.budget.spend(who, reason))
            self.kill()
            try:
                first_failure(self.begin())
            except WorkerLost as error:
                reason = str(error)
                continue
            return f"{who} died: all {len(self.ranks)} were started again"

    def kill(self) -> None:
        for rank in self.ranks:
            ray.kill(rank)

    def step(self, batch: Batch, objective: Objective, learning_rate: float) -> dict[str, float]:
        return self._all("step", ray.put(batch), objective, learning_rate)

    def weights(self) -> "Weights":
        return Weights(self.ranks, self.cfg.cluster.placement == "colocated")

    def score(self, token_ids: list[int]) -> list[float]:
        return self._all("score", token_ids)

    def save(self, folder: str) -> None:
        self._all("save", folder)

    def saved(self, wait: bool) -> dict[str, Fingerprint] | None:
        """None as long as some rank is still writing."""
        files = first_failure([rank.saved.remote(wait) for rank in self.ranks])
        return None if None in files else {path: found for rank in files for path, found in rank.items()}

    def load(self, folder: str) -> None:
        self._all("load", folder)

    def export(self, folder: str) -> None:
        self._all("export", folder)

    def _all(self, method: str, *args: Any) -> Any:
        """Rank 0's answer."""
        return first_failure([getattr(rank, method).remote(*args) for rank in self.ranks])[0]


@dataclass(frozen=True)
class Weights:
    """Of the trainer, on their way to some of the engines. Nothing is made before it is asked for."""

    ranks: list[Any]
    colocated: bool

    @property
    def ahead(self) -> int:
        """Buckets that may have been handed out and not been loaded."""
        return 1 if self.colocated else BUCKETS

    def to(self, engines: Sequence[int]) -> Iterator[list[Any]]:
        """Of each bucket a reference for each of these engines, as soon as it is there."""
        return self._lent(engines) if self.colocated else ([ref] * len(engines) for ref in self._shipped())

    def _shipped(self) -> Iterator[Any]:
        streams = [
            rank.weights.options(num_returns="streaming", _generator_backpressure_num_objects=BUCKETS).remote()
            for rank in self.ranks
        ]
        for stream in streams:  # the other ranks gather along, and have nothing of their own
            yield from stream

    def _lent(self, engines: Sequence[int]) -> Iterator[list[Any]]:
        """Engine n reads what rank n holds, on the device that they share."""
        first = True
        while None not in first_failure(
            refs := [rank.lend_weights.remote(first, n in engines) for n, rank in enumerate(self.ranks)]
        ):
            yield [refs[n] for n in engines]
            first = False


def lives(ref: Any) -> bool:
    try:
        get(ref)
    except WorkerLost:
        return False
    return True
