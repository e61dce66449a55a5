"""Clipping against numbers worked out by hand: where it caps, where it does not, and where the gradient ends."""

import math
from functools import partial

import pytest
import torch
from torch import tensor
from torch.testing import assert_close

from rlvr.objective.surrogates import cispo, clip, sapo, unclipped

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
        (5.0, 0.5, 0.64),
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


@pytest.mark.parametrize(
    ("rho", "advantage", "weight"),
    [
        (1.5, 1.0, 1.28),  # capped at 1 + 0.28, whatever the sign
        (1.5, -1.0, 1.28),
        (0.5, 1.0, 0.8),  # and at 1 - 0.2
        (0.5, -2.0, 0.8),
        (1.1, 1.0, 1.1),
    ],
)
def test_cispo_caps_the_weight_and_keeps_the_gradient(rho, advantage, weight):
    logprobs = tensor([[-0.7]], dtype=torch.float64, requires_grad=True)
    old = -0.7 - math.log(rho)
    out = cispo(logprobs - old, tensor([[advantage]], dtype=torch.float64), logprobs, low=0.2, high=0.28)
    (grad,) = torch.autograd.grad(out.sum(), logprobs)
    assert (out.item(), grad.item()) == pytest.approx((weight * advantage * -0.7, weight * advantage))


@pytest.mark.parametrize(("rho", "advantage"), [(7.0, 2.0), (0.1, -3.0), (1.0, 1.0)])
def test_unclipped_is_the_weight_times_the_advantage_without_a_bound(rho, advantage):
    assert gain(unclipped, rho, advantage) == pytest.approx((rho * advantage, rho * advantage))


@pytest.mark.parametrize(("advantage", "tau"), [(2.0, 1.0), (0.5, 1.0), (-2.0, 3.0), (-0.5, 3.0), (0.0, 3.0)])
def test_sapo_by_hand(advantage, tau):
    # at w = 1.5: 4/tau * sigmoid(tau/2) * A; its slope in log w is 4 s (1 - s) * 1.5 * A
    s = 1 / (1 + math.exp(-tau * 0.5))
    of = partial(sapo, positive=1.0, negative=3.0)
    assert gain(of, 1.5, advantage) == pytest.approx((4 / tau * s * advantage, 4 * s * (1 - s) * 1.5 * advantage))


def test_the_gate_of_sapo_closes_on_both_sides_and_is_open_at_one():
    slopes = {rho: gain(sapo, rho, 1.0)[1] for rho in (0.01, 1.0, 9.0)}
    assert slopes[1.0] == pytest.approx(1.0)
    assert 0 < slopes[0.01] < 0.02 and 0 < slopes[9.0] < 0.02


@pytest.mark.parametrize(("advantage", "tau"), [(1.0, 1.0), (-1.0, 1.05)])
def test_sapo_closes_the_gate_sooner_for_bad_completions(advantage, tau):
    # the paper's temperatures; 4/tau * sigmoid(tau * (3 - 1)) * A
    assert gain(sapo, 3.0, advantage)[0] == pytest.approx(4 / tau / (1 + math.exp(-2 * tau)) * advantage)
