"""maj@k: which answer wins, and what it is worth."""

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr.evaluate.majority import majority
from tests import builders


def said(answer: str | None, reward: float | None = 0.0):
    return replace(builders.verdict(reward, {} if reward is None else {"math": reward}), answer=answer)


@pytest.mark.parametrize(
    ("verdicts", "share"),
    [
        ([said("5", 1.0), said("5", 1.0), said("6"), said("7")], 1.0),
        ([said("5", 1.0), said("6"), said("6"), said("7")], 0.0),
        ([said("5", 1.0), said("5", 1.0), said("6"), said("6")], 0.5),
        ([said("5", 1.0), said("6"), said("7")], 1 / 3),
        ([said("5", 1.0), said(" 5 ", 1.0), said("6"), said("7")], 1.0),  # blanks are nothing
        ([said("1/2", 1.0), said("0.5", 1.0), said("6"), said("6")], 0.0),  # nobody who votes knows that they are one
        ([said("5", 1.0), said(None), said(None), said(None)], 1.0),  # no answer is no vote ...
        ([said("5", 1.0), said("6", None), said("6", None)], 1.0),  # ... nor is one that could not be judged
        ([said(None), said(None), said("6", None)], 0.0),
        ([said("yes", 1.0), said("yes", 0.0), said("no")], 0.5),  # a judge that cannot decide
    ],
)
def test_the_most_frequent_answer_wins(verdicts, share):
    assert majority([verdicts], "math") == pytest.approx(share)


def test_it_is_the_mean_over_problems_and_nothing_where_nobody_says_answers():
    right, wrong = [said("5", 1.0)] * 3, [said("6")] * 3
    assert majority([right, wrong, right, right], "math") == 0.75
    assert majority([[said(None, 1.0)] * 4], "math") is None
    assert majority([[said(None, 1.0)] * 4, right], "math") == 0.5
    assert majority([[said("6", None)] * 4, right], "math") == 1.0, "the first could not be judged"
    assert majority([[said("6", None)] * 4], "math") is None


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_the_order_of_completions_is_nothing(letters, rng: random.Random):
    verdicts = [said(letter, float(letter == "a")) for letter in letters]
    shuffled = rng.sample(verdicts, len(verdicts))
    assert majority([shuffled], "math") == pytest.approx(majority([verdicts], "math"))


@pytest.mark.parametrize("right", [True, False])
def test_of_one_completion_it_is_the_accuracy(right):
    assert majority([[said("5", float(right))]], "math") == float(right)
