"""Estimators by hand, their gradients, and which coefficient a domain has."""

import math
from dataclasses import FrozenInstanceError

import pytest
import torch
from torch import tensor

from rlvr.objective.kl import KL, k1, k2, k3, unbiased

LOG2 = math.log(2)


def at(estimator, logprob: float, ref: float, old: float = -1.0) -> tuple[float, float]:
    x = tensor([[logprob]], dtype=torch.float64, requires_grad=True)
    out = estimator(x, tensor([[ref]], dtype=torch.float64), x - old)
    (grad,) = torch.autograd.grad(out.sum(), x)
    return out.item(), grad.item()


@pytest.mark.parametrize(
    ("estimator", "value", "slope"),
    [
        # pi is twice pi_ref: k1 = log 2; k3 = 1/2 - 1 + log 2, d k3/d log pi = 1 - 1/2
        (k1, LOG2, 1.0),
        (k2, LOG2**2 / 2, LOG2),
        (k3, LOG2 - 0.5, 0.5),
    ],
)
def test_estimators_where_the_policy_is_twice_as_sure(estimator, value, slope):
    assert at(estimator, -1.0 + LOG2, -1.0) == pytest.approx((value, slope))


@pytest.mark.parametrize(
    ("estimator", "value", "slope"),
    [
        # pi is half pi_ref: k1 = -log 2; k3 = 2 - 1 - log 2, slope 1 - 2
        (k1, -LOG2, 1.0),
        (k2, LOG2**2 / 2, -LOG2),
        (k3, 1 - LOG2, -1.0),
    ],
)
def test_estimators_where_the_policy_is_half_as_sure(estimator, value, slope):
    assert at(estimator, -1.0 - LOG2, -1.0) == pytest.approx((value, slope))


@pytest.mark.parametrize("estimator", [k1, k2, k3, unbiased])
def test_equal_policies_are_at_distance_zero(estimator):
    assert at(estimator, -0.7, -0.7)[0] == 0.0


@pytest.mark.parametrize("estimator", [k2, k3])
def test_k2_and_k3_are_never_negative_and_flat_at_zero(estimator):
    assert all(at(estimator, x / 10, 0.0)[0] >= 0 for x in range(-60, 61))
    assert at(estimator, -0.7, -0.7)[1] == 0.0


@pytest.mark.parametrize("far", [-1e4, 1e4])
@pytest.mark.parametrize("estimator", [k1, k2, k3, unbiased])
def test_extreme_log_ratios_stay_finite(estimator, far):
    x = tensor([[far]], requires_grad=True)
    out = estimator(x, torch.zeros(1, 1), x.clamp(-20, 20))
    (grad,) = torch.autograd.grad(out.sum(), x)
    assert out.isfinite().all() and grad.isfinite().all()


def test_the_mean_of_k1_and_k3_over_samples_is_the_kl():
    # pi = (0.75, 0.25), ref = (0.5, 0.5): KL = 0.75 log 1.5 + 0.25 log 0.5
    pi, ref = tensor([[0.75, 0.25]], dtype=torch.float64), tensor([[0.5, 0.5]], dtype=torch.float64)
    exact = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    for estimator in (k1, k3):
        assert float((pi * estimator(pi.log(), ref.log(), torch.zeros_like(pi))).sum()) == pytest.approx(exact)


def test_one_coefficient_serves_every_domain():
    kl = KL(k3, 0.04)
    assert kl.on and kl.of("math") == kl.of("chat") == 0.04


def test_a_coefficient_per_domain_and_none_for_a_domain_not_named():
    kl = KL(k3, {"math": 0.0, "chat": 0.04})
    assert kl.on and (kl.of("math"), kl.of("chat"), kl.of("code")) == (0.0, 0.04, 0.0)


@pytest.mark.parametrize("coefficient", [0, 0.0, {}, {"math": 0.0}])
def test_a_coefficient_of_zero_needs_no_reference_model(coefficient):
    assert not KL(k3, coefficient).on


def test_unbiased_weighs_k3_by_who_sampled_and_differentiates_both():
    # pi = 2 pi_ref and pi = 4 pi_old: 4 * (log 2 - 1/2); slope: value + 4 * (1 - 1/2)
    value = 4 * (LOG2 - 0.5)
    assert at(unbiased, -1.0 + LOG2, -1.0, old=-1.0 - LOG2) == pytest.approx((value, value + 2.0))


def test_off_policy_only_unbiased_has_the_gradient_of_the_kl():
    """Over all tokens of a small vocabulary, weighted as pi_old samples them: d KL(pi||ref) / d logits."""
    logits = tensor([0.3, -0.2, 0.5], dtype=torch.float64, requires_grad=True)
    old, ref = tensor([0.5, 0.2, 0.3], dtype=torch.float64), tensor([0.2, 0.5, 0.3], dtype=torch.float64)

    def gradient(estimator) -> torch.Tensor:
        log_pi = logits.log_softmax(0)
        return torch.autograd.grad((old * estimator(log_pi, ref.log(), log_pi - old.log())).sum(), logits)[0]

    log_pi = logits.log_softmax(0)
    (exact,) = torch.autograd.grad((log_pi.exp() * (log_pi - ref.log())).sum(), logits)
    torch.testing.assert_close(gradient(unbiased), exact)
    assert not torch.allclose(gradient(k3), exact, atol=1e-2)


def test_a_penalty_is_in_the_loss_or_in_the_reward():
    assert KL(k3, 0.1).place == "loss"
    assert KL(k3, 0.1, place="reward").place == "reward"
    with pytest.raises(ValueError, match=r"kl\.place=advantage: loss or reward"):
        KL(k3, 0.1, place="advantage")


def test_the_domains_are_those_with_a_coefficient_of_their_own():
    assert KL(k3, {"math": 0.0, "chat": 0.04}).domains == {"math", "chat"} and KL(k3, 0.1).domains == frozenset()


@pytest.mark.parametrize(
    ("log_ratio", "value", "slope"),
    [
        # bounded at +-20, where it is flat: e^-20 - 1 + 20 and e^20 - 1 - 20; 19 is not bounded: slope 1 - e^-19
        (1000.0, math.exp(-20.0) + 19.0, 0.0),
        (-1000.0, math.exp(20.0) - 21.0, 0.0),
        (19.0, math.exp(-19.0) + 18.0, 1 - math.exp(-19.0)),
    ],
)
def test_k3_is_bounded_on_both_sides(log_ratio, value, slope):
    assert at(k3, log_ratio, 0.0) == pytest.approx((value, slope), rel=1e-12)


def test_a_penalty_is_frozen_and_slotted():
    term = KL(k3, 0.1)
    with pytest.raises(FrozenInstanceError):
        term.coefficient = 0.2
    assert not hasattr(term, "__dict__")


@pytest.mark.parametrize(
    ("coefficient", "said"),
    [
        (-0.5, "-0.5"),
        (math.nan, "nan"),
        (math.inf, "inf"),
        (None, "null"),
        ("0.1", "0.1"),
        ({"chat": -0.1}, "{'chat': -0.1}"),
    ],
)
def test_a_penalty_that_is_none_is_refused(coefficient, said):
    with pytest.raises(ValueError) as error:
        KL(k3, coefficient)
    assert str(error.value) == f"kl.coefficient={said}: a finite number of at least 0, or one for each domain"
