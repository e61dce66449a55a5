"""Weights for the mismatch of engine and trainer, by hand."""

import math
from dataclasses import FrozenInstanceError
from functools import partial

import pytest
import torch
from torch import Tensor, tensor
from torch.testing import assert_close

from rlvr.objective.corrections import (
    Mismatch,
    geometric_mask,
    off_policy_mask,
    product,
    sequence_mask,
    sequence_truncate,
    token_agrees,
    token_mask,
    token_truncate,
)

EVERY = [token_truncate, token_mask, token_agrees, sequence_truncate, sequence_mask, geometric_mask, off_policy_mask]


def mismatch(weights_BT: list[list[float]], mask_BT: list[list[float]] | None = None, **more: Tensor) -> Mismatch:
    """`weights_BT` is pi_old / pi_rollout; the policy has not moved and A = 1 unless `more` says otherwise."""
    delta_BT = tensor(weights_BT, dtype=torch.float64).log()
    mask = torch.ones_like(delta_BT) if mask_BT is None else tensor(mask_BT, dtype=torch.float64)
    delta_BT = torch.where(mask > 0, delta_BT, 0.0)
    ones_B1 = torch.ones(len(delta_BT), 1, dtype=torch.float64)
    return Mismatch(delta_BT, more.get("drift_BT", delta_BT), mask, more.get("advantages_B1", ones_B1))


def f64(*rows: list[float]) -> Tensor:
    return tensor(rows, dtype=torch.float64)


SIX = mismatch([[0.25, 0.5, 1.0, 2.0, 5.0, 6.0]])


def test_truncation_caps_from_above_only():
    assert_close(token_truncate(SIX), f64([0.25, 0.5, 1.0, 2.0, 2.0, 2.0]))
    assert_close(token_truncate(SIX, cap=1.0), f64([0.25, 0.5, 1.0, 1.0, 1.0, 1.0]))


def test_masking_drops_what_lies_outside_the_bounds():
    near = mismatch([[0.25, 0.5000001, 1.0, 2.0, 5.0, 6.0]])
    assert_close(token_mask(near, low=0.5, high=5.5), f64([0.0, 0.5000001, 1.0, 2.0, 5.0, 0.0]))
    assert_close(token_agrees(near, low=0.5, high=5.5), f64([0.0, 1.0, 1.0, 1.0, 1.0, 0.0]))
    assert_close(token_mask(mismatch([[0.51, 4.99], [0.49, 5.01]])), f64([0.51, 4.99], [0.0, 0.0]))
    assert_close(token_agrees(mismatch([[0.51, 4.99], [0.49, 5.01]])), f64([1.0, 1.0], [0.0, 0.0]))


# weights of whole completions: 1.5 * 1.2 = 1.8; 3 * 2 = 6; 0.5 * 0.8 = 0.4; 1.5 alone, the other token is masked
FOUR = mismatch([[1.5, 1.2], [3.0, 2.0], [0.5, 0.8], [1.5, 9.0]], [[1, 1], [1, 1], [1, 1], [1, 0]])


def test_a_completions_weight_is_the_product_of_its_tokens():
    assert_close(sequence_truncate(FOUR), f64([1.8, 1.8], [2.0, 2.0], [0.4, 0.4], [1.5, 1.5]))
    assert_close(sequence_truncate(FOUR, cap=10.0)[1], f64([6.0, 6.0])[0])


def test_a_completion_is_masked_whole():
    assert_close(sequence_mask(FOUR), f64([1.8, 1.8], [0.0, 0.0], [0.0, 0.0], [1.5, 1.5]))
    assert_close(sequence_mask(FOUR, low=0.3, high=7.0)[1:3], f64([6.0, 6.0], [0.4, 0.4]))


def test_the_geometric_mean_decides_and_does_not_weigh():
    # sqrt(1.02 * 0.99) = 1.0049; sqrt(1.03 * 1.0) = 1.0149; 0.995 alone; sqrt(0.97) = 0.985
    made = mismatch([[1.02, 0.99], [1.03, 1.0], [0.995, 7.0], [0.97, 1.0]], [[1, 1], [1, 1], [1, 0], [1, 1]])
    assert_close(geometric_mask(made), f64([1.0, 1.0], [0.0, 0.0], [1.0, 1.0], [0.0, 0.0]))
    assert_close(geometric_mask(made, low=0.98, high=1.02), torch.ones(4, 2, dtype=torch.float64))


def test_only_bad_completions_that_the_policy_left_behind_are_masked():
    # mean log pi_rollout - log pi: 0.6 | 0.6 with A > 0 | 0.4 | 0.9 over its one token | -0.6
    drift = f64([-0.6, -0.6], [-0.6, -0.6], [-0.8, 0.0], [-0.9, 0.0], [0.6, 0.6])
    masks = [[1, 1], [1, 1], [1, 1], [1, 0], [1, 1]]
    signs = f64([-1.0], [1.0], [-1.0], [-1.0], [-1.0])
    made = mismatch([[1.0, 1.0]] * 5, masks, drift_BT=drift, advantages_B1=signs)
    assert_close(off_policy_mask(made), f64([0.0, 0.0], [1.0, 1.0], [1.0, 1.0], [0.0, 0.0], [1.0, 1.0]))
    assert_close(off_policy_mask(made, threshold=1.0), torch.ones(5, 2, dtype=torch.float64))


def test_a_weight_just_below_one_is_within_the_default_bounds():
    # 0.9 * 0.7 = 0.63
    assert_close(sequence_mask(mismatch([[0.9, 0.7]])), f64([0.63, 0.63]))


@pytest.mark.parametrize("correction", [token_mask, token_agrees, sequence_mask, geometric_mask])
def test_the_bounds_themselves_are_within(correction):
    assert_close(correction(mismatch([[1.0]]), low=1.0, high=1.0), f64([1.0]))
    assert_close(correction(mismatch([[1.0]]), low=1.0, high=2.0), f64([1.0]))
    assert_close(correction(mismatch([[1.0]]), low=0.5, high=1.0), f64([1.0]))


def test_the_geometric_mean_of_one_token_is_that_token():
    # sqrt(0.985) would be within
    assert_close(geometric_mask(mismatch([[0.985, 1.0]], [[1, 0]])), f64([0.0, 0.0]))


def test_exactly_at_the_threshold_and_exactly_without_advantage_nothing_is_masked():
    # mean log pi_rollout - log pi: 0.5 | 0.9 with A = 0 | 0.9 with A = 0.5 | 0.9 with a small A < 0
    drift, signs = f64([-0.5], [-0.9], [-0.9], [-0.9]), f64([-1.0], [0.0], [0.5], [-0.01])
    made = mismatch([[1.0]] * 4, drift_BT=drift, advantages_B1=signs)
    assert_close(off_policy_mask(made), f64([1.0], [1.0], [1.0], [0.0]))


def test_the_log_weight_of_a_completion_is_bounded_on_both_sides():
    # 3 * log 2 = 2.08; 100 tokens of +-19 would be +-1900
    assert_close(mismatch([[2.0, 2.0, 2.0]]).sum_B1, f64([3 * math.log(2.0)]))
    for log_weight, bound in ((19.0, 20.0), (-19.0, -20.0)):
        assert mismatch([[math.exp(log_weight)] * 100]).sum_B1.tolist() == [[bound]]


def test_a_mismatch_is_frozen_and_slotted():
    with pytest.raises(FrozenInstanceError):
        SIX.mask_BT = SIX.delta_BT
    assert not hasattr(SIX, "__dict__")


def test_several_corrections_multiply():
    both = partial(product, corrections=[token_truncate, sequence_mask])
    assert_close(both(FOUR), token_truncate(FOUR) * sequence_mask(FOUR))


@pytest.mark.parametrize("correction", EVERY)
def test_equal_kernels_change_nothing(correction):
    same = mismatch([[1.0, 1.0, 1.0]] * 2, [[1, 1, 1], [0, 0, 0]], advantages_B1=f64([-1.0], [-1.0]))
    assert torch.equal(correction(same), torch.ones(2, 3, dtype=torch.float64))


@pytest.mark.parametrize("correction", EVERY)
def test_a_completion_of_many_tokens_stays_finite(correction):
    for weight in (math.exp(19.0), math.exp(-19.0)):
        out = correction(mismatch([[weight] * 100]))
        assert out.isfinite().all() and out.shape == (1, 100)
