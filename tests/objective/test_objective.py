"""The loss as one sum, by hand, and what a step knows before it."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor, tensor
from torch.testing import assert_close

from rlvr.collate import collate
from rlvr.objective import Batch, Objective, Rewards, advantages, corrections, kl, ratios, surrogates
from rlvr.objective.objective import without_gradient
from rlvr.objective.weightings import sequence_mean
from tests.builders import completion, group

GRPO = Objective(advantages.standardize, ratios.token, partial(surrogates.clip, low=0.2, high=0.2), sequence_mean)

# two completions: one token with A = +1, two tokens with A = -1; pi/pi_old is 1.5 | 0.5, 1.0; position 0 is a prompt
MASK = tensor([[0.0, 1.0, 0.0], [0.0, 1.0, 1.0]])
RHO = tensor([[9.0, 1.5, 9.0], [9.0, 0.5, 1.0]])


def batch(mask_BT: Tensor = MASK, advantages_B1: Tensor | None = None, **changes) -> Batch:
    """pi_old is 1 everywhere and the engine agrees, unless `changes` says otherwise."""
    B, T = mask_BT.shape
    made = Batch(
        token_ids_BT=torch.arange(B * T).view(B, T),
        lengths_B=torch.full((B,), T),
        mask_BT=mask_BT,
        rollout_logprobs_BT=torch.zeros(B, T),
        advantages_B1=tensor([[1.0], [-1.0]]) if advantages_B1 is None else advantages_B1,
        weights_BT=sequence_mean(mask_BT, mask_BT),
        counted_BT=mask_BT,
        kl_coefficients_B1=torch.zeros(B, 1),
        old_logprobs_BT=torch.zeros(B, T),
    )
    return replace(made, **changes)


def value_and_gradient(objective: Objective, logprobs_BT: Tensor, of: Batch) -> tuple[Tensor, Tensor]:
    x = logprobs_BT.detach().clone().requires_grad_()
    loss, _ = objective.loss(x, of)
    return loss.detach(), torch.autograd.grad(loss, x)[0]


def test_grpo_by_hand():
    # J = 1/2 * min(1.5, 1.2) + 1/2 * (min(-0.5, -0.8) - 1.0)/2 = 0.6 - 0.45 = 0.15
    # dJ/dlogp: 1.5 is capped: 0 | 0.5 is capped: 0, 1.0 is not: -1.0/4
    loss, grad = value_and_gradient(GRPO, RHO.log(), batch())
    assert_close(loss, tensor(-0.15))
    assert_close(grad, tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 0.25]]))


def test_the_first_step_on_a_batch_is_the_plain_policy_gradient():
    """Without old logprobs the ratio is 1 in value, and still carries the gradient."""
    loss, grad = value_and_gradient(GRPO, RHO.log(), batch(old_logprobs_BT=None))
    assert_close(loss, tensor(0.0))  # -(1/2 * 1 + 1/4 * -1 + 1/4 * -1)
    assert_close(grad, tensor([[0.0, -0.5, 0.0], [0.0, 0.25, 0.25]]))


def test_kl_is_a_cost_weighted_like_the_surrogate():
    # log pi = log 2, log pi_ref = 0: k3 = log 2 - 1/2, slope 1/2; coefficients 0.1 and 0; weights 1/2 and 1/4
    objective = replace(GRPO, kl=kl.KL(kl.k3, {"chat": 0.1}))
    logprobs = torch.full((2, 3), math.log(2))
    of = batch(
        kl_coefficients_B1=tensor([[0.1], [0.0]]), ref_logprobs_BT=torch.zeros(2, 3), old_logprobs_BT=logprobs.clone()
    )
    plain, plain_grad = value_and_gradient(GRPO, logprobs, of)
    loss, grad = value_and_gradient(objective, logprobs, of)
    assert_close(loss - plain, tensor(0.1 * 0.5 * (math.log(2) - 0.5)))
    assert_close(grad - plain_grad, tensor([[0.0, 0.1 * 0.5 * 0.5, 0.0], [0.0, 0.0, 0.0]]))


def test_a_kl_term_without_reference_logprobs_is_refused():
    with pytest.raises(ValueError, match="no ref_logprobs_BT"):
        replace(GRPO, kl=kl.KL(kl.k3, 0.04)).loss(torch.zeros(2, 3), batch())


@pytest.mark.parametrize("term", [None, kl.KL(kl.k3, 0.0), kl.KL(kl.k3, {"math": 0.0})])
def test_a_coefficient_of_zero_asks_for_no_reference(term):
    objective = replace(GRPO, kl=term)
    assert not objective.needs_reference
    objective.loss(torch.zeros(2, 3), batch())
    assert replace(GRPO, kl=kl.KL(kl.k3, {"math": 0.0, "chat": 0.1})).needs_reference


def test_a_correction_scales_the_gain_and_not_the_kl():
    # the engine gave every token half of pi_old: pi_old/pi_rollout = 2, capped at 1.5
    truncate = partial(corrections.token_truncate, cap=1.5)
    objective = replace(GRPO, correction=truncate, kl=kl.KL(kl.k3, 0.1))
    of = batch(
        old_logprobs_BT=torch.full((2, 3), -1.0),
        rollout_logprobs_BT=torch.full((2, 3), -1.0 - math.log(2)),
        ref_logprobs_BT=torch.full((2, 3), -1.5),
        kl_coefficients_B1=torch.full((2, 1), 0.1),
    )
    logprobs = torch.full((2, 3), -1.0)
    bare, _ = value_and_gradient(replace(objective, correction=None), logprobs, of)
    no_kl = replace(of, kl_coefficients_B1=torch.zeros(2, 1))
    penalty = bare - value_and_gradient(GRPO, logprobs, no_kl)[0]
    _, grad = value_and_gradient(objective, logprobs, no_kl)
    assert_close(grad, 1.5 * tensor([[0.0, -0.5, 0.0], [0.0, 0.25, 0.25]]))
    whole, _ = value_and_gradient(objective, logprobs, of)
    assert_close(whole - value_and_gradient(objective, logprobs, no_kl)[0], penalty)


def test_the_correction_compares_the_trainer_with_the_engine_in_this_order():
    # pi_old/pi_rollout = 0.4 is outside [0.5, 5], 1/0.4 = 2.5 would be inside
    objective = replace(GRPO, correction=corrections.token_mask)
    of = batch(old_logprobs_BT=torch.full((2, 3), math.log(0.4)))
    loss, _ = value_and_gradient(objective, torch.full((2, 3), math.log(0.4)), of)
    assert loss == 0


@pytest.mark.parametrize("garbage", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["logprobs", "old_logprobs_BT", "rollout_logprobs_BT", "ref_logprobs_BT"])
def test_padding_may_hold_anything(garbage, where):
    objective = replace(GRPO, kl=kl.KL(kl.k3, 0.1), correction=corrections.token_truncate)
    of = batch(ref_logprobs_BT=torch.full((2, 3), -0.3), kl_coefficients_B1=torch.full((2, 1), 0.1))
    clean = value_and_gradient(objective, RHO.log(), of)
    logprobs = RHO.log()
    if where == "logprobs":
        logprobs = torch.where(MASK > 0, logprobs, garbage)
    else:
        of = replace(of, **{where: torch.where(MASK > 0, getattr(of, where), garbage)})
    assert_close(value_and_gradient(objective, logprobs, of), clean)
    _, statistics = objective.loss(logprobs, of)
    assert all(math.isfinite(x) for x in statistics.means().values())


@pytest.mark.parametrize("far", [-1e4, -100.0, 100.0, 1e4])
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_extreme_log_ratios_stay_finite(far, sign):
    objective = replace(GRPO, kl=kl.KL(kl.k3, 0.1), correction=corrections.token_truncate)
    one = torch.ones(1, 1)
    of = batch(one, sign * one, ref_logprobs_BT=-far * one, kl_coefficients_B1=one, rollout_logprobs_BT=far * one)
    loss, grad = value_and_gradient(objective, far * one, of)
    assert loss.isfinite() and grad.isfinite().all()
    _, statistics = objective.loss(far * one, of)
    assert all(math.isfinite(x) for x in statistics.means().values())


def test_bfloat16_logprobs_are_computed_with_in_float32():
    """1/128 is a difference of two bfloat16 numbers; its exp is 1.0078431, the nearest bfloat16 1.0078125."""
    one = torch.ones(1, 1)
    of = batch(one, one, old_logprobs_BT=tensor([[-1 - 1 / 128]], dtype=torch.bfloat16))
    loss, _ = GRPO.loss(tensor([[-1.0]], dtype=torch.bfloat16), of)
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(-math.exp(1 / 128), rel=1e-6)


def test_float64_logprobs_stay_float64():
    one = torch.ones(1, 1, dtype=torch.float64)
    of = batch(one, one, old_logprobs_BT=-1.0 - 1e-9 * one)
    loss, _ = GRPO.loss(-one, of)
    assert loss.dtype == torch.float64
    assert -float(loss) - 1.0 == pytest.approx(1e-9, rel=1e-5)


def test_no_trained_token_is_a_loss_of_zero_with_a_gradient():
    for shape in ((2, 3), (0, 0)):
        nothing = torch.zeros(shape)
        loss, grad = value_and_gradient(GRPO, torch.zeros(shape), batch(nothing, torch.zeros(shape[0], 1)))
        assert loss == 0 and (grad == 0).all()


@pytest.mark.parametrize("slot", ["advantage", "surrogate", "weighting", "whitening", "correction", "shaping"])
def test_no_slot_takes_a_parameter_that_cannot_be_meant(slot):
    with pytest.raises(ValueError, match=rf"^{slot}\.dual=0: above 1, or null$"):
        replace(GRPO, **{slot: partial(surrogates.clip, dual=0)})


# ---- signal ----------------------------------------------------------------------------------------------------------


def test_a_group_teaches_when_its_rewards_differ():
    parts = tensor([[[1.0], [0.0]], [[1.0], [1.0]], [[0.0], [0.0]], [[1.0], [0.0]]], dtype=torch.float64)
    valid = tensor([[True, True], [True, True], [True, True], [True, False]])
    rewards = Rewards(parts, torch.ones(1, dtype=torch.float64), valid)
    assert GRPO.signal(rewards).tolist() == [True, False, False, False]


def test_signal_is_judged_on_the_weighted_sum():
    # (1, 0) and (0, 1): equal at weights 1, 1; different at 1, 0.5
    parts = tensor([[[1.0, 0.0], [0.0, 1.0]]], dtype=torch.float64)
    valid = tensor([[True, True]])
    for weights, teaches in (([1.0, 1.0], False), ([1.0, 0.5], True)):
        assert GRPO.signal(Rewards(parts, tensor(weights, dtype=torch.float64), valid)).tolist() == [teaches]


# ---- what a step knows before its first micro-batch ------------------------------------------------------------------


def test_tokens_that_a_clip_silences_are_counted():
    # 1.5 with A = 1 and 0.5 with A = -1 lie outside the clip, 1.0 does not
    x = RHO.log().requires_grad_()
    assert GRPO.loss(x, batch())[1].means()["policy/clipped"] == pytest.approx(2 / 3)
    assert GRPO.loss(x, batch(advantages_B1=tensor([[0.0], [-1.0]])))[1].means()["policy/clipped"] == pytest.approx(
        1 / 3
    )
    masking = replace(GRPO, correction=lambda mismatch: torch.zeros_like(mismatch.delta_BT))
    assert masking.loss(x, batch())[1].means()["policy/clipped"] == 0


def test_counting_clipped_tokens_changes_no_gradient():
    x = RHO.log().requires_grad_()
    (grad,) = torch.autograd.grad(GRPO.loss(x, batch())[0], x)
    assert_close(grad, tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 0.25]]))


def test_a_part_of_the_rows_is_a_step_of_its_own():
    part = GRPO.part(batch(), slice(1, 2))
    assert_close(part.weights_BT, tensor([[0.0, 0.5, 0.5]]))  # of one completion, no longer of two
    assert_close(batch().rows([1]).weights_BT, tensor([[0.0, 0.25, 0.25]]))


def test_a_part_counts_what_the_whole_counted():
    counted = torch.ones(2, 3)  # count_masked: the masked row counts too
    of = batch(tensor([[0.0, 1.0, 1.0], [0.0, 0.0, 0.0]]), counted_BT=counted)
    assert_close(GRPO.part(of, [0, 1]).weights_BT[0], tensor([0.0, 0.25, 0.25]))


def test_advantages_are_whitened_where_the_recipe_says_so():
    rewards = Rewards(tensor([[[4.0], [0.0]], [[1.0], [0.0]]]), torch.ones(1), torch.ones(2, 2, dtype=torch.bool))
    objective = replace(GRPO, advantage=advantages.center)
    assert_close(objective.advantages(rewards), tensor([[2.0, -2.0], [0.5, -0.5]]))
    white = replace(objective, whitening=partial(advantages.whiten, ddof=0, eps=0.0)).advantages(rewards)
    assert_close(white, tensor([[2.0, -2.0], [0.5, -0.5]]) / (8.5 / 4) ** 0.5)


def test_equal_totals_of_different_parts_are_no_signal():
    # 0.1 + 0.2 = 0.3, though not in floats
    parts = tensor([[[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]], dtype=torch.float64)
    rewards = Rewards(parts, tensor([0.1, 0.2, 0.3], dtype=torch.float64), tensor([[True, True]]))
    assert GRPO.signal(rewards).tolist() == [False]
    assert (GRPO.advantages(rewards) == 0).all()


def test_a_group_has_signal_when_its_own_advantages_are_not_all_zero():
    """[1 and 0], [0 and 1] in two parts: the sum agrees, the parts do not."""
    parts = tensor([[[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]], [[1.0, 1.0]] * 3])
    rewards = Rewards(parts, tensor([1.0, 0.5]), torch.ones(2, 3, dtype=torch.bool))
    tie = Rewards(parts[:, :2], tensor([1.0, 1.0]), torch.ones(2, 2, dtype=torch.bool))
    apart = replace(GRPO, advantage=advantages.decouple)
    assert apart.signal(rewards).tolist() == GRPO.signal(rewards).tolist() == [True, False]
    assert GRPO.signal(tie).tolist() == [False, False]
    assert apart.signal(replace(tie, weights_K=tensor([1.0, 0.5]))).tolist() == [True, False]


def test_a_kl_penalty_in_the_reward_by_hand():
    """Rewards 1 and 0; k1 sums to 2 * 0.25 and 1 * 0.5 over the completions; coefficients 1 and 0.2."""
    term = kl.KL(kl.k1, 1.0, place="reward")
    objective = replace(GRPO, advantage=advantages.center, kl=term)
    of = batch(
        tensor([[0.0, 1.0, 1.0], [0.0, 1.0, 0.0]]),
        old_logprobs_BT=torch.full((2, 3), -1.0),
        ref_logprobs_BT=tensor([[math.nan, -1.25, -1.25], [math.nan, -1.5, math.nan]]),
        kl_coefficients_B1=tensor([[1.0], [0.2]]),
        rewards=Rewards.of_one_group([1.0, 0.0]),
        slots_B=tensor([0, 1]),
    )
    # 1 - 0.5 = 0.5 and 0 - 0.1 = -0.1: mean 0.2
    assert_close(objective.penalised(of).advantages_B1, tensor([[0.3], [-0.3]]))


def test_a_kl_penalty_in_the_reward_weighs_no_token_by_who_sampled_it():
    """Before the step pi is pi_old, so `unbiased` is k3: log 2 - 1/2 a token. No gradient leaves this place."""
    objective = replace(GRPO, advantage=advantages.center, kl=kl.KL(kl.unbiased, 1.0, place="reward"))
    of = batch(
        tensor([[0.0, 1.0, 1.0], [0.0, 1.0, 0.0]]),
        old_logprobs_BT=torch.full((2, 3), -1.0, requires_grad=True),
        ref_logprobs_BT=torch.full((2, 3), -1.0 - math.log(2)),
        kl_coefficients_B1=torch.ones(2, 1),
        rewards=Rewards.of_one_group([1.0, 1.0]),
        slots_B=tensor([0, 1]),
    )
    # penalties 2 x and x: advantages -x/2 and x/2
    made, x = objective.penalised(of).advantages_B1, math.log(2) - 0.5
    assert_close(made, tensor([[-x / 2], [x / 2]]))
    assert not made.requires_grad


def test_only_a_penalty_that_counts_and_is_in_the_reward_is_a_penalty_in_the_reward():
    assert not GRPO.kl_in_reward
    assert not replace(GRPO, kl=kl.KL(kl.k3, 1.0)).kl_in_reward
    assert not replace(GRPO, kl=kl.KL(kl.k3, 0.0, place="reward")).kl_in_reward


def test_the_start_is_the_reference_where_no_other_is_named_and_the_term_counts():
    assert replace(GRPO, kl=kl.KL(kl.k3, 0.1)).start_is_reference
    for none in (None, kl.KL(kl.k3, 0.0), kl.KL(kl.k3, 0.1, reference="other")):
        assert not replace(GRPO, kl=none).start_is_reference


def test_a_kl_penalty_in_the_reward_is_not_in_the_loss_too():
    objective = replace(GRPO, kl=kl.KL(kl.k3, 1.0, place="reward"))
    of = batch(ref_logprobs_BT=torch.full((2, 3), -2.0), kl_coefficients_B1=torch.ones(2, 1))
    assert_close(value_and_gradient(objective, RHO.log(), of), value_and_gradient(GRPO, RHO.log(), of))
    assert objective.kl_in_reward and objective.needs_reference
    assert "policy/kl_ref" in objective.loss(RHO.log(), of)[1].means()


def test_a_penalty_finds_its_completion_in_groups_of_different_sizes():
    term = kl.KL(kl.k1, 1.0, place="reward")
    objective = replace(GRPO, advantage=advantages.center, kl=term)
    groups = [group([1.0, 0.0]), group([1.0, 0.0, None, 1.0])]
    of = collate(groups, objective, {"math": 1.0})
    old = torch.zeros_like(of.mask_BT)
    ref = old - tensor([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])[:, None]  # three tokens each: penalties 0.3 .. 1.8
    made = objective.penalised(replace(of, old_logprobs_BT=old, ref_logprobs_BT=ref)).advantages_B1[:, 0]
    rewards = tensor([1.0 - 0.3, 0.0 - 0.6, 1.0 - 0.9, 0.0 - 1.2, 0.0, 1.0 - 1.8])
    first, rest = rewards[:2].mean(), rewards[[2, 3, 5]].mean()
    assert_close(made, tensor([*(rewards[:2] - first), rewards[2] - rest, rewards[3] - rest, 0.0, rewards[5] - rest]))


def test_a_truncated_completion_that_is_not_trained_on_pays_the_penalty_that_is_in_its_groups_mean():
    term = kl.KL(kl.k1, 1.0, place="reward")
    objective = replace(GRPO, advantage=advantages.center, kl=term, train_on_truncated=False)
    trio = [completion(), completion(stop_reason="length"), completion((1, 2, 3), (True, False, True))]
    of = collate([group([1.0, 0.0, 0.0], trio), group([None, 1.0, 0.0], trio)], objective, {"math": 1.0})
    assert of.mask_BT.sum(1).tolist() == [3, 0, 2, 0, 0, 2] and of.scored_BT.sum(1).tolist() == [3, 3, 2, 0, 3, 2]
    old = torch.zeros_like(of.mask_BT)
    made = objective.penalised(replace(of, old_logprobs_BT=old, ref_logprobs_BT=old - 0.1)).advantages_B1[:, 0]
    # 1 - 0.3, 0 - 0.3 and 0 - 0.2: mean 1/15; 1 - 0.3 and 0 - 0.2: mean 1/4
    assert_close(made, tensor([0.7 - 1 / 15, -0.3 - 1 / 15, -0.2 - 1 / 15, 0.0, 0.45, -0.45]))


def test_only_a_penalty_in_the_reward_asks_for_logprobs_of_what_is_not_trained_on():
    pair = [completion(), completion(stop_reason="length")]
    for objective in (GRPO, replace(GRPO, kl=kl.KL(kl.k3, 1.0))):
        of = collate([group([1.0, 0.0], pair)], replace(objective, train_on_truncated=False), {"math": 1.0})
        assert of.scored_BT is of.mask_BT


# ---- what the slots see ----------------------------------------------------------------------------------------------


def test_every_slot_sees_its_tensors_and_zeros_where_nothing_is_trained_on():
    seen = {}

    def spied(name, function):
        def call(*arguments):
            seen[name] = arguments
            return function(*arguments)

        return call

    off, nan = MASK == 0, math.nan
    of = batch(
        old_logprobs_BT=torch.full((2, 3), -2.0),
        rollout_logprobs_BT=torch.full((2, 3), -2.5),
        ref_logprobs_BT=torch.full((2, 3), -4.0).masked_fill(off, nan),
        kl_coefficients_B1=torch.full((2, 1), 0.1),
    )
    objective = replace(
        GRPO,
        ratio=spied("ratio", ratios.token),
        surrogate=spied("surrogate", GRPO.surrogate),
        correction=spied("correction", corrections.token_truncate),
        kl=kl.KL(spied("kl", kl.k3), 0.1),
    )
    objective.loss(torch.full((2, 3), -1.0).masked_fill(off, nan), of)
    # log pi, pi_old, pi_rollout, pi_ref are -1, -2, -2.5, -4
    log_ratio_BT, advantages_B1 = 1.0 * MASK, tensor([[1.0], [-1.0]])
    assert_close(seen["ratio"], (log_ratio_BT, MASK))
    assert_close(seen["surrogate"], (log_ratio_BT, advantages_B1, -1.0 * MASK))
    assert_close(seen["kl"], (-1.0 * MASK, -4.0 * MASK, log_ratio_BT))
    mismatch = seen["correction"][0]
    assert_close(mismatch.delta_BT, 0.5 * MASK)
    assert_close(mismatch.drift_BT, 1.5 * MASK)
    assert_close((mismatch.mask_BT, mismatch.advantages_B1), (MASK, advantages_B1))


@pytest.mark.parametrize(("far", "bound"), [(1e4, 20.0), (-1e4, -20.0)])
def test_what_a_correction_sees_is_bounded(far, bound):
    seen = []
    objective = replace(GRPO, correction=lambda mismatch: seen.append(mismatch) or torch.ones_like(mismatch.delta_BT))
    one = torch.ones(1, 1)
    objective.loss(0 * one, batch(one, one, rollout_logprobs_BT=-far * one))
    assert seen[0].delta_BT.tolist() == seen[0].drift_BT.tolist() == [[bound]]


def test_a_step_without_groups_has_no_advantages():
    none = Rewards(torch.zeros(0, 1, 1), torch.ones(1), torch.ones(0, 1, dtype=torch.bool))
    assert replace(GRPO, whitening=advantages.whiten).advantages(none).shape == (0, 1)


def test_without_a_gradient_no_token_is_clipped():
    one = torch.ones(1, 1)
    clipped_BT = without_gradient(one, one, one, one)
    assert clipped_BT.dtype == torch.bool and not clipped_BT.any()
