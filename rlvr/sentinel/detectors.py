"""The reasons to distrust a run, each a small class: a History in, an Alarm or None out. Pure, and knows no loop.

    Rise, Fall       one number has left the level that the run itself has shown to be healthy
    the others       what takes a second metric to judge, or no history at all

A detector whose metric is missing is silent. All wait for a history to compare with; none judges a single noisy step,
but for numbers that no healthy step can have.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median
from typing import Any, Protocol

from rlvr.sentinel.history import Alarm, History, Series
from rlvr.sentinel.levels import BLOCK, STRETCHES, Change, best, logarithms, noise, onset, quietest
from rlvr.sentinel_config import (
    AccuracyConfig,
    EntropyCollapseConfig,
    FallConfig,
    LengthConfig,
    MismatchConfig,
    NonFiniteConfig,
    RiseConfig,
    SampleSizeConfig,
    SentinelConfig,
)

ENTROPY, REWARD, SKIPPED = "policy/entropy", "reward/mean", "policy/skipped"
SOLVED_BY = ("accuracy_rewarded", "accuracy", REWARD)  # the first that is known: a closed gate leaves much to learn
PROBLEMS, USUAL_PROBLEMS = "eval/problems", 200  # of an evaluation whose size nobody tells
LUCK = 2.0  # standard errors that the best of many evaluations may owe to it
PROBE = "transfer/probe_rms"  # of the weights that the step before left behind
WATCHED_FINITE = ("policy/loss", ENTROPY, "policy/grad_norm", "policy/kl_ref", "mismatch/mean_abs", PROBE)


class Detector(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def needs(self) -> tuple[str, ...]: ...  # metrics without which it is silent
    @property
    def cfg(self) -> Any: ...  # its section of the recipe, with a switch: `enabled`

    def __call__(self, history: History) -> Alarm | None: ...


@dataclass(frozen=True)
class NonFinite:
    """A loss, a gradient or an entropy that is no number; or weights that give none. A skipped step broke nothing, and
    what it measured is not in the row; `patience` of them did."""

    cfg: NonFiniteConfig
    name: str = "nonfinite"
    needs: tuple[str, ...] = ()

    def __call__(self, history: History) -> Alarm | None:
        for metric in WATCHED_FINITE:
            value = history.now.get(metric, 0.0)
            if not math.isfinite(value):
                knob = f"sentinel.{self.name}"
                said = f"{metric} is {value}, not finite ({knob})"
                began = history.step - 1 if metric == PROBE else history.step
                return Alarm(self.name, history.step, began, metric, value, math.inf, knob, said)
        return self._endless(history) if history.now.get(SKIPPED) else None

    def _endless(self, history: History) -> Alarm | None:
        """Steps without a token to train on had no update to skip, and end no row of those that had. Of a step with
        several updates all must have been skipped."""
        patience = self.cfg.patience
        tail = [row for row in history.rows if SKIPPED in row or "policy/loss" in row][-patience:]
        if len(tail) < patience or any(row.get(SKIPPED, 0.0) < 1 for row in tail):
            return None
        knob = f"sentinel.{self.name}.patience"
        said = f"gradients not finite for {patience} steps with an update in a row >= {knob} {patience}"
        return Alarm(self.name, history.step, int(tail[0]["step"]), SKIPPED, patience, patience, knob, said)


@dataclass(frozen=True)
class Rise:
    """The recent median is a multiple of the lowest one that the run has had, and above a floor."""

    name: str
    metric: str
    cfg: RiseConfig
    updates_only: bool = False  # a step without signal has loss 0 and gradient 0, which says nothing of either

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.metric,)

    def __call__(self, history: History) -> Alarm | None:
        recent = history.recent(self.metric, self.cfg.window, zeros=not self.updates_only)
        if recent is None or (now := median(map(abs, recent))) <= self.cfg.floor:
            return None
        steps, values = sizes(history.series(self.metric), self.updates_only)
        before = values[: -self.cfg.window]
        if len(before) < BLOCK:
            return None
        low, end = quietest(before)
        limit = max(self.cfg.floor, self.cfg.factor * low)
        if now <= limit:
            return None
        usual = sorted(map(abs, before))[4 * len(before) // 5]  # one step in five was above it, and that was no trouble
        change = Change(max(low, min(usual, now / 2)), now, end)
        began = steps[onset(logarithms(values, change), change)]
        if limit == self.cfg.floor:
            knob, over = f"sentinel.{self.name}.floor", f"{limit:g} (its quietest was {low:.3g})"
        else:
            knob, over = f"sentinel.{self.name}.factor", f"{self.cfg.factor:g} x its quietest {low:.3g}"
        said = f"{self.metric} {now:.3g} (median of {self.cfg.window} steps) > {knob} {over}"
        return Alarm(self.name, history.step, began, self.metric, now, limit, knob, said)


def sizes(series: Series, updates_only: bool) -> Series:
    kept = [(step, abs(x)) for step, x in zip(*series, strict=True) if x or not updates_only]
    return Series([step for step, _ in kept], [x for _, x in kept])


@dataclass(frozen=True)
class Mismatch(Rise):
    """Also a single step, where no two implementations of one policy can differ so much."""

    cfg: MismatchConfig

    def __call__(self, history: History) -> Alarm | None:
        value, limit = history.now.get(self.metric, 0.0), self.cfg.max
        if not value > limit:
            return super().__call__(history)
        knob = f"sentinel.{self.name}.max"
        said = f"{self.metric} {value:.3g} > {knob} {limit:g}"
        return Alarm(self.name, history.step, history.step, self.metric, value, limit, knob, said)


@dataclass(frozen=True)
class Fall:
    """Recent steps lie below the best level that the run has proved, by more than noise and more than it can spare."""

    name: str
    metric: str
    cfg: FallConfig
    solved: float | None = None  # no alarm while the task is solved at this level
    complement: bool = False  # it is 1 - metric that should stay up

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.metric,)

    def __call__(self, history: History) -> Alarm | None:
        steps, raw = history.series(self.metric)
        if not history.fresh(self.metric) or len(raw) < BLOCK + self.cfg.windows[0]:
            return None
        values = [1 - x for x in raw] if self.complement else raw
        recent = {m: fmean(values[-m:]) for m in self.cfg.windows if m <= len(values)}
        top = max(values)
        # where nothing at all is left for so long, no height is too low to have fallen from
        floor = self.cfg.floor if any(values[-max(self.cfg.windows) :]) else 0.0
        if min(recent.values()) >= top - max(floor, self.cfg.share * abs(top)):
            return None  # as on most steps: there is no height that it could have fallen from
        spread = self.cfg.certainty * noise(values)
        proved = best(values[: -self.cfg.windows[0]], spread)
        for m, now in recent.items():
            allowed = max(floor, self.cfg.share * abs(proved.bound), spread / math.sqrt(m))
            if now < proved.bound - allowed and not (self.solved and is_solved(history, self.solved)):
                began = steps[onset(values, Change(proved.bound, now, proved.end))]
                return self._alarm(history, now, proved.bound, allowed, m, began)
        return None

    def _alarm(self, history: History, now: float, bound: float, allowed: float, m: int, began: int) -> Alarm:
        knobs = {"share": self.cfg.share * abs(bound), "floor": self.cfg.floor}
        knob = next((f"sentinel.{self.name}.{k}" for k, x in knobs.items() if x == allowed), None)
        knob = knob or f"sentinel.{self.name}.certainty"
        if self.complement:  # said of the metric itself
            sign, now, limit, proved = ">", 1 - now, 1 - bound + allowed, 1 - bound
        else:
            sign, limit, proved = "<", bound - allowed, bound
        said = (
            f"{self.metric} {now:.3g} (mean of {m} steps) {sign} {limit:.3g}: {knob} allows {allowed:.3g} from its "
            f"best {proved:.3g}"
        )
        return Alarm(self.name, history.step, began, self.metric, now, limit, knob, said)


def is_solved(history: History, level: float) -> bool:
    """The recent mean of the rewarded accuracy, or of what is known in its place, leaves nothing to learn."""
    metric = next((name for name in SOLVED_BY if history.fresh(name)), REWARD)
    recent = history.series(metric).values[-STRETCHES[1] :]
    return bool(recent) and fmean(recent) >= level


@dataclass(frozen=True)
class EntropyCollapse:
    """Hardly any entropy is left, and the reward is no better than when there was: it was lost, not spent."""

    cfg: EntropyCollapseConfig
    solved: float
    name: str = "entropy_collapse"
    needs: tuple[str, ...] = (ENTROPY,)

    def __call__(self, history: History) -> Alarm | None:
        recent = history.recent(ENTROPY, self.cfg.window)
        if recent is None or (now := median(recent)) >= self.cfg.ceiling:
            return None
        steps, values = history.series(ENTROPY)
        before = values[: -self.cfg.window]
        if len(before) < BLOCK:
            return None
        low, end = quietest([-x for x in before])
        limit = min(self.cfg.ceiling, -low / self.cfg.factor)
        if now >= limit or is_solved(history, self.solved):
            return None
        change = Change(-low, now, end)
        began = steps[onset(logarithms(values, change), change)]
        if has_paid(history.series(REWARD), max(began, steps[end - 1])):
            return None
        knob = f"sentinel.{self.name}.{'ceiling' if limit == self.cfg.ceiling else 'factor'}"
        said = (
            f"{ENTROPY} {now:.3g} (median of {self.cfg.window} steps) < {limit:.3g} ({knob}; its liveliest was "
            f"{-low:.3g}), and no better reward for it"
        )
        return Alarm(self.name, history.step, began, ENTROPY, now, limit, knob, said)


def has_paid(reward: Series, began: int) -> bool:
    """The reward of the recent steps is above that of the steps before `began`, the liveliest of all among them."""
    earlier = [x for step, x in zip(*reward, strict=True) if step < began]
    return bool(earlier) and fmean(reward.values[-STRETCHES[1] :]) > fmean(earlier)


@dataclass(frozen=True)
class LengthWithoutReward:
    """Completions much longer than in the run's better days, for less reward. Longer ones that pay are welcome."""

    cfg: LengthConfig
    name: str = "length"
    metric: str = "completions/length_mean"
    needs: tuple[str, ...] = ("completions/length_mean", REWARD)

    def __call__(self, history: History) -> Alarm | None:
        n = self.cfg.window
        both = [row for row in history.rows if self.metric in row and REWARD in row]
        if not history.fresh(self.metric) or not history.fresh(REWARD) or len(both) < n + STRETCHES[1]:
            return None
        steps = [int(row["step"]) for row in both]
        lengths, rewards = [row[self.metric] for row in both], [row[REWARD] for row in both]
        spread = self.cfg.certainty * noise(rewards)
        proved = best(rewards[:-n], spread)
        poor = fmean(rewards[-n:])
        if poor >= proved.bound - spread / math.sqrt(n):
            return None
        usual, now = fmean(lengths[: proved.end]), fmean(lengths[-n:])
        limit = self.cfg.factor * usual
        if now <= limit:
            return None
        began = steps[onset(rewards, Change(proved.bound, poor, proved.end))]  # when they no longer paid
        knob = f"sentinel.{self.name}.factor"
        said = (
            f"{self.metric} {now:.4g} (mean of {n} steps) > {knob} {self.cfg.factor:g} x {usual:.4g}, while {REWARD} "
            f"fell from {proved.mean:.3g} to {poor:.3g}"
        )
        return Alarm(self.name, history.step, began, self.metric, now, limit, knob, said)


@dataclass(frozen=True)
class HeldOut:
    """Two evaluations in a row are below the best level by more than their size explains. That level is what two in a
    row have reached, or one by more than luck: the best of many evaluations has mostly had some."""

    cfg: AccuracyConfig
    name: str = "accuracy"
    metric: str = "eval/accuracy_greedy"
    needs: tuple[str, ...] = ("eval/accuracy_greedy",)

    def __call__(self, history: History) -> Alarm | None:
        size = history.now.get(PROBLEMS)  # `evaluation.limit` may have changed, and other problems are harder
        found = History([row for row in history.rows if row.get(PROBLEMS) == size]).series(self.metric)
        if not history.fresh(self.metric) or len(found.values) < 3:
            return None
        steps, values = found
        problems = self.cfg.problems or history.now.get(PROBLEMS, USUAL_PROBLEMS)
        before, now = values[:-2], max(values[-2:])
        luckiest = max(before)
        top = max([luckiest - LUCK * standard_error(luckiest, problems), *map(min, pairwise(before))])
        error = standard_error(top, problems)
        knobs = {"share": self.cfg.share * top, "floor": self.cfg.floor, "certainty": self.cfg.certainty * error}
        which = max(knobs, key=lambda name: knobs[name])
        limit = top - knobs[which]
        if now >= limit:
            return None
        # it began somewhere behind the last evaluation that was nearer to the best than to the limit
        began = steps[max(i for i, x in enumerate(values) if x > (top + limit) / 2)]
        knob = f"sentinel.{self.name}.{which}"
        said = (
            f"{self.metric} {now:.3g} (the better of two evaluations) < {limit:.3g}: {knob} allows {knobs[which]:.3g} "
            f"from its best {top:.3g}"
        )
        return Alarm(self.name, history.step, began, self.metric, now, limit, knob, said)


def standard_error(share: float, of: float) -> float:
    return math.sqrt(max(share * (1 - share), 0.0) / of)


@dataclass(frozen=True)
class SampleSize:
    """The importance weights are so uneven that few of the tokens decide the step."""

    cfg: SampleSizeConfig
    name: str = "sample_size"
    metric: str = "mismatch/ess"
    needs: tuple[str, ...] = ("mismatch/ess",)

    def __call__(self, history: History) -> Alarm | None:
        recent = history.recent(self.metric, self.cfg.window)
        if recent is None or (now := median(recent)) >= self.cfg.min:
            return None
        steps, values = history.series(self.metric)
        healthy = [i for i, x in enumerate(values) if x >= self.cfg.min and i <= len(values) - len(recent) / 2]
        began = steps[healthy[-1] + 1] if healthy else steps[0]
        knob = f"sentinel.{self.name}.min"
        said = f"{self.metric} {now:.3g} (median of {self.cfg.window} steps) < {knob} {self.cfg.min:g}"
        return Alarm(self.name, history.step, began, self.metric, now, self.cfg.min, knob, said)


def detectors(cfg: SentinelConfig) -> Sequence[Detector]:
    """Those that are switched on, the surest first: the first to speak is the reason of a rollback."""
    everyone: list[Detector] = [
        NonFinite(cfg.nonfinite),
        Mismatch("mismatch", "mismatch/mean_abs", cfg.mismatch),
        SampleSize(cfg.sample_size),
        Rise("entropy_rise", ENTROPY, cfg.entropy_rise),
        Rise("kl", "policy/kl_ref", cfg.kl),
        Rise("grad_norm", "policy/grad_norm", cfg.grad_norm, updates_only=True),
        Rise("loss", "policy/loss", cfg.loss, updates_only=True),
        Fall("reward", REWARD, cfg.reward),
        HeldOut(cfg.accuracy),
        Fall("truncated", "completions/truncated", cfg.truncated, complement=True),
        LengthWithoutReward(cfg.length),
        EntropyCollapse(cfg.entropy_collapse, cfg.solved),
        Fall("no_signal", "groups/no_signal", cfg.no_signal, solved=cfg.solved, complement=True),
    ]
    return [detector for detector in everyone if cfg.enabled and detector.cfg.enabled]
