"""What both displays say about a run in progress: readings, time left, a sparkline. Text only; prints nothing."""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

from rlvr.observe.summary import percent

RECENT = 20  # steps whose median duration tells the time left; a median, so that an evaluation in between counts little
BARS = "▁▂▃▄▅▆▇█"

SHOWN: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("reward/mean", "reward", "{:.3f}".format),
    ("accuracy", "accuracy", percent),
    ("policy/entropy", "entropy", "{:.2f}".format),
    ("tokens/per_s", "tokens/s", "{:,.0f}".format),
    ("time/step", "s/step", "{:.1f}".format),
)


def readings(metrics: Mapping[str, float]) -> list[tuple[str, str]]:
    """(label, value) of the metrics worth a place on the screen, those that the step has."""
    return [(label, text(metrics[name])) for name, label, text in SHOWN if name in metrics]


class Clock:
    """Time since a run's start or resume, and how much is left."""

    def __init__(self, steps: int, done: int) -> None:
        self.steps = steps
        self.done = done
        self._start = self._last = time.monotonic()
        self._durations: list[float] = []

    def tick(self, step: int) -> None:
        """A step has ended. A step that does not advance (a rollback, the row of step 0) has no duration."""
        now = time.monotonic()
        if step > self.done:
            self._durations = [*self._durations, now - self._last][-RECENT:]
        self._last, self.done = now, step

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._start

    @property
    def left_s(self) -> float:
        """Counts down between steps too; nan before the first."""
        if not self._durations:
            return math.nan
        remaining = (self.steps - self.done) * statistics.median(self._durations)
        return max(0.0, remaining - (time.monotonic() - self._last))


class Curve:
    """One metric over the whole run: accuracy, or the reward in a run without it."""

    def __init__(self) -> None:
        self._values: dict[str, dict[int, float]] = {"accuracy": {}, "reward/mean": {}}

    def add(self, step: int, metrics: Mapping[str, float]) -> None:
        """After a rollback the abandoned steps leave the curve."""
        for name, values in self._values.items():
            while values and next(reversed(values)) >= step:  # they are in order
                values.popitem()
            if name in metrics and math.isfinite(metrics[name]):
                values[step] = metrics[name]

    def drawn(self, width: int) -> tuple[str, str, str, str] | None:
        """(label, first value, bars, last value): `width` characters at most, spaces included; None before step 2,
        or where there is no room."""
        name = "accuracy" if self._values["accuracy"] else "reward/mean"
        values = list(self._values[name].values())
        if len(values) < 2:
            return None
        _, label, text = next(shown for shown in SHOWN if shown[0] == name)
        room = width - len(label) - len(text(values[0])) - len(text(values[-1])) - 3
        return None if room < 1 else (label, text(values[0]), sparkline(values, room), text(values[-1]))


def sparkline(values: Sequence[float], width: int) -> str:
    """One character a value; more values than `width` are averaged in even stretches. The tallest bar is the maximum.

    sparkline([0.0, 0.5, 1.0, 0.5], 80) == "▁▅█▅"
    """
    n = min(width, len(values))
    edges = [i * len(values) // n for i in range(n + 1)]
    means = [statistics.fmean(values[a:b]) for a, b in pairwise(edges)]
    low, high = min(means), max(means)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(BARS[int((mean - low) * scale + 0.5)] for mean in means)
