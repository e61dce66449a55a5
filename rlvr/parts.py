"""What a run is made of, as the loop sees it: Protocols, and no more than it calls. Who they are, `run.py` decides."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from rlvr.lineage import Lineage
from rlvr.objective import Batch, Objective
from rlvr.state import Evaluated, State, Taken

Seen = Mapping[str, float]  # what the sentinel watches of a step


class Trainer(Protocol):
    def step(self, batch: Batch, objective: Objective, learning_rate: float) -> dict[str, float]:
        """All optimizer steps on the batch; metrics by the names of `observe/metrics.py`."""
        ...


class Rollouts(Protocol):
    """Verified groups, sampled by engines that may lag the trainer by `max_staleness` versions, never more."""

    def publish(self, trainer: Any, lineage: Lineage) -> Mapping[str, float]:
        """The trainer's weights to every engine, proved by a probe; metrics."""
        ...

    def newest_version(self) -> int:
        """The highest policy version that any engine holds; -1 for none."""
        ...

    def take(self, state: State) -> Taken:
        """The next step's groups from `state.cursor` on, sampled and verified."""
        ...

    def evaluate(self) -> Evaluated:
        """How good the published weights are on the held-out problems; empty without any."""
        ...

    def memory(self) -> Mapping[str, Any]:
        """What a checkpoint keeps of the rollouts, as JSON."""
        ...

    def remember(self, memory: Mapping[str, Any]) -> None:
        """Go on from what `memory` said; nothing at the start of a run."""
        ...


class Checkpoints(Protocol):
    """Written while the training goes on; `settle` sees to those that are done, and to those that have proved good."""

    def first(self, trainer: Any) -> State:
        """Saves step 0; its state."""
        ...

    def restore(self, trainer: Any) -> State | None:
        """Loads what the run is to go on from, into the trainer; None for a run that has nothing yet."""
        ...

    def save(self, trainer: Any, state: State) -> None: ...

    def settle(self, trainer: Any, step: int) -> None:
        """Once a step: sees to what has been written, and to what has proved good by `step`."""
        ...

    def finish(self, trainer: Any) -> None:
        """Waits for what is being written."""
        ...

    def evaluated(self, state: State, accuracy: Mapping[str, float]) -> None:
        """Notes the accuracy of this state's weights: the best are kept."""
        ...

    def roll_back(self, trainer: Any, state: State, onset: int) -> State:
        """Loads the newest good checkpoint from before step `onset`; its state."""
        ...

    def anchor(self, trainer: Any, name: str) -> str:
        """Exports the weights of checkpoint `name`, which were just restored; the folder."""
        ...

    def note_rollback(self, state: State) -> None:
        """Written down before anything else happens: a restart goes on from there."""
        ...


class Alarm(Protocol):
    """Says value, limit and knob; `onset` is the first step of the trouble."""

    @property
    def onset(self) -> int: ...
    def fields(self) -> dict[str, Any]: ...


class Sentinel(Protocol):
    memory: int  # good steps to remember

    def watch(self, step: int, metrics: Mapping[str, float]) -> Seen:
        """Of a step's metrics what is remembered and compared."""
        ...

    def inspect(self, seen: Seen, history: tuple[Seen, ...]) -> Alarm | None:
        """The first reason to undo the step; None when there is none."""
        ...


class Observer(Protocol):
    def step(self, state: State, taken: Taken, batch: Batch, metrics: Mapping[str, float]) -> None: ...
    def evaluation(self, state: State, evaluated: Evaluated) -> None: ...
    def event(self, kind: str, message: str, **fields: Any) -> None:
        """Something that is no step. A `begin` or `rollback` with `to`: steps after that one are taken again, and what
        was written of them is put aside."""
        ...


@dataclass(frozen=True)
class Parts:
    """What a run is made of."""

    trainer: Any  # a Trainer to the loop; checkpoints and rollouts ask more of it
    rollouts: Rollouts
    checkpoints: Checkpoints
    sentinel: Sentinel
    observer: Observer
    learning_rate: Callable[[int], float]  # of the step about to be taken
    stop: Callable[[], bool] = lambda: False  # someone asked the run to end early, cleanly
