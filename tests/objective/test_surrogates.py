"""Clipping against numbers worked out by hand: where it caps, where it does not, and where the gradient ends."""

import math
from functools import partial

import pytest
import torch
from torch import tensor
from torch.testing import assert_close

from rlvr.objective.surrogates import clip

dapo = partial(clip, low=0.2, high=0.28)


def gain(surrogate, rho: float, advantage: float) -> tuple[float, float]:
    """The gain of one token, and its gradient in log rho."""
    log_w = tensor([[math.log(rho)]], dtype=torch.float64, requires_grad=True)
    out = surrogate(log_w, tensor([[advantage]], dtype=torch.float64), log_w)
    (grad,) = torch.autograd.grad(out.sum(), log_w)
    return out.item(), grad.item()


@pytest.mark.parametrize(
    ("rho", "advantage", "value", "slope"),
    [
        # inside the bounds: rho A, and d(rho A)/d log rho = rho A
        (1.0, 1.0, 1.0, 1.0),
        (1.1, 2.0, 2.2, 2.2),
        (0.9, -2.0, -1.8, -1.8),
        # beyond the bound in the direction that A rewards: capped, nothing more to gain
        (1.5, 1.0, 1.28, 0.0),
        (0.5, -1.0, -0.8, 0.0),
        (1.27, 1.0, 1.27, 1.27),
        (1.29, 1.0, 1.28, 0.0),
        (0.79, -1.0, -0.8, 0.0),
        (0.81, -1.0, -0.81, -0.81),
        # beyond the bound in the other direction: the min keeps the way back open
        (0.5, 1.0, 0.5, 0.5),
        (1.5, -1.0, -1.5, -1.5),
        (5.0, -1.0, -5.0, -5.0),
    ],
)
def test_clip_by_hand(rho, advantage, value, slope):
    assert gain(dapo, rho, advantage) == pytest.approx((value, slope))


@pytest.mark.parametrize(
    ("rho", "advantage", "value"),
    [
        (5.0, -1.0, -3.0),  # max(-5, 3 * -1)
        (2.0, -1.0, -2.0),  # not yet there
        (5.0, -2.0, -6.0),  # max(-10, 3 * -2)
        (5.0, 1.0, 1.28),  # only where A < 0
        (0.5, 1.0, 0.5),
        (0.5, -1.0, -0.8),
    ],
)
def test_a_dual_clip_bounds_the_loss_of_bad_completions(rho, advantage, value):
    assert gain(partial(dapo, dual=3.0), rho, advantage)[0] == pytest.approx(value)


def test_low_and_high_are_not_exchanged():
    lopsided = partial(clip, low=0.1, high=0.9)
    assert gain(lopsided, 3.0, 1.0)[0] == pytest.approx(1.9)
    assert gain(lopsided, 0.01, -1.0)[0] == pytest.approx(-0.9)


def test_an_advantage_belongs_to_its_row():
    out = dapo(torch.zeros(2, 3), tensor([[2.0], [-1.0]]), torch.zeros(2, 3))
    assert_close(out, tensor([[2.0] * 3, [-1.0] * 3]))
