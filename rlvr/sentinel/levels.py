"""How a level is told from noise, and when it changed. Plain numbers in, plain numbers out; knows no metric by name."""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from math import log, sqrt
from statistics import fmean, median
from typing import NamedTuple

from rlvr.sentinel_config import BLOCK, STRETCHES


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
    """The index of the first value that is no longer as before.

    Two stories are fitted to the values from the old level on, by least squares: it jumped, or it went off in a
    straight line. The line is believed unless the jump leaves less than half as much unexplained: a jump that is told
    as a line is dated a few steps early, a slow change that is told as a jump is dated when half of it has happened.
    """
    begin = max(change.end - BLOCK, 0)  # the stretch that shows the old level may hold the first of the new one
    seen = values[begin:]
    n, mean = len(seen), fmean(seen)
    sign = 1.0 if change.now > change.before else -1.0
    jump = line = Story(0.0, 1)
    beyond = along = 0.0  # what the last m values have above the mean, and that times 1, 2, ... m
    for m, value in enumerate(reversed(seen[1:]), start=1):
        beyond += sign * (value - mean)
        along += beyond
        triangle, pyramid = m * (m + 1) / 2, m * (m + 1) * (2 * m + 1) / 6  # the sum of 1 ... m, and of their squares
        jump = max(jump, Story(explained(beyond, m, m, n), m))
        line = max(line, Story(explained(along, triangle, pyramid, n), m))
    scatter = sum((value - mean) ** 2 for value in seen)
    plainly = scatter - jump.explained < (scatter - line.explained) / 2
    return begin + n - (jump if plainly else line).values


class Story(NamedTuple):
    explained: float  # squares
    values: int  # the last so many are of the new level, or on the way to it


def explained(product: float, total: float, squares: float, n: int) -> float:
    """Squares of n centred values that a regressor explains: its product with them, its sum, that of its squares."""
    return max(product, 0.0) ** 2 / (squares - total**2 / n)


def logarithms(values: Sequence[float], change: Change) -> list[float]:
    """For what changes by factors. Quieter than the quieter of the two levels is not told apart from it, for a value
    may be 0."""
    low, high = sorted((abs(change.before), abs(change.now)))
    return [log(max(abs(value), low, high / 1000)) for value in values]
