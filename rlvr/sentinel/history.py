"""What the detectors look at: the remembered steps, as columns; and what they say. Knows no threshold.

row   {"step": 12, "reward/mean": 0.41, "policy/entropy": 0.22, ...}    one good step, a metric may be missing
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from math import isfinite, nan
from typing import Any, NamedTuple

Row = Mapping[str, float]
NEARBY = 8  # steps behind a checkpoint that its weights may still be measured by


@dataclass(frozen=True, slots=True)
class Alarm:
    """Alarm("entropy_rise", 236, 205, "policy/entropy", 1.31, 1.0, "sentinel.entropy_rise.floor",
    "policy/entropy 1.31, median of 12 steps > sentinel.entropy_rise.floor 1")"""

    detector: str
    step: int  # when it was seen
    onset: int  # the first step of the trouble: what was saved before it is sound
    metric: str
    value: float
    limit: float
    knob: str
    message: str

    def fields(self) -> dict[str, Any]:
        """For a machine to read."""
        return asdict(self)

    def __str__(self) -> str:
        began = f", since step {self.onset}" if self.onset < self.step else ""
        return f"step {self.step}: {self.message}{began}"


class Series(NamedTuple):
    """One metric over the steps that have it."""

    steps: list[int]
    values: list[float]


class History:
    """The remembered steps and, last, the one that is judged."""

    def __init__(self, rows: Sequence[Row]):
        self.rows = rows
        self._columns: dict[str, Series] = {}

    @property
    def now(self) -> Row:
        return self.rows[-1]

    @property
    def step(self) -> int:
        return int(self.now["step"])

    def series(self, metric: str) -> Series:
        """The steps with a finite value."""
        if metric not in self._columns:
            found = [(int(row["step"]), x) for row in self.rows if (x := row.get(metric)) is not None and isfinite(x)]
            self._columns[metric] = Series([step for step, _ in found], [x for _, x in found])
        return self._columns[metric]

    def recent(self, metric: str, count: int, zeros: bool = True) -> list[float] | None:
        """The newest `count` finite values, without a walk through all of them; None while there are not so many, or
        when the step that is judged has none: nothing new is known. Without `zeros` a 0 is none either."""
        if not self.fresh(metric):
            return None
        found = (x for row in reversed(self.rows) if isfinite(x := row.get(metric, nan)) and (x or zeros))
        values = list(islice(found, count))
        return values if len(values) == count else None

    def fresh(self, metric: str) -> bool:
        """Whether the step that is judged has a value: without one nothing new is known."""
        return isfinite(self.now.get(metric, nan))


def going_back(saved: Sequence[Row], abandoned: Sequence[Row], onset: int, evaluates: bool = True) -> tuple[Row, ...]:
    """What is remembered after a rollback: what was `saved` with the checkpoint, and the first steps that the abandoned
    branch took from there, before the trouble. Nearly the same weights took them, so they say what the run is to be
    like; without them a rollback to an early step would leave nothing to compare with. No more than a few: a branch
    under remedies learns more slowly, and is no worse for it. The checkpoint's evaluation travels with the first step
    behind it: where a run `evaluates` that again, as ours do, it were one twice in a row.

        saved 1 2 .. 20, abandoned 1 2 .. 43 | onset 44    -->    1 2 .. 20 21 .. 28, then the new branch: 21 22 ..
    """
    restored = saved[-1]["step"] if saved else 0
    # behind the checkpoint's own row: what an earlier rollback left of other branches is in `saved` already
    own = max((n for n, row in enumerate(abandoned, start=1) if row["step"] == restored), default=0)
    healthy = [row for row in abandoned[own:] if restored < row["step"] < onset]
    kept = healthy[:NEARBY]
    if evaluates and kept and kept[0]["step"] == restored + 1:
        kept[0] = {name: x for name, x in kept[0].items() if not name.startswith("eval/")}
    return (*saved, *kept)
