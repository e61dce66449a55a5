"""The sentinel's knobs. Defaults live here and nowhere else; recipes/sentinel/*.yaml only say what differs.

Every detector has a section of its own. A limit is relative to what the run itself has shown to be healthy, and has an
absolute floor, for a run that does well may be ten times quieter than it was, and is no worse for it.
"""

from dataclasses import dataclass, field


@dataclass
class NonFiniteConfig:
    enabled: bool = True
    patience: int = 16
    """Steps in a row whose gradient is not finite. One is skipped and breaks nothing; so many are broken weights."""


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
    """... and at least this much ..."""
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
    """Alarm when more than this share of the best accuracy is gone ..."""
    floor: float = 0.05
    """... and at least this much ..."""
    certainty: float = 3.5
    """... and the size of the evaluation does not explain it, in standard errors."""
    problems: int = 200
    """Problems of one evaluation: the fewer, the noisier."""


@dataclass
class LengthConfig:
    """Completions much longer than they were, for less reward than there was. Longer ones that pay are welcome."""

    enabled: bool = True
    window: int = 24
    """Recent steps that are looked at."""
    factor: float = 1.5
    """Alarm above this multiple of the mean length in the run's better half ..."""
    certainty: float = 3.0
    """... when the reward has fallen by more standard errors than this."""


@dataclass
class SampleSizeConfig:
    enabled: bool = True
    window: int = 12
    """Recent steps whose median is looked at."""
    min: float = 0.5
    """Smallest effective sample size of the importance weights, as a share of the tokens."""


@dataclass
class SentinelConfig:
    enabled: bool = True
    """False: nothing is watched and nothing is rolled back."""
    max_rollbacks: int = 3
    """How often a run may go back to a checkpoint before it stops."""
    memory: int = 1000
    """Good steps that are remembered. What got worse more slowly than that goes unseen."""
    solved: float = 0.9
    """Mean accuracy (reward, where there is none) above which nothing is left to learn: that no group has a signal,
    or that the policy no longer explores, is then no trouble."""
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
