"""The sentinel's knobs. Defaults live here and nowhere else; recipes/sentinel/*.yaml only say what differs.

Every detector has a section of its own. A limit is relative to what the run itself has shown to be healthy, and has an
absolute floor, for a run that does well may be ten times quieter than it was, and is no worse for it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from math import inf
from typing import Any


@dataclass
class NonFiniteConfig:
    enabled: bool = True
    patience: int = 16
    """Steps in a row, of those with an update, in which no gradient was finite. One is skipped and breaks nothing; so
    many are broken weights."""


@dataclass
class RiseConfig:
    """Something that should stay low has risen: the median of the recent steps against the run's quietest stretch."""

    enabled: bool = True
    window: int = 12
    """Recent steps that are looked at. More are slower and surer."""
    factor: float = 10.0
    """Alarm above this multiple of the quietest stretch (the lowest median of 16 steps in a row) ..."""
    floor: float = 1.0
    """... and never below this."""


@dataclass
class FallConfig:
    """A level that should stay up has fallen: recent means against the best level that the run has proved."""

    enabled: bool = True
    windows: list[int] = field(default_factory=lambda: [12, 24, 48])
    """Recent steps whose means are looked at: a deep fall is sure after few, a shallow one after many."""
    share: float = 0.35
    """Alarm when more than this share of the best level is gone ..."""
    floor: float = 0.1
    """... and at least this much, or all of it: 0 on each step of the longest window ..."""
    certainty: float = 4.0
    """... and the steps' own noise does not explain it, in standard errors. Lower sees sooner and errs more often."""


@dataclass
class MismatchConfig(RiseConfig):
    floor: float = 0.2
    max: float = 1.0
    """Of a single step: above it, engine and trainer are not the same policy."""


@dataclass
class EntropyCollapseConfig:
    """The policy no longer explores, and it has not been worth it: the reward is no better than before."""

    enabled: bool = True
    window: int = 12
    """Recent steps whose median is looked at."""
    factor: float = 5.0
    """Alarm below the liveliest stretch divided by this ..."""
    ceiling: float = 0.02
    """... and never above this, nats."""


@dataclass
class AccuracyConfig:
    """Held-out accuracy. Two evaluations in a row must be low: one is too few to tell."""

    enabled: bool = True
    share: float = 0.15
    """Alarm when more than this share of the best accuracy that was proved is gone ..."""
    floor: float = 0.05
    """... and at least this much ..."""
    certainty: float = 3.5
    """... and the size of the evaluation does not explain it, in standard errors."""
    problems: int = 0
    """Problems of one evaluation: the fewer, the noisier. 0: as many as the run says, 200 where it does not."""


@dataclass
class LengthConfig:
    """Completions much longer than they were, for less reward than there was. Longer ones that pay are welcome."""

    enabled: bool = True
    window: int = 24
    """Recent steps that are looked at."""
    factor: float = 1.5
    """Alarm above this multiple of the mean length of all steps up to the end of the best stretch of rewards ..."""
    certainty: float = 3.0
    """... when the reward has fallen by more standard errors than this."""


@dataclass
class SampleSizeConfig:
    enabled: bool = True
    window: int = 12
    """Recent steps whose median is looked at."""
    min: float = 0.5
    """Smallest effective sample size of the importance weights, as a share of the tokens."""


REMEDIES = ("skip_data", "lower_learning_rate", "tighten_clip", "mask_mismatch", "anchor")


@dataclass
class SentinelConfig:
    enabled: bool = True
    """False: nothing is watched and nothing is rolled back."""
    max_rollbacks: int = 12
    """How often in a row a run may go back to a checkpoint before it stops; after `remedy_steps` of health it counts
    anew. A fault from outside that lasts is met again each time: if it is seen within 3 steps, 36 are outlasted."""
    remedies: list[str] = field(default_factory=lambda: list(REMEDIES))
    """The ladder: the first after an alarm, one more each time that trouble comes back while the former are in force.
    Every rollback goes on behind the data that broke the run; with `skip_data` in force 4, 8, and then each time
    16 steps further."""
    remedy_steps: int = 50
    """How long remedies stay in force, in steps from the alarm on."""
    learning_rate_factor: float = 0.3
    """Of `lower_learning_rate`."""
    clip_factor: float = 0.5
    """Of `tighten_clip`, times the clip's bounds."""
    mismatch_low: float = 0.5
    """Of `mask_mismatch`: tokens whose pi_old/pi_rollout lies below do not teach ..."""
    mismatch_high: float = 2.0
    """... nor those above."""
    anchor_coefficient: float = 0.05
    """Of `anchor`, a KL penalty to the checkpoint that the run went back to."""
    memory: int = 1000
    """Good steps that are remembered. What got worse more slowly than that goes unseen."""
    solved: float = 0.9
    """Mean `accuracy_rewarded` (where there is none the accuracy, or the reward) above which nothing is left to learn:
    that no group has a signal, or that the policy no longer explores, is then no trouble."""
    nonfinite: NonFiniteConfig = field(default_factory=NonFiniteConfig)
    mismatch: MismatchConfig = field(default_factory=MismatchConfig)
    sample_size: SampleSizeConfig = field(default_factory=SampleSizeConfig)
    entropy_rise: RiseConfig = field(default_factory=lambda: RiseConfig(factor=4.0, floor=1.0))
    entropy_collapse: EntropyCollapseConfig = field(default_factory=EntropyCollapseConfig)
    kl: RiseConfig = field(default_factory=lambda: RiseConfig(factor=10.0, floor=1.0))
    grad_norm: RiseConfig = field(default_factory=lambda: RiseConfig(window=5, factor=10.0, floor=10.0))
    loss: RiseConfig = field(default_factory=lambda: RiseConfig(factor=20.0, floor=20.0))
    reward: FallConfig = field(default_factory=FallConfig)
    accuracy: AccuracyConfig = field(default_factory=AccuracyConfig)
    truncated: FallConfig = field(default_factory=lambda: FallConfig(share=0.5, floor=0.25))
    """Share of completions that end by themselves: when it falls, they run into the length limit."""
    length: LengthConfig = field(default_factory=LengthConfig)
    no_signal: FallConfig = field(default_factory=lambda: FallConfig(windows=[48], share=0.9, floor=0.2))
    """Share of groups that teach something."""


BLOCK = 16  # steps of the shortest stretch that counts as the run's own level
STRETCHES = (16, 32, 64)  # a level is proved by the stretch that proves most
BEFORE = {  # steps before the window without which a detector has nothing to compare with; the others need none
    **{f"{name}.window": BLOCK for name in ("mismatch", "entropy_rise", "entropy_collapse", "kl", "grad_norm", "loss")},
    **{f"{name}.windows": BLOCK for name in ("reward", "truncated", "no_signal")},
    "length.window": STRETCHES[1],
}

LIMITS = {  # smallest and largest value, whatever section a knob is in
    "max_rollbacks": (0, inf),
    "memory": (64, inf),  # shorter, and nothing can be compared
    "remedy_steps": (1, inf),
    "window": (1, inf),
    "windows": (1, inf),
    "patience": (1, inf),
    "problems": (0, inf),
    "factor": (1, inf),
    "floor": (0, inf),
    "ceiling": (0, inf),
    "max": (0, inf),
    "certainty": (0, inf),
    "share": (0, 1),
    "min": (0, 1),
    "solved": (0, 1),
    "learning_rate_factor": (0, 1),
    "clip_factor": (0, 1),
    "mismatch_low": (0, 1),
    "mismatch_high": (1, inf),
    "anchor_coefficient": (0, inf),
}
ABOVE_0 = ("learning_rate_factor", "clip_factor", "anchor_coefficient", "mismatch.max")  # at 0 nothing is left of them


def what_is_wrong(cfg: SentinelConfig) -> str | None:
    """The first knob with a value that cannot work, in words."""
    for name in cfg.remedies:
        if name not in REMEDIES:
            return f"remedies: no remedy {name!r}; there are: {', '.join(REMEDIES)}"
    for key, value in knobs(cfg):
        low, high = LIMITS[key.rpartition(".")[2]]
        for x in value if isinstance(value, list) else [value]:
            if not low <= x <= high:
                return f"{key}={value}: at least {low}" + (f", at most {high}" if high < inf else "")
            if key in ABOVE_0 and x == 0:
                return f"{key}={value}: above 0"
            if key in BEFORE and x + BEFORE[key] > cfg.memory + 1:
                room = f"memory={cfg.memory} must hold {BEFORE[key]} steps before them, to compare with"
                return f"{key}={value}: at most {cfg.memory + 1 - BEFORE[key]}, for {room}"
            if key.endswith(("window", "windows", "patience")) and x > cfg.memory:
                return f"{key}={value}: at most memory={cfg.memory}, the steps that are remembered"
        if value == []:
            return f"{key} is empty"
    return None


def knobs(section: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every number of the section and those in it."""
    for knob in fields(section):
        value = getattr(section, knob.name)
        if is_dataclass(value):
            yield from knobs(value, f"{prefix}{knob.name}.")
        elif not isinstance(value, bool) and knob.name != "remedies":
            yield f"{prefix}{knob.name}", value
