"""How a level is told from noise, and when it changed. Plain numbers in, plain numbers out; knows no metric by name."""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from math import sqrt
from statistics import fmean, median
from typing import NamedTuple

BLOCK = 16  # steps of the shortest stretch that counts as the run's own level
STRETCHES = (16, 32, 64)  # a level is proved by the stretch that proves most


class Change(NamedTuple):
    """The level was `before` up to `values[end - 1]`, and is `now`."""

    before: float
    now: float
    end: int


def noise(values: Sequence[float]) -> float:
    """Standard deviation of one step about its level, in the noisiest stretch: a run at 0 has no noise yet, and one
    half way up has most. From the differences of neighbours: a trend, or a jump from one level to another, is not
    noise (von Neumann 1941)."""
    squares = [(b - a) ** 2 for a, b in pairwise(values)]
    stretch = STRETCHES[-1]
    starts = range(max(len(squares) - stretch, 0) % (stretch // 2), max(len(squares) - stretch, 0) + 1, stretch // 2)
    return sqrt(max(fmean(squares[start : start + stretch]) for start in starts) / 2)


def quietest(values: Sequence[float]) -> tuple[float, int]:
    """The lowest median of `BLOCK` values in a row, and the index behind them. At least one block is needed."""
    ends = range(len(values), BLOCK - 1, -BLOCK)
    return min((median(values[end - BLOCK : end]), end) for end in ends)


class Proved(NamedTuple):
    """A level that the run has had: surely above `bound`, shown by a stretch with this mean, `values[end - 1]` last."""

    bound: float
    mean: float
    end: int


def best(values: Sequence[float], spread: float) -> Proved:
    """The highest level that noise does not explain: `spread` / sqrt(n) is what it may add to a mean of n values.
    At least `BLOCK` values are needed."""
    sums = list(accumulate(values, initial=0.0))
    proved = []
    for n in STRETCHES:
        if n <= len(values):
            totals = [after - before for before, after in zip(sums, sums[n:], strict=False)]
            top = max(totals)
            proved.append(Proved(top / n - spread / sqrt(n), top / n, totals.index(top) + n))
    return max(proved)


def onset(values: Sequence[float], change: Change) -> int:
    """The index of the first value that belongs to the new level.

    Where the sum of what is missing to a quarter of the way turns for good: of all places where the level may have
    changed it is the likeliest (Page 1954), and a quarter rather than a half dates a slow change by its beginning.
    """
    quarter = change.before + (change.now - change.before) / 4
    begin = max(change.end - BLOCK, 0)  # the stretch that shows the old level may hold the first of the new one
    sign = 1.0 if change.now < change.before else -1.0
    sums = list(accumulate((sign * (value - quarter) for value in values[begin:]), initial=0.0))
    turn = max(range(len(sums)), key=lambda i: (sums[i], i))
    return min(begin + turn, len(values) - 1)
