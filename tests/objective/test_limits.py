"""Parameters that would quietly teach nothing, or the opposite, are refused by name where an objective is made."""

from dataclasses import replace
from functools import partial
from math import inf, nan

import pytest
import torch

from rlvr.objective import Objective, advantages, corrections, limits, ratios, shaping, surrogates, weightings
from rlvr.objective.limits import LIMITS, beyond

GOOD = Objective(
    advantages.center, ratios.token, partial(surrogates.clip, low=0.2, high=0.2), weightings.token_mean
)  # fmt: skip


@pytest.mark.parametrize(
    ("slot", "choice", "said"),
    [
        ("advantage", partial(advantages.standardize, eps=-1.0), "advantage.eps=-1.0: at least 0 and finite"),
        ("advantage", partial(advantages.standardize, eps=inf), "advantage.eps=inf: at least 0 and finite"),
        ("advantage", partial(advantages.standardize, ddof=100), "advantage.ddof=100: 0 or 1"),
        ("advantage", partial(advantages.decouple, eps=nan), "advantage.eps=nan: at least 0 and finite"),
        ("whitening", partial(advantages.whiten, ddof=2), "whitening.ddof=2: 0 or 1"),
        ("surrogate", partial(surrogates.clip, low=-0.2, high=0.2), "surrogate.low=-0.2: at least 0"),
        ("surrogate", partial(surrogates.clip, low=0.2, high=nan), "surrogate.high=nan: at least 0"),
        ("surrogate", partial(surrogates.clip, low=0.2, high=0.2, dual=0), "surrogate.dual=0: above 1, or null"),
        ("surrogate", partial(surrogates.clip, low=0.2, high=0.2, dual=1.0), "surrogate.dual=1.0: above 1, or null"),
        ("surrogate", partial(surrogates.clip, low=None, high=0.2), "surrogate.low=null: at least 0"),
        ("surrogate", partial(surrogates.cispo, low=1.0, high=-4), "surrogate.high=-4: at least 0"),
        ("surrogate", partial(surrogates.sapo, positive=0.0), "surrogate.positive=0.0: above 0 and finite"),
        ("weighting", partial(weightings.constant, max_tokens=-1), "weighting.max_tokens=-1: at least 1 and finite"),
        ("shaping", partial(shaping.overlong, max_tokens=8, buffer=0), "shaping.buffer=0: above 0, at most 1"),
        ("shaping", partial(shaping.overlong, max_tokens=8, buffer=nan), "shaping.buffer=nan: above 0, at most 1"),
        ("shaping", partial(shaping.overlong, max_tokens=8, buffer="a"), "shaping.buffer=a: above 0, at most 1"),
        ("correction", partial(corrections.token_truncate, cap=0.0), "correction.cap=0.0: above 0"),
        ("correction", partial(corrections.sequence_truncate, cap=-2), "correction.cap=-2: above 0"),
        ("correction", partial(corrections.token_mask, low=1.1), "correction.low=1.1: from 0 to 1"),
        ("correction", partial(corrections.geometric_mask, high=0.9), "correction.high=0.9: at least 1"),
        ("correction", partial(corrections.off_policy_mask, threshold=-0.1), "correction.threshold=-0.1: at least 0"),
        (
            "correction",
            partial(corrections.product, corrections=(corrections.token_mask, partial(corrections.token_mask, low=2))),
            "correction.corrections.1.low=2: from 0 to 1",
        ),
    ],
)
def test_what_cannot_be_meant_is_named_with_its_value_and_limit(slot, choice, said):
    with pytest.raises(ValueError) as error:
        replace(GOOD, **{slot: choice})
    assert str(error.value) == said


def test_what_is_at_its_limit_passes_and_so_does_a_function_that_is_not_ours():
    edge = replace(
        GOOD,
        whitening=partial(advantages.whiten, eps=0, ddof=0),
        surrogate=partial(surrogates.clip, low=0, high=inf, dual=None),
        correction=partial(corrections.token_mask, low=1, high=1),
        shaping=partial(shaping.overlong, max_tokens=1, buffer=1),
    )
    assert edge.surrogate.keywords["dual"] is None
    replace(GOOD, surrogate=partial(lambda w, a, lp, low: w * a, low=-1))


@pytest.mark.parametrize(("function", "of_it"), LIMITS.items(), ids=lambda one: getattr(one, "__name__", ""))
def test_every_limit_is_of_a_parameter_and_refuses_nan(function, of_it):
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    for name in of_it:
        assert name in names
        assert list(beyond("slot", partial(function, **{name: nan}))) == [f"slot.{name}=nan: {of_it[name][0]}"]


@pytest.mark.parametrize(
    ("limit", "kept", "beyond_it"),
    [
        (limits.AT_LEAST_0, [0, 0.5, inf], [-0.5]),
        (limits.FINITE, [0, 0.5], [-0.5, inf]),
        (limits.ABOVE_0, [0.5, inf], [0]),
        (limits.FINITE_ABOVE_0, [0.5, 9.0], [0, inf]),
        (limits.SHARE, [0.5, 1], [0, 1.5]),
        (limits.TOKENS, [1, 9], [0.5, inf]),
        (limits.DDOF, [0, 1], [0.5, 2]),
        (limits.LOW, [0, 0.5, 1], [-0.5, 1.5]),
        (limits.HIGH, [1, inf], [0.5]),
        (limits.DUAL, [1.5], [1, 0.5]),
    ],
)
def test_the_limits_by_hand(limit, kept, beyond_it):
    _, keeps = limit
    assert all(map(keeps, kept)) and not any(map(keeps, [*beyond_it, nan, -inf]))


def test_with_what_is_refused_a_clip_would_have_muted_all_that_is_bad():
    """Why 1 is no `dual`: the gradient of a completion that is worse than the others."""
    log_w = torch.zeros(1, 1, requires_grad=True)
    bad = torch.full((1, 1), -1.0)
    (slope,) = torch.autograd.grad(surrogates.clip(log_w, bad, log_w, 0.2, 0.2, dual=0.5).sum(), log_w)
    assert slope == 0


def test_ones_own_may_be_anything_that_can_be_called():
    class Own:
        __hash__ = None  # type: ignore[assignment]

        def __call__(self, *_):
            return None

    assert list(limits.beyond("surrogate", Own())) == []
