"""Weights for the mismatch of engine and trainer, by hand."""

import torch
from torch import tensor
from torch.testing import assert_close

from rlvr.objective.corrections import token_mask, token_truncate

# pi_old / pi_rollout of six tokens
RATIOS = tensor([[0.25, 0.5, 1.0, 2.0, 5.0, 6.0]], dtype=torch.float64)
ONES = torch.ones_like(RATIOS)


def test_truncation_caps_from_above_only():
    assert_close(token_truncate(RATIOS.log(), ONES), tensor([[0.25, 0.5, 1.0, 2.0, 2.0, 2.0]], dtype=torch.float64))
    capped = token_truncate(RATIOS.log(), ONES, cap=1.0)
    assert_close(capped, tensor([[0.25, 0.5, 1.0, 1.0, 1.0, 1.0]], dtype=torch.float64))


def test_masking_drops_what_lies_outside_the_bounds():
    out = token_mask((RATIOS * (1 + 1e-9)).log(), ONES, low=0.5, high=5.5)
    assert_close(out, tensor([[0.0, 0.5, 1.0, 2.0, 5.0, 0.0]], dtype=torch.float64))
    inside = token_mask(tensor([[0.51, 4.99]]).log(), torch.ones(1, 2))
    outside = token_mask(tensor([[0.49, 5.01]]).log(), torch.ones(1, 2))
    assert_close(inside, tensor([[0.51, 4.99]]))
    assert_close(outside, torch.zeros(1, 2))


def test_equal_kernels_change_nothing():
    zeros = torch.zeros(2, 3)
    assert torch.equal(token_truncate(zeros, torch.ones(2, 3)), torch.ones(2, 3))
    assert torch.equal(token_mask(zeros, torch.ones(2, 3)), torch.ones(2, 3))
