"""Where a run stands, apart from its weights. Stdlib only: everything that a stage or a checkpoint passes on."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from rlvr.lineage import Lineage
from rlvr.types import Group


@dataclass(frozen=True)
class State:
    """Everything but the weights that a resumed run needs to repeat an uninterrupted one."""

    step: int = 0
    cursor: int = 0  # prompts consumed, those of undone steps included
    rollbacks: int = 0  # in a row: since health last lasted
    lineage: Lineage = field(default_factory=Lineage)
    restored: str | None = None  # the checkpoint that the last rollback went back to
    remedies: tuple[str, ...] = ()  # in force since then ...
    until: int = 0  # ... and up to this step
    anchor: str | None = None  # the model folder that a KL term holds on to, as a remedy
    rollouts: Mapping[str, Any] = field(default_factory=dict)  # what the rollouts remember; in a checkpoint only
    history: tuple[Mapping[str, float], ...] = field(default=())  # the sentinel's view of the last good steps

    def advance(self, cursor: int, seen: Mapping[str, float], window: int) -> "State":
        history = (*self.history, seen)[-window:]
        return replace(self, step=self.step + 1, cursor=cursor, lineage=self.lineage.publish(), history=history)

    def to_json(self) -> dict[str, Any]:
        """What the rollouts remember is shared with the state: a copy of it would cost the loop a second."""
        return {each.name: getattr(self, each.name) for each in fields(self)} | {"lineage": asdict(self.lineage)}

    @classmethod
    def from_json(cls, saved: dict[str, Any]) -> "State":
        return cls(**saved | {
            "lineage": Lineage(**saved["lineage"]),
            "history": tuple(saved["history"]),
            "remedies": tuple(saved["remedies"]),
        })


@dataclass(frozen=True)
class Taken:
    """One step's groups, verified and filtered; `cursor` is behind the last prompt that was sampled for them."""

    groups: tuple[Group, ...]
    cursor: int
    metrics: Mapping[str, float]
    sampled: tuple[Group, ...]  # all of the step, those that the filter dropped included


@dataclass(frozen=True)
class Evaluated:
    """How good a policy was found on the held-out problems, and all that it wrote about them."""

    metrics: Mapping[str, float] = field(default_factory=dict)
    groups: Mapping[str, tuple[Group, ...]] = field(default_factory=dict)  # by decoding, in the problems' order
