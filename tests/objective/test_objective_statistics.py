"""Statistics of a step: by hand, and adding up over whatever it is cut into."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import tensor

from rlvr.objective import Statistics, corrections, kl
from rlvr.objective.objective import largest, statistics
from tests.objective.test_objective import GRPO, RHO, batch


def test_statistics_by_hand():
    # three trained tokens with pi/pi_old 1.5, 0.5, 1 and pi_old/pi_rollout 2, 1, 1/4
    delta = tensor([[7.0, 2.0, 7.0], [7.0, 1.0, 0.25]]).log()
    objective = replace(GRPO, correction=partial(corrections.token_mask, low=0.5, high=5.0), kl=kl.KL(kl.k1, 0.1))
    of = batch(rollout_logprobs_BT=-delta, ref_logprobs_BT=RHO.log() - 0.5, kl_coefficients_B1=torch.zeros(2, 1))
    means = objective.loss(RHO.log(), of)[1].means()
    assert means["policy/ratio_mean"] == pytest.approx((1.5 + 0.5 + 1.0) / 3)
    assert means["mismatch/mean_abs"] == pytest.approx((math.log(2) + 0 + math.log(4)) / 3)
    assert means["mismatch/max_abs"] == pytest.approx(math.log(4))
    # (2 + 1 + 1/4)^2 / (4 + 1 + 1/16) / 3
    assert means["mismatch/ess"] == pytest.approx(3.25**2 / 5.0625 / 3)
    assert means["policy/kl_ref"] == pytest.approx(0.5)
    assert means["mismatch/masked"] == pytest.approx(1 / 3)
    assert "policy/entropy" not in means  # a loss does not see it, the trainer adds it
    seen = objective.loss(RHO.log(), of)[1] + Statistics({"entropy": 1.2})
    assert seen.means()["policy/entropy"] == pytest.approx(1.2 / 3)
    assert means["policy/clipped"] == 0  # without a gradient there is nothing to lose
    assert replace(objective, correction=None).loss(RHO.log(), of)[1].means().get("mismatch/masked") is None


def test_masked_is_what_a_correction_gives_no_weight():
    # pi_old/pi_rollout 1, 1, 1/4, of which the last is below 1/2
    delta = tensor([[7.0, 1.0, 7.0], [7.0, 1.0, 0.25]]).log()
    objective = replace(GRPO, correction=corrections.token_mask)
    means = objective.loss(RHO.log(), batch(rollout_logprobs_BT=-delta))[1].means()
    assert means["mismatch/masked"] == pytest.approx(1 / 3)


def test_statistics_are_summed_in_double_precision():
    # in float32, 1 + 2^-40 is 1
    small = 2.0**-40
    seen = {"mismatch": tensor([[1.0, small, 9.0]])}
    made = statistics(tensor([[True, True, False]]), seen)
    assert made.sums == {"mismatch": 1.0 + small, "tokens": 2.0} and made.maxima == {"mismatch_max": 1.0}


def test_no_token_adds_nothing_to_what_others_saw():
    nothing = GRPO.loss(torch.zeros(1, 2), batch(torch.zeros(1, 2), torch.zeros(1, 1)))[1]
    real = GRPO.loss(RHO.log(), batch(rollout_logprobs_BT=torch.full((2, 3), 0.3)))[1]
    for other in (nothing, Statistics()):
        assert (real + other).means() == real.means() == (other + real).means()
    assert (real + real).tokens == 2 * real.tokens == 6.0
    assert Statistics().tokens == 0.0


def test_a_mismatch_that_is_no_number_is_not_hidden_by_others():
    good, bad = (Statistics({"tokens": 1.0}, {"mismatch_max": x}) for x in (1.0, math.nan))
    for parts in ((good, bad), (bad, good), (good, bad, good), (bad, Statistics())):
        assert math.isnan(sum(parts, Statistics()).maxima["mismatch_max"])
    assert largest([0.0, 2.0, 1.0]) == 2.0 and math.isnan(largest([1.0, math.nan]))


def test_the_effective_sample_size_is_one_when_engine_and_trainer_agree():
    assert GRPO.loss(RHO.log(), batch())[1].means()["mismatch/ess"] == pytest.approx(1.0)


def test_statistics_of_parts_add_up_to_those_of_the_whole():
    of = batch(rollout_logprobs_BT=tensor([[0.0, 0.3, 0.0], [0.0, -0.7, 0.1]]))
    whole = GRPO.loss(RHO.log(), of)[1]
    parts = [GRPO.loss(RHO.log()[[i]], of.rows([i]))[1] for i in (0, 1)]
    assert sum(parts, Statistics()).means() == pytest.approx(whole.means())
    assert sum(reversed(parts), Statistics()).means() == pytest.approx(whole.means())


def test_metrics_of_what_is_not_there_are_absent():
    means = GRPO.loss(RHO.log(), batch())[1].means()
    assert "policy/kl_ref" not in means and "mismatch/masked" not in means


def test_statistics_of_no_token_are_finite():
    nothing = torch.zeros(1, 2)
    means = GRPO.loss(nothing, batch(nothing, torch.zeros(1, 1)))[1].means()
    assert all(math.isfinite(x) for x in means.values())


def test_statistics_of_no_micro_batch_at_all_are_finite():
    """A step whose groups were all dropped has no micro-batch: the sum over none of them must still be reported."""
    assert all(math.isfinite(x) for x in Statistics().means().values())
