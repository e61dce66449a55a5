"""All trainer ranks as one. Every call goes to all of them: their methods are collective."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from time import sleep
from typing import Any

from rlvr.checkpoint.files import Fingerprint
from rlvr.cluster.batches import send
from rlvr.cluster.calls import Budget, WorkerLost, first_failure, get, ray, unplaced
from rlvr.cluster.seats import Say
from rlvr.config import Recipe
from rlvr.objective import Batch, Objective

BUCKETS = 2  # of weights that are made or loaded at a time: what a transfer takes of the object store
ANSWER_S = 15.0  # for a rank to say that it is alive; one that waits for a dead one never does
LONGEST_S = 1e6  # Ray's clock knows no infinity


class RayTrainer:
    """Ranks that die together: where one is lost, all are started again and take up the newest checkpoint."""

    def __init__(self, cfg: Recipe, make: Callable[[int], Any]):
        """`make(rank)` starts the actor of a rank."""
        self.cfg, self.make = cfg, make
        self.budget = Budget("trainer ranks", cfg.cluster)
        self.ranks: list[Any] = []
        self.tell: Say = lambda text: None

    def begin(self) -> list[Any]:
        """Starts the ranks; what to wait for until they can be called."""
        return self._built(self._placed())

    def _placed(self) -> list[Any]:
        """What each rank says once it has a place: where the others could meet it."""
        self.ranks = [self.make(rank) for rank in range(self.cfg.trainer.ranks)]
        return [rank.address.remote() for rank in self.ranks]

    def _built(self, placed: list[Any]) -> list[Any]:
        address, *_ = first_failure(placed)
        return [rank.build.remote(self.cfg, address) for rank in self.ranks]

    def revive(self) -> str | None:
        """After an error: None when it was none of a dead rank, else what was done about it. WorkerLost when there were
        too many deaths, or there is no place for a rank within `cluster.restart_wait_s`."""
        deaths = self._deaths()
        if not deaths:
            return None
        wait_s = min(self.cfg.cluster.restart_wait_s, LONGEST_S)
        while True:
            who, reason = f"trainer rank {', '.join(map(str, deaths))}", next(iter(deaths.values()))
            pause = self.budget.spend(who, reason)
            said = f", again in {pause:g} s" if pause else ""
            self.tell(f"{who} died ({reason}): all {len(self.ranks)} are replaced{said}")
            sleep(pause)
            self.kill()
            placed = self._placed()
            _, missing = ray.wait(placed, num_returns=len(placed), timeout=wait_s, fetch_local=False)
            if missing:
                raise unplaced(f"trainer rank {', '.join(str(placed.index(ref)) for ref in missing)}", self.cfg.cluster)
            try:
                first_failure(self._built(placed))
                return f"{who} died: all {len(self.ranks)} were started again"
            except Exception:  # what a death does to the other ranks may be heard before the death itself
                deaths = self._deaths()
                if not deaths:
                    raise

    def _deaths(self) -> dict[int, str]:
        """The ranks that are dead, and what each died of."""
        alive = [rank.process.remote() for rank in self.ranks]
        answered, _ = ray.wait(alive, num_returns=len(alive), timeout=ANSWER_S, fetch_local=False)
        return {n: reason for n, ref in enumerate(alive) if ref in answered and (reason := death(ref))}

    def kill(self) -> None:
        for rank in self.ranks:
            ray.kill(rank)

    def step(self, batch: Batch, objective: Objective, learning_rate: float) -> dict[str, float]:
        return self._all("step", ray.put(send(batch)), objective, learning_rate)

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
        left = list(streams)
        while left:  # whichever ends first: rank 0 waits for ever for one that is dead
            (stream, *_), _ = ray.wait(left, num_returns=1, fetch_local=False)
            ref = next(stream, None)
            if ref is None:
                left.remove(stream)
            elif stream is streams[0] and ref != stream.completed():  # which stands for its death
                yield ref
            else:
                get(ref)  # the other ranks gather along: they have nothing of their own but an error

    def _lent(self, engines: Sequence[int]) -> Iterator[list[Any]]:
        """Engine n reads what rank n holds, on the device that they share."""
        first = True
        while None not in first_failure(
            refs := [rank.lend_weights.remote(first, n in engines) for n, rank in enumerate(self.ranks)]
        ):
            yield [refs[n] for n in engines]
            first = False


def death(ref: Any) -> str | None:
    """What an actor died of; None where it answers."""
    try:
        get(ref)
    except WorkerLost as error:
        return str(error)
    return None
