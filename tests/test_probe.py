"""What is rounding, and what are other weights?"""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr.probe import apart, tolerated

LOGPROBS = [-0.5 * n for n in range(32)]
# nats; made up, with the largest and the root mean square that a healthy run in bfloat16 came to in 50 steps
ROUNDED = [0.37, 0.15, 0.1, *[0.05] * 10, *[0.02] * 19]


def test_what_bfloat16_rounds_is_no_other_policy_and_what_is_one_shows():
    limit = tolerated(None, exact=False)
    rounded = [x + d * (-1) ** n for n, (x, d) in enumerate(zip(LOGPROBS, ROUNDED, strict=True))]
    assert apart(LOGPROBS, rounded) < limit / 2
    one_row = [x + 2.0 * (n == 7) for n, x in enumerate(LOGPROBS)]
    everywhere = [x + 0.26 for x in LOGPROBS]
    assert all(apart(LOGPROBS, other) > limit for other in (one_row, everywhere))


@given(st.lists(st.floats(-30, 0), min_size=1, max_size=40), st.floats(0, 1), st.integers(0, 39))
def test_in_float32_one_token_may_be_off_by_little_more_than_all(logprobs, off, at):
    moved = [x + off * (n == at % len(logprobs)) for n, x in enumerate(logprobs)]
    assert apart(logprobs, moved) == pytest.approx(off / math.sqrt(len(logprobs)), abs=1e-9)
    assert apart(logprobs, [x - off for x in logprobs]) == pytest.approx(off, abs=1e-9)


@pytest.mark.parametrize("nan_in", [0, 1])
def test_what_is_no_number_is_as_far_as_can_be(nan_in):
    both = [[-1.0, -2.0], [-1.0, -2.0]]
    both[nan_in][1] = math.nan
    assert apart(*both) == math.inf > tolerated(None, exact=False)


def test_the_knob_decides_where_it_is_set():
    assert tolerated(0.1, exact=True) == tolerated(0.1, exact=False) == 0.1
    assert tolerated(None, exact=True) == 3e-4
