"""Which problems a policy solved how often, and how sure an accuracy is. Pure: numbers in, numbers out.

Standard errors are those of other problems of the same kind: completions of one problem are not independent (Miller,
arXiv:2411.00640).
"""

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import NamedTuple


class Solved(NamedTuple):
    """Of one problem."""

    right: int
    judged: int  # completions; others could not be


class Share(NamedTuple):
    """A share, or the difference of two, with its standard error; None where all problems agree, or there is one: that
    says nothing of others."""

    value: float
    error: float | None


def accuracy(problems: Sequence[Solved]) -> Share | None:
    """Of all judged completions, clustered by problem; None where there are none.

    accuracy([Solved(1, 1), Solved(0, 1)]) == Share(0.5, 0.5)     greedy: sqrt(p (1 - p) / (n - 1))
    """
    judged = [problem for problem in problems if problem.judged]
    if not judged:
        return None
    total = sum(problem.judged for problem in judged)
    mean = sum(problem.right for problem in judged) / total
    off = [problem.right - mean * problem.judged for problem in judged]
    return Share(mean, _error(off, total / len(judged)))


def difference(ours: Mapping[str, Solved], theirs: Mapping[str, Solved]) -> tuple[Share, int] | None:
    """How much more often we solve the problems that both have, and of how many that is: paired, so that what makes a
    problem hard is no noise. None where there are fewer than two."""
    both = [name for name in ours if name in theirs and ours[name].judged and theirs[name].judged]
    if len(both) < 2:
        return None
    more = [ours[name].right / ours[name].judged - theirs[name].right / theirs[name].judged for name in both]
    mean = sum(more) / len(more)
    return Share(mean, _error([one - mean for one in more], 1.0)), len(both)


def _error(off: Sequence[float], each: float) -> float | None:
    """Of a mean whose summands are `off` it by so much, for `each` on average."""
    n = len(off)
    squares = sum(one**2 for one in off)
    if n < 2 or squares < 1e-12:
        return None
    return sqrt(squares / (n * (n - 1))) / each
