"""What goes wrong with a toy run: batches that break it, and plugs that are pulled at a phase of one's choice."""

from pathlib import Path

from rlvr.checkpoint.disk import DiskCheckpoints
from rlvr.checkpoint.ledger import step_of
from rlvr.config import CheckpointConfig

STEPS = 7
# two prompts a step: 11 breaks step 6, which goes back to step 3, good since step 5; 13 then breaks step 4, within the
# two steps of probation, so that the checkpoint of step 3 is given up too, and it goes back to step 0
POISON = {11, 13}


class Recorded:
    """Counts the phases of a run, and acts in the one that the test chose."""

    def __init__(self, act=None, at: int | None = None, phase: str | None = None):
        self.act, self.at, self.phase = act, at, phase
        self.phases: list[str] = []

    def __call__(self, phase: str) -> None:
        now = len(self.phases) if self.phase is None else self.phases.count(self.phase)
        self.phases.append(phase)
        if now == self.at and phase == (self.phase or phase):
            self.act()


def steps_of(checkpoints: DiskCheckpoints) -> list[int]:
    return [step_of(name) for name in checkpoints.ledger.usable()]


def opened(folder: Path) -> DiskCheckpoints:
    return DiskCheckpoints(folder, CheckpointConfig(keep=3), [0, 1], lambda kind, said: None)


class Unplugged(Exception):
    """The machine went away."""


def fail(error=Unplugged):
    def act():
        raise error

    return act
