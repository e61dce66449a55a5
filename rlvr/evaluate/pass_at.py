"""Of how many problems one of k completions is right (pass@k; Chen et al., arXiv:2107.03374). Knows no verdict."""

from collections.abc import Sequence
from math import comb

POWERS = (2, 4, 8, 16, 32, 64)  # k; for one completion it is the accuracy


def pass_at(right: Sequence[bool | None], samples: int) -> dict[str, float]:
    """The metrics of completions whose every `samples` in turn are of one problem; None: could not be judged.

    Each problem by 1 - C(n-c, k) / C(n, k), of its n judged completions and c right ones: what all draws of k of them
    would give, without bias. A problem with fewer than k is left out, and so is a k that no problem has.

    pass_at([True, False, False, False], 4) == {"eval/pass_at_2": 0.5, "eval/pass_at_4": 1.0}
    """
    problems = [
        [one for one in right[begin : begin + samples] if one is not None] for begin in range(0, len(right), samples)
    ]
    result: dict[str, float] = {}
    for k in POWERS:
        if enough := [problem for problem in problems if len(problem) >= k]:
            missed = [comb(problem.count(False), k) / comb(len(problem), k) for problem in enough]
            result[f"eval/pass_at_{k}"] = 1 - sum(missed) / len(missed)
    return result
