"""How sure an accuracy is, and how two models compare on the same problems."""

import math
import random
from statistics import stdev

import pytest

from rlvr.evaluate.problems import Solved, accuracy, difference


@pytest.mark.parametrize(("right", "problems"), [(1, 2), (3, 10), (7, 8)])
def test_of_one_completion_a_problem_the_error_is_the_binomial_one(right, problems):
    share, error = accuracy([Solved(int(n < right), 1) for n in range(problems)])
    assert share == right / problems
    assert error == pytest.approx(math.sqrt(share * (1 - share) / (problems - 1)))


def test_completions_that_agree_add_no_certainty_and_those_that_do_not_do():
    alike = accuracy([Solved(8, 8), Solved(0, 8)] * 10)
    mixed = accuracy([Solved(5, 8), Solved(3, 8)] * 10)
    alone = accuracy([Solved(1, 1), Solved(0, 1)] * 10)
    assert alike == pytest.approx(alone)
    assert mixed.value == 0.5 and mixed.error == pytest.approx(alone.error / 4)


@pytest.mark.parametrize("problems", [[Solved(1, 1)], [Solved(1, 1)] * 20, [Solved(0, 4)] * 3, [Solved(1, 3)] * 7])
def test_problems_that_all_agree_do_not_say_how_sure_that_is(problems):
    assert accuracy(problems).error is None


def test_the_error_is_what_the_accuracy_scatters_by():
    rng = random.Random(4)

    def evaluated() -> list[Solved]:
        levels = [rng.choice([0.1, 0.5, 0.9]) for _ in range(50)]  # other problems each time, some harder
        return [Solved(sum(rng.random() < level for _ in range(4)), 4) for level in levels]

    found = [accuracy(evaluated()) for _ in range(400)]
    scatter = stdev(one.value for one in found)
    assert sum(one.error for one in found) / len(found) == pytest.approx(scatter, rel=0.15)


def test_what_was_not_judged_counts_for_nothing():
    assert accuracy([Solved(0, 0)]) is None and accuracy([]) is None
    assert accuracy([Solved(1, 2), Solved(0, 0), Solved(0, 1)]) == accuracy([Solved(1, 2), Solved(0, 1)])
    assert accuracy([Solved(1, 1), Solved(0, 3)]).value == 0.25, "each completion counts once"


def test_two_models_are_compared_problem_by_problem():
    ours = {"a": Solved(4, 4), "b": Solved(2, 4), "c": Solved(0, 0), "d": Solved(1, 1)}
    theirs = {"a": Solved(2, 4), "b": Solved(0, 2), "c": Solved(1, 1), "e": Solved(1, 1)}
    (share, error), problems = difference(ours, theirs)
    assert (share, error, problems) == (0.5, None, 2), "half a problem more on each: nothing to tell noise by"
    (less, same), _ = difference(theirs, ours)
    assert (less, same) == (-0.5, None)
    mixed, _ = difference(ours, {"a": Solved(0, 4), "b": Solved(2, 4)})
    assert mixed.value == 0.5 and mixed.error == pytest.approx(math.sqrt(0.5 / 2))


def test_one_problem_in_common_says_nothing():
    assert difference({"a": Solved(1, 1)}, {"a": Solved(0, 1), "b": Solved(1, 1)}) is None
