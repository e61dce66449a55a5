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
from rlvr.objective.advantages import center, decouple, leave_one_out, mean_normalize, standardize, whiten

F64 = torch.float64
EVERY = [standardize, partial(standardize, ddof=0), center, leave_one_out]


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
        # 1 - 0; 0 - (1 + 0 + 0)/3
        (leave_one_out, [1.0, -1 / 3, -1 / 3, -1 / 3]),
        # (r - 1/4) / (1/4)
        (mean_normalize, [3.0, -1.0, -1.0, -1.0]),
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


@pytest.mark.parametrize("advantage", [standardize, center, mean_normalize])
def test_a_group_of_one_gives_no_advantage(advantage):
    assert (advantage(Rewards.of_one_group([1.0])) == 0).all()


def test_leave_one_out_refuses_a_group_of_one():
    with pytest.raises(ValueError, match="needs at least 2"):
        leave_one_out(Rewards.of_one_group([1.0]))


def test_leave_one_out_of_two_is_the_difference():
    assert_close(leave_one_out(Rewards.of_one_group([1.0, 0.0])), tensor([[1.0, -1.0]], dtype=F64))


def test_leave_one_out_leaves_out_those_without_a_reward_too():
    # of [1, -, 0, 1]: 1 - 1/2, none, 0 - 1, 1 - 1/2
    out = leave_one_out(masked([1.0, 9.0, 0.0, 1.0], [True, False, True, True]))
    assert_close(out, tensor([[0.5, 0.0, -1.0, 0.5]], dtype=F64))


@pytest.mark.parametrize(
    ("rewards", "golden"),
    [
        ([0.0, 0.0, 0.0], [0.0, 0.0, 0.0]),
        ([1.0, 1.0], [0.0, 0.0]),
        ([1.0, -1.0], [0.0, 0.0]),  # a mean of 0
        ([1.0, -3.0], [0.0, 0.0]),  # a negative mean would call the worse one better
        ([2.0, 4.0], [-1 / 3, 1 / 3]),
    ],
)
def test_mean_normalize_where_the_mean_is_special(rewards, golden):
    assert_close(mean_normalize(Rewards.of_one_group(rewards)), tensor([golden], dtype=F64))


def two_parts(parts: list[list[list[float]]], weights: list[float], valid: list[list[bool]] | None = None) -> Rewards:
    parts_NGK = tensor(parts, dtype=F64)
    valid_NG = torch.ones(parts_NGK.shape[:2], dtype=torch.bool) if valid is None else tensor(valid)
    return Rewards(parts_NGK, tensor(weights, dtype=F64), valid_NG)


# accuracy and format of four completions: right, well formed, neither, neither
APART = two_parts([[[1, 0], [0, 1], [0, 0], [0, 0]]], [1.0, 0.5])


def test_decoupled_parts_are_standardized_each_and_weighted_after():
    # each part is [1,0,0,0] in some order: 1.5 where it is 1, -0.5 elsewhere (eps 0)
    # 1 * 1.5 + 0.5 * -0.5 = 1.25; -0.5 + 0.5 * 1.5 = 0.25; -0.5 - 0.25 = -0.75
    assert_close(decouple(APART, eps=0.0), tensor([[1.25, 0.25, -0.75, -0.75]], dtype=F64))


def test_the_plain_sum_cannot_tell_what_decoupled_parts_can():
    rare = two_parts([[[1, 0], [0, 1], [0, 1], [0, 0]]], [1.0, 1.0])  # one is right; two are well formed
    plain, apart = standardize(rare)[0], decouple(rare, eps=0.0)[0]
    assert plain[0] == plain[1]
    # accuracy [1,0,0,0] gives 1.5, -0.5 x3; format [0,1,1,0] has mean 1/2, std 1/sqrt(3): -+ sqrt(3)/2
    half = math.sqrt(3) / 2
    assert_close(apart, tensor([1.5 - half, half - 0.5, half - 0.5, -0.5 - half], dtype=F64))


def test_a_scale_of_a_part_does_not_matter_to_decoupled_advantages_and_a_weight_does():
    scaled = two_parts((APART.parts_NGK * tensor([1.0, 100.0], dtype=F64)).tolist(), [1.0, 0.5])
    assert_close(decouple(scaled, eps=0.0), decouple(APART, eps=0.0))
    assert decouple(two_parts(APART.parts_NGK.tolist(), [1.0, 5.0]))[0].argmax() == 1


def test_a_part_that_agrees_adds_nothing_to_decoupled_advantages():
    agree = two_parts([[[1, 1], [0, 1], [0, 1], [0, 1]]], [1.0, 0.5])
    assert_close(decouple(agree), standardize(Rewards.of_one_group([1, 0, 0, 0]), eps=1e-4))


def test_decoupled_parts_leave_out_those_without_a_reward():
    with_gap = two_parts([[[1, 0], [math.nan, 7], [0, 1], [0, 0]]], [1.0, 0.5], [[True, False, True, True]])
    without = two_parts([[[1, 0], [0, 1], [0, 0]]], [1.0, 0.5])
    out = decouple(with_gap)
    assert_close(out[:, [0, 2, 3]], decouple(without))
    assert out[0, 1] == 0


def test_decoupled_groups_do_not_see_each_other():
    """Groups and parts share one axis inside: a mix-up would show as soon as there are two groups."""
    first, second = [[1, 0], [0, 4], [0, 2]], [[3, 9], [1, 9], [2, 0]]
    both = two_parts([first, second], [1.0, 0.5], [[True] * 3, [True, True, False]])
    alone = [decouple(two_parts([first], [1.0, 0.5])), decouple(two_parts([second[:2]], [1.0, 0.5]))]
    assert_close(decouple(both), torch.cat([alone[0], torch.cat([alone[1], torch.zeros(1, 1, dtype=F64)], dim=1)]))


@pytest.mark.parametrize("weights", [[1.0], [1.0, 0.0]])
def test_decoupling_one_part_is_refused(weights):
    with pytest.raises(ValueError, match="at least 2 parts with weight"):
        decouple(two_parts([[[1.0] * len(weights), [0.0] * len(weights)]], weights))


def test_whitening_divides_by_the_spread_of_the_step():
    # [2, -2], [1, -1]: mean 0, squares 4 + 4 + 1 + 1 = 10, sample std sqrt(10/3)
    advantages = tensor([[2.0, -2.0], [1.0, -1.0]], dtype=F64)
    out = whiten(advantages, torch.ones(2, 2, dtype=torch.bool), eps=0.0)
    assert_close(out, advantages / math.sqrt(10 / 3))
    assert_close(whiten(advantages, torch.ones(2, 2, dtype=torch.bool), ddof=0, eps=0.5), advantages / (2.5**0.5 + 0.5))


def test_whitening_keeps_away_from_zero_by_a_ten_thousandth():
    # +-1: std sqrt(2) for two values
    out = whiten(tensor([[1.0, -1.0]], dtype=F64), torch.ones(1, 2, dtype=torch.bool))
    assert_close(out[0, 0].item(), 1 / (math.sqrt(2) + 1e-4), atol=1e-9, rtol=0)


def test_whitening_ignores_who_has_no_reward_and_leaves_a_silent_group_at_exactly_zero():
    # valid: 3, 1 | 0, 0: mean 1, squares 4 + 0 + 1 + 1 = 6, sample std sqrt(2)
    advantages = tensor([[3.0, 1.0, 0.0], [0.0, 0.0, 0.0]], dtype=F64)
    out = whiten(advantages, tensor([[True, True, False], [True, True, False]]), eps=0.0)
    assert_close(out, tensor([[2 / 2**0.5, 0.0, 0.0], [0.0, 0.0, 0.0]], dtype=F64))
    assert (out[1] == 0).all() and out[0, 2] == 0


def test_whitening_moves_a_completion_of_advantage_zero_with_its_group():
    # 1, 0, 0.2: mean 0.4, squares 0.36 + 0.16 + 0.04 = 0.56, sample std sqrt(0.28)
    out = whiten(tensor([[1.0, 0.0, 0.2]], dtype=F64), torch.ones(1, 3, dtype=torch.bool), eps=0.0)
    assert_close(out, tensor([[0.6, -0.4, -0.2]], dtype=F64) / math.sqrt(0.28))


def test_whitening_a_step_without_signal_gives_zeros():
    assert (whiten(torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.bool)) == 0).all()


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
