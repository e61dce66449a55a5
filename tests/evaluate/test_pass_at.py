"""pass@k against all draws of k completions."""

from itertools import combinations
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr.evaluate.pass_at import POWERS, pass_at

judged = st.lists(st.sampled_from([True, False, None]), min_size=6, max_size=6)


@given(st.lists(judged, min_size=1, max_size=4))
def test_it_is_the_mean_over_all_draws_of_k(problems):
    said = pass_at([one for problem in problems for one in problem], 6)
    for k in POWERS:
        known = [[one for one in problem if one is not None] for problem in problems]
        shares = [mean(any(draw) for draw in combinations(problem, k)) for problem in known if len(problem) >= k]
        assert said.get(f"eval/pass_at_{k}") == (pytest.approx(mean(shares)) if shares else None)


@given(judged)
def test_more_tries_never_solve_less(problem):
    said = list(pass_at(problem, 6).values())
    assert said == sorted(said) and all(0 <= value <= 1 for value in said)


def test_one_sample_a_problem_has_no_pairs():
    assert pass_at([True, False], 1) == {} == pass_at([], 4)
