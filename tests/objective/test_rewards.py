"""Masked statistics: what is not valid leaves mean, standard deviation and count, whatever it holds."""

import math
from dataclasses import FrozenInstanceError

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import tensor
from torch.testing import assert_close

from rlvr.objective import Rewards
from rlvr.objective.rewards import masked_center, masked_mean, masked_std

F64 = torch.float64


def test_the_total_is_the_weighted_sum_of_the_parts():
    # (accuracy, format) = (1, 1), (0, 1) with weights 0.9, 0.1: 0.9 + 0.1 = 1, 0 + 0.1 = 0.1
    rewards = Rewards(
        tensor([[[1.0, 1.0], [0.0, 1.0]]], dtype=F64), tensor([0.9, 0.1], dtype=F64), tensor([[True, True]])
    )
    assert_close(rewards.total_NG, tensor([[1.0, 0.1]], dtype=F64))


def test_mean_and_std_are_those_of_the_valid_entries():
    # 1, 3 valid, 100 not: mean 2, squares 1 + 1; / 1 (ddof 1) -> sqrt 2, / 2 (ddof 0) -> 1
    x, valid = tensor([[1.0, 100.0, 3.0]]), tensor([[True, False, True]])
    assert_close(masked_mean(x, valid), tensor([[2.0]]))
    assert_close(masked_center(x, valid), tensor([[-1.0, 0.0, 1.0]]))
    assert_close(masked_std(x, valid, ddof=1), tensor([[math.sqrt(2)]]))
    assert_close(masked_std(x, valid, ddof=0), tensor([[1.0]]))


def test_what_is_not_valid_may_be_nan_or_infinite():
    x = tensor([[1.0, math.nan, 3.0, math.inf]])
    valid = tensor([[True, False, True, False]])
    assert_close(masked_mean(x, valid), tensor([[2.0]]))
    assert_close(masked_center(x, valid), tensor([[-1.0, 0.0, 1.0, 0.0]]))
    rewards = Rewards(x[..., None].double(), torch.ones(1, dtype=F64), valid)
    assert_close(rewards.total_NG, tensor([[1.0, 0.0, 3.0, 0.0]], dtype=F64))


def test_rows_do_not_see_each_other():
    x = tensor([[0.0, 2.0], [10.0, 30.0]])
    valid = torch.ones(2, 2, dtype=torch.bool)
    assert_close(masked_center(x, valid), tensor([[-1.0, 1.0], [-10.0, 10.0]]))


@pytest.mark.parametrize("valid", [[False, False, False], [True, False, False]])
def test_fewer_than_two_rewards_are_no_group(valid):
    """One reward has no baseline: its completion is not trained on, rather than trained on with advantage r or 0."""
    rewards = Rewards(tensor([[[1.0], [0.0], [0.0]]], dtype=F64), torch.ones(1, dtype=F64), tensor([valid]))
    assert not rewards.valid_NG.any()
    assert_close(rewards.total_NG, torch.zeros(1, 3, dtype=F64))


def test_two_rewards_are_a_group():
    rewards = Rewards(
        tensor([[[1.0], [0.0], [9.0]]], dtype=F64), torch.ones(1, dtype=F64), tensor([[True, True, False]])
    )
    assert rewards.valid_NG.tolist() == [[True, True, False]]


@settings(max_examples=50, deadline=None, derandomize=True)
@given(value=st.floats(-1e6, 1e6), size=st.integers(2, 33))
def test_an_all_equal_group_is_exactly_zero(value, size):
    """0.1 + 0.1 + 0.1 over 3 is not 0.1 in floats; a division by a std of 1e-17 would blow that up."""
    x, valid = torch.full((1, size), value, dtype=F64), torch.ones(1, size, dtype=torch.bool)
    assert (masked_center(x, valid) == 0).all()
    assert (masked_std(x, valid, ddof=1) == 0).all()


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    row=st.lists(st.tuples(st.integers(0, 10), st.integers(0, 20)), min_size=1, max_size=12),
    groups=st.integers(1, 4),
    size=st.integers(2, 17),
)
def test_the_same_parts_have_the_same_total_wherever_they_stand(row, groups, size):
    """A matrix product takes its rows several at a time, and rounds the last ones in another order."""
    parts, weights = (tensor(column, dtype=F64) / 10 for column in zip(*row, strict=True))
    valid = torch.ones(groups, size, dtype=torch.bool)
    rewards = Rewards(parts.expand(groups, size, -1).contiguous(), weights, valid)
    assert len(rewards.total_NG.unique()) == 1
    assert (masked_center(rewards.total_NG, valid) == 0).all()


def test_five_parts_that_agree_are_an_all_equal_group():
    parts = tensor([0.4, 0.5, 0.3, 1.0, 0.5], dtype=F64).expand(1, 5, 5).contiguous()
    weights = tensor([1.0, 0.1, 0.5, 0.2, 0.3], dtype=F64)
    assert len(Rewards(parts, weights, torch.ones(1, 5, dtype=torch.bool)).total_NG.unique()) == 1


@pytest.mark.parametrize(
    ("low", "high", "equal"),
    [
        (0.3, 0.1 + 0.2, True),
        (0.0, 1e-9, True),
        (0.0, 2e-9, False),
        (-1e6, -1e6 + 1e-4, True),  # a share of what is large
        (1e6, 1e6 + 1e-4, True),
        (1e6, 1e6 + 1e-2, False),
        (-1e6, -1e6 + 1e-2, False),
    ],
)
def test_what_rounding_alone_keeps_apart_is_equal(low, high, equal):
    x, valid = tensor([[low, high]], dtype=F64), torch.ones(1, 2, dtype=torch.bool)
    assert (masked_center(x, valid) == 0).all().item() is equal
    assert (masked_std(x, valid, ddof=1) == 0).item() is equal


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_a_reward_that_is_no_number_is_not_taken_for_an_equal_one(bad):
    x, valid = tensor([[1.0, bad, 1.0]], dtype=F64), torch.ones(1, 3, dtype=torch.bool)
    assert not masked_center(x, valid).isfinite().all()


@pytest.mark.parametrize(
    ("parts", "weights", "valid"), [((1, 2, 2), (1,), (1, 2)), ((1, 2, 1), (1,), (1, 3)), ((2, 2, 1), (1,), (1, 2))]
)
def test_shapes_that_do_not_fit_together_are_refused(parts, weights, valid):
    with pytest.raises(ValueError, match="do not fit together"):
        Rewards(torch.zeros(parts), torch.zeros(weights), torch.ones(valid, dtype=torch.bool))


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    rows=st.lists(st.lists(st.floats(-10, 10), min_size=4, max_size=4), min_size=1, max_size=4),
    drop=st.lists(st.integers(0, 3), max_size=2),
)
def test_masking_an_entry_is_the_same_as_leaving_it_out(rows, drop):
    x = tensor(rows, dtype=F64)
    kept = [i for i in range(4) if i not in drop]
    valid = torch.zeros_like(x, dtype=torch.bool)
    valid[:, kept] = True
    all_valid = torch.ones(len(rows), len(kept), dtype=torch.bool)
    assert_close(masked_center(x, valid)[:, kept], masked_center(x[:, kept], all_valid))
    assert_close(masked_std(x, valid, ddof=1), masked_std(x[:, kept], all_valid, ddof=1))
    assert_close(masked_std(x, valid, ddof=1)[:, 0], x[:, kept].std(dim=1), atol=1e-12, rtol=1e-9)


def test_rewards_of_one_group_have_one_part_of_weight_one():
    made = Rewards.of_one_group([1.0, 0.1, 0.0])
    assert_close(made.parts_NGK, tensor([[[1.0], [0.1], [0.0]]], dtype=F64))
    assert_close(made.weights_K, tensor([1.0], dtype=F64))
    assert made.valid_NG.tolist() == [[True, True, True]]


def test_one_more_part_has_weight_one_and_the_type_of_the_others():
    # 2 * 0.5 + 1 * 10 = 11; 4 * 0.5 + 20 = 22; the third has no reward, whatever it is given
    parts, weights = tensor([[[2.0], [4.0], [6.0]]], dtype=F64), tensor([0.5], dtype=F64)
    more = Rewards(parts, weights, tensor([[True, True, False]])).plus(tensor([[10.0, 20.0, 30.0]]))
    assert_close(more.parts_NGK, tensor([[[2.0, 10.0], [4.0, 20.0], [0.0, 0.0]]], dtype=F64))
    assert_close(more.weights_K, tensor([0.5, 1.0], dtype=F64))
    assert_close(more.total_NG, tensor([[11.0, 22.0, 0.0]], dtype=F64))


def test_every_group_is_judged_by_its_own_rewards():
    # of two groups of three, the second has a single reward
    valid = tensor([[True, True, True], [True, False, False]])
    rewards = Rewards(torch.ones(2, 3, 1, dtype=F64), torch.ones(1, dtype=F64), valid)
    assert rewards.valid_NG.tolist() == [[True, True, True], [False, False, False]]
    assert_close(rewards.total_NG, tensor([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]], dtype=F64))


def test_statistics_are_one_number_a_row():
    # rows 1, 5, - | 7, -, - | -, -, -: means 3, 7, 0; spreads around them 4 + 4 | 0 | none
    x = tensor([[1.0, 5.0, 9.0], [7.0, 9.0, 9.0], [9.0, 9.0, 9.0]])
    valid = tensor([[True, True, False], [True, False, False], [False, False, False]])
    assert_close(masked_mean(x, valid), tensor([[3.0], [7.0], [0.0]]))
    assert_close(masked_center(x, valid), tensor([[-2.0, 2.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]))
    assert_close(masked_std(x, valid, ddof=1), tensor([[math.sqrt(8)], [0.0], [0.0]]))
    assert_close(masked_std(x, valid, ddof=0), tensor([[2.0], [0.0], [0.0]]))


def test_a_row_whose_valid_entries_agree_is_exactly_zero_whatever_the_others_are():
    # the mean of three 0.1 is 0.10000000000000002
    x, valid = tensor([[0.1, 0.1, 0.1, -7.0, 7.0]], dtype=F64), tensor([[True, True, True, False, False]])
    assert (masked_center(x, valid) == 0).all()


def test_rewards_are_frozen_and_slotted():
    rewards = Rewards.of_one_group([1.0, 0.0])
    with pytest.raises(FrozenInstanceError):
        rewards.weights_K = torch.zeros(1)
    assert not hasattr(rewards, "__dict__")
