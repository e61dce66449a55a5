"""The advantage of [1, 0, 0, 0] is a different vector in every framework; here it is these numbers."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import tensor
from torch.testing import assert_close

from rlvr.objective import Rewards
from rlvr.objective.advantages import center, standardize

F64 = torch.float64
EVERY = [standardize, partial(standardize, ddof=0), center]


def masked(rewards: list[float], valid: list[bool]) -> Rewards:
    return Rewards(tensor(rewards, dtype=F64)[None, :, None], torch.ones(1, dtype=F64), tensor([valid]))


@pytest.mark.parametrize(
    ("advantage", "golden"),
    [
        # mean 1/4; squares 9/16 + 3/16 = 3/4; sample std sqrt(3/4 / 3) = 1/2; 0.75 / 0.500001, -0.25 / 0.500001
        (standardize, [1.499997, -0.499999, -0.499999, -0.499999]),
        # population std sqrt(3/4 / 4) = sqrt(3)/4: sqrt(3), -1/sqrt(3)
        (partial(standardize, ddof=0, eps=0.0), [3**0.5, -(3**-0.5), -(3**-0.5), -(3**-0.5)]),
        # eps is added to the std: 0.75 / (0.5 + 0.5)
        (partial(standardize, eps=0.5), [0.75, -0.25, -0.25, -0.25]),
        (center, [0.75, -0.25, -0.25, -0.25]),
    ],
)
def test_one_success_in_a_group_of_four(advantage, golden):
    out = advantage(Rewards.of_one_group([1, 0, 0, 0]))
    assert_close(out, tensor([golden], dtype=F64), atol=1e-9, rtol=0)


def test_rewards_that_are_not_zero_or_one():
    # [2, 4, 9]: mean 5; squares 9 + 1 + 16 = 26; sample std sqrt(13) = 3.605551275
    out = standardize(Rewards.of_one_group([2, 4, 9]), eps=0.0)
    assert_close(out, tensor([[-3.0, -1.0, 4.0]], dtype=F64) / math.sqrt(13))


def test_a_group_without_a_verdict_for_one_completion_is_the_group_without_it():
    # the nan is no reward: [1, 0, 0] has mean 1/3, std sqrt((4/9 + 1/9 + 1/9) / 2) = sqrt(1/3)
    out = standardize(masked([1.0, math.nan, 0.0, 0.0], [True, False, True, True]), eps=0.0)
    third = 1 / math.sqrt(3)
    assert_close(out, tensor([[2 / 3, 0.0, -1 / 3, -1 / 3]], dtype=F64) / third)
    out = center(masked([1.0, 5.0, 0.0, 0.0], [True, False, True, True]))
    assert_close(out, tensor([[2 / 3, 0.0, -1 / 3, -1 / 3]], dtype=F64))


@pytest.mark.parametrize("advantage", EVERY)
@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, 1 / 3, -7.7])
@pytest.mark.parametrize("size", [2, 3, 7, 8])
def test_a_group_that_agrees_teaches_exactly_nothing(advantage, value, size):
    assert (advantage(Rewards.of_one_group([value] * size)) == 0).all()


@pytest.mark.parametrize("advantage", EVERY)
@pytest.mark.parametrize("valid", [[True, False, False], [False, False, False]])
def test_fewer_than_two_rewards_give_no_advantage(advantage, valid):
    assert (advantage(masked([1.0, 0.0, 0.0], valid)) == 0).all()


@pytest.mark.parametrize("advantage", EVERY)
def test_a_group_of_one_gives_no_advantage(advantage):
    assert (advantage(Rewards.of_one_group([1.0])) == 0).all()


@pytest.mark.parametrize("advantage", EVERY)
def test_groups_do_not_see_each_other(advantage):
    both = Rewards(
        tensor([[1.0, 0.0, 0.0], [50.0, 10.0, 0.0]], dtype=F64)[..., None],
        torch.ones(1, dtype=F64),
        tensor([[True, True, True], [True, True, False]]),
    )
    out = advantage(both)
    assert_close(out[:1], advantage(Rewards.of_one_group([1, 0, 0])))
    assert_close(out[1:, :2], advantage(Rewards.of_one_group([50, 10])))
    assert out[1, 2] == 0


def test_center_keeps_the_size_of_the_spread_and_standardize_does_not():
    small, large = Rewards.of_one_group([0.1, 0.0]), Rewards.of_one_group([10.0, 0.0])
    assert_close(center(large), 100 * center(small))
    assert_close(standardize(large), standardize(small), atol=1e-4, rtol=0)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=2, max_size=16), st.floats(-5, 5, width=32))
@pytest.mark.parametrize("advantage", EVERY)
def test_advantages_sum_to_zero_and_ignore_a_common_shift(advantage, rewards, shift):
    out = advantage(Rewards.of_one_group(rewards))
    assert abs(float(out.sum())) < 1e-9
    assert_close(advantage(Rewards.of_one_group([r + shift for r in rewards])), out, atol=1e-6, rtol=0)
