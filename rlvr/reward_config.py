"""What a recipe may say about its reward, and about those who compute it. A part of rlvr.config."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

LARGEST = 1e6  # magnitude of a reward, or a weight: whose squares and sums are far from where floats end
MISSING: Any = "???"  # OmegaConf's mark of a value that the recipe must give


@dataclass
class VerifierChoice:
    verifier: str = MISSING
    """An installed plugin's name, `package.module:attribute`, or `file.py:attribute`."""
    params: dict[str, Any] = field(default_factory=dict)
    """The verifier's own options."""
    timeout_s: float | None = None
    """CPU seconds until a verification is killed, and seconds that one which asks others may wait for them; null: the
    verifier's own limit."""


@dataclass
class AuditConfig(VerifierChoice):
    share: float = 0.05
    """Of the completions, those that this stricter verifier judges too: it is reported and rewards nobody."""


@dataclass
class PartConfig(VerifierChoice):
    weight: float = 1.0
    """Of this part in the reward. 0 reports the part and does not train on it. Below 0 (in a sum) the part finds a
    fault: what it finds is taken off, and where it rejects a completion the fault is whole (1)."""
    gate: bool = False
    """Where a gate is 0 or less nothing is earned, e.g. format before correctness; parts that punish still do."""
    requires: dict[str, float] = field(default_factory=dict)
    """This part is 0 unless the parts named here reach at least these values, e.g. {math: 1.0} for a length reward
    that only right answers earn (GDPO, arXiv:2601.05242, eq. 8)."""
    first_decided: list[VerifierChoice] = field(default_factory=list)
    """Asked in turn where `verifier`, and those before, cannot say: e.g. a judge behind a rule."""
    column: str | None = None
    """A data column in which a row may name its own verifier, with options in the column `<column>_params` (a mapping,
    or one as JSON); empty: `verifier` and `params`. A row may name installed plugins and `choices`, nothing else."""
    choices: dict[str, str] = field(default_factory=dict)
    """Further names that `column` may hold, and the verifiers they stand for, e.g. {mine: checks.py:mine}."""
    audit: AuditConfig | None = None
    """A stricter verifier that looks at a share of the same completions."""


@dataclass
class RewardConfig:
    parts: dict[str, PartConfig] = field(default_factory=dict)
    """Name -> verifier. The first one is the main part: what it says itself, gates or not, is `accuracy`."""
    combine: str = "sum"
    """How parts become the reward: `sum` by weight, `product`, or `min`; the two last over the parts with a weight. A
    product is below 0 when any of them is."""

    def weights(self) -> dict[str, float]:
        """What is trained on: the parts of a sum each with its weight; a product or minimum as one part, `combined`."""
        if self.combine == "sum":
            return {name: part.weight for name, part in self.parts.items()}
        return {"combined": 1.0}

    def decisive(self) -> set[str]:
        """Parts without whose verdict there is no reward: with a weight, gates, and what these require."""
        own = {name for name, part in self.parts.items() if part.weight or part.gate}
        return own | {other for name in own for other in self.parts[name].requires}


@dataclass
class VerifyConfig:
    workers: int = 1
    """Verifier actors."""
    processes: int = 2
    """Killable processes of one verifier actor."""
    max_waiting: int = 1024
    """Completions that may wait for their verdicts; above it the engines pause."""
    window: int = 500
    """The last verdicts of a verifier that its health is judged by."""
    mask_warn: float = 0.02
    """Share of them without a reward (abstained, failed) above which the run warns ..."""
    mask_stop: float = 0.2
    """... and above which it stops. 1: never, but for a step in which no completion got a reward."""
    sudden: str = "stop"
    """When a verifier calls `window` completions all alike that it used to tell apart, and no longer stands by its
    earlier verdicts: `stop` or `warn`."""


def unworkable(reward: RewardConfig, verify: VerifyConfig) -> str | None:
    """Which value cannot work, with its key and its limit."""
    for key, share in (("verify.mask_warn", verify.mask_warn), ("verify.mask_stop", verify.mask_stop)):
        if not 0 <= share <= 1:
            return f"{key}={share}: a share, from 0 to 1"
    for name, part in reward.parts.items():
        knob = f"reward.parts.{name}"
        if why := taken(name, reward.combine):
            return f"{knob}: {why}: choose another name"
        if not abs(part.weight) <= LARGEST:
            return f"{knob}.weight={part.weight}: a finite number, at most {LARGEST:g} in magnitude"
        if part.weight < 0 and reward.combine != "sum":
            return (f"{knob}.weight={part.weight}: reward.combine={reward.combine} knows no signs of weights, and "
                    "would pay for the fault: 0 or more, or reward.combine=sum")  # fmt: skip
        for key, choice in choices(knob, part):
            if choice.timeout_s is not None and not 0 < choice.timeout_s < math.inf:
                return f"{key}.timeout_s={choice.timeout_s}: seconds, above 0 and finite"
        for other, least in part.requires.items():
            if not math.isfinite(least):
                return f"{knob}.requires.{other}={least}: a finite number"
        if part.audit is not None and not 0 <= part.audit.share <= 1:
            return f"{knob}.audit.share={part.audit.share}: a share, from 0 to 1"
    return None


def taken(name: str, combine: str) -> str | None:
    """What else a part's name would be taken for, in metrics and verdicts."""
    if name in ("mean", "std"):
        return f"reward/{name} is a metric of the whole reward"
    if name == "combined" and combine != "sum":
        return f"with reward.combine={combine} `combined` is what the parts become"
    if name.startswith("audit:"):
        return "`audit:` is what the audit of a part begins with"
    return "/ divides the names of metrics" if "/" in name else None


def choices(knob: str, part: PartConfig) -> Iterator[tuple[str, VerifierChoice]]:
    yield knob, part
    for n, later in enumerate(part.first_decided):
        yield f"{knob}.first_decided.{n}", later
    if part.audit is not None:
        yield f"{knob}.audit", part.audit
