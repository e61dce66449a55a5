"""Groups become tensors: tokens, masks and advantages land in the right row and column, in order."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import tensor
from torch.testing import assert_close

from rlvr.collate import collate, kept, padded, rewards_of
from rlvr.objective import Objective, advantages, kl, ratios, shaping, surrogates, weightings
from rlvr.types import Group, Outcome, Verdict
from tests.builders import completion, group, prompt, verdict

MATH = {"math": 1.0}
GRPO = Objective(
    partial(advantages.standardize, eps=0.0), ratios.token, partial(surrogates.clip, low=0.2, high=0.2),
    weightings.sequence_mean,
)  # fmt: skip
CENTER = replace(GRPO, advantage=advantages.center)


def test_tokens_masks_and_logprobs_stand_behind_their_prompt():
    made = group(
        [1.0, 0.0],
        [completion((7, 8, 2), (True, False, True), (-0.1, 0.0, -0.3)), completion((9,), (True,), (-0.5,))],
        prompt(token_ids=(4, 5)),
    )
    batch = collate([made], GRPO, MATH)
    assert batch.token_ids_BT.tolist() == [[4, 5, 7, 8, 2], [4, 5, 9, 0, 0]]
    assert batch.mask_BT.tolist() == [[0, 0, 1, 0, 1], [0, 0, 1, 0, 0]]
    assert_close(batch.rollout_logprobs_BT, tensor([[0.0, 0.0, -0.1, 0.0, -0.3], [0.0, 0.0, -0.5, 0.0, 0.0]]))
    assert batch.lengths_B.tolist() == [5, 3] and batch.prompts_B.tolist() == [2, 2]
    # B = 2 completions with two and one trained tokens
    assert_close(batch.weights_BT, tensor([[0, 0, 1 / 4, 0, 1 / 4], [0, 0, 1 / 2, 0, 0]]))
    assert batch.token_ids_BT.dtype == torch.int64 and batch.advantages_B1.dtype == torch.float32


def test_nothing_in_a_fresh_batch_claims_to_be_old_or_reference_logprobs():
    batch = collate([group([1.0, 0.0])], GRPO, MATH)
    assert batch.old_logprobs_BT is None and batch.ref_logprobs_BT is None


def test_each_group_is_its_own_baseline():
    # [1, 0, 0, 0] -> 1.5, -0.5 x3; [1, 0] -> mean 1/2, sample std sqrt(1/2): +-sqrt(1/2); in the order of the groups
    batch = collate([group([1.0, 0.0, 0.0, 0.0]), group([0.0, 1.0])], GRPO, MATH)
    half = 0.5**0.5
    assert_close(batch.advantages_B1, tensor([[1.5], [-0.5], [-0.5], [-0.5], [-half], [half]]))


def test_a_completion_without_a_reward_leaves_mean_std_count_and_loss():
    # [1, -, 0] is [1, 0]; the middle row stays in its place and weighs nothing
    batch = collate([group([1.0, None, 0.0])], GRPO, MATH)
    half = 0.5**0.5
    assert_close(batch.advantages_B1, tensor([[half], [0.0], [-half]]))
    assert batch.mask_BT.any(1).tolist() == [True, False, True]
    assert_close(batch.weights_BT.sum(1), tensor([1 / 2, 0.0, 1 / 2]))
    assert len(batch) == 3


def test_an_error_is_never_a_reward_of_zero():
    verdicts = (verdict(1.0), Verdict(None, Outcome.ERROR), Verdict(None, Outcome.ABSTAIN))
    batch = collate([Group(prompt(), tuple(completion() for _ in verdicts), verdicts)], CENTER, MATH)
    assert not batch.mask_BT.any() and not batch.advantages_B1.any() and not batch.weights_BT.any()


def test_a_rejection_is_a_reward():
    verdicts = (verdict(1.0), Verdict(0.0, Outcome.REJECTED, {"math": 0.0}))
    batch = collate([Group(prompt(), (completion(), completion()), verdicts)], CENTER, MATH)
    assert_close(batch.advantages_B1, tensor([[0.5], [-0.5]]))


def test_count_masked_counts_completions_that_are_not_trained_on():
    groups = [group([1.0, None, 0.0, 0.0])]
    counted = collate(groups, replace(CENTER, count_masked=True), MATH)
    assert_close(counted.weights_BT.sum(1), tensor([1 / 4, 0.0, 1 / 4, 1 / 4]))
    assert_close(collate(groups, CENTER, MATH).weights_BT.sum(1), tensor([1 / 3, 0.0, 1 / 3, 1 / 3]))


def test_truncated_completions_keep_their_reward_and_may_be_left_out_of_the_loss():
    cut = completion(stop_reason="length")
    groups = [group([1.0, 0.0, 0.0], [completion(), cut, completion()])]
    both = collate(groups, CENTER, MATH), collate(groups, replace(CENTER, train_on_truncated=False), MATH)
    for batch in both:
        assert_close(batch.advantages_B1, tensor([[2 / 3], [-1 / 3], [-1 / 3]]))
    assert [b.mask_BT.any(1).tolist() for b in both] == [[True, True, True], [True, False, True]]
    assert_close(both[1].weights_BT.sum(1), tensor([1 / 2, 0.0, 1 / 2]))


def test_reward_parts_are_weighted_by_name():
    verdicts = (verdict(0.0, {"format": 1.0, "math": 0.0}), verdict(0.0, {"math": 1.0, "format": 0.0, "extra": 9.0}))
    groups = [Group(prompt(), (completion(), completion()), verdicts)]
    rewards = rewards_of(groups, {"math": 0.9, "format": 0.1})
    assert_close(rewards.total_NG, tensor([[0.1, 0.9]], dtype=torch.float64))
    assert rewards.weights_K.dtype == torch.float64  # the 0.1 of float32 is another one
    # mean 0.5
    assert_close(collate(groups, CENTER, {"math": 0.9, "format": 0.1}).advantages_B1, tensor([[-0.4], [0.4]]))


def test_a_part_of_weight_zero_does_not_train():
    verdicts = (verdict(0.0, {"math": 1.0, "length": 7.0}), verdict(0.0, {"math": 1.0, "length": 1.0}))
    groups = [Group(prompt(), (completion(), completion()), verdicts)]
    assert not collate(groups, CENTER, {"math": 1.0, "length": 0.0}).advantages_B1.any()


def test_a_part_of_weight_zero_that_no_verifier_could_judge_is_simply_absent():
    """It has no say in the reward, so its verdict has neither a value for it nor a reason to mask the completion."""
    verdicts = (verdict(1.0, {"math": 1.0, "length": 7.0}), verdict(0.0, {"math": 0.0}))
    groups = [Group(prompt(), (completion(), completion()), verdicts)]
    batch = collate(groups, CENTER, {"math": 1.0, "length": 0.0})
    assert_close(batch.advantages_B1, tensor([[0.5], [-0.5]]))
    assert rewards_of(groups, {"math": 1.0, "length": 0.0}).parts_NGK.tolist() == [[[1.0, 7.0], [0.0, 0.0]]]


def test_a_part_that_counts_must_be_there():
    groups = [Group(prompt(), (completion(), completion()), (verdict(1.0), verdict(0.0)))]
    with pytest.raises(KeyError, match="format"):
        rewards_of(groups, {"math": 1.0, "format": 0.1})


def test_ragged_groups_are_padded_with_what_is_not_valid():
    rewards = rewards_of([group([1.0, 0.0]), group([1.0, 1.0, 1.0])], MATH)
    assert rewards.valid_NG.tolist() == [[True, True, False], [True, True, True]]
    assert rewards.total_NG.tolist() == [[1.0, 0.0, 0.0], [1.0, 1.0, 1.0]]


def test_shaping_counts_the_tokens_that_the_policy_sampled():
    # max 4, buffer half: 0 up to 2 tokens, -1/2 at 3, -1 at 4. Lengths 4 and 2, the second one with two of a tool
    shaped = replace(CENTER, shaping=partial(shaping.overlong, max_tokens=4, buffer=0.5))
    pair = [completion((1, 2, 3, 4)), completion((1, 2, 3, 4), (True, False, False, True))]
    # rewards 1 - 1 = 0 and 1: mean 1/2
    assert_close(collate([group([1.0, 1.0], pair)], shaped, MATH).advantages_B1, tensor([[-0.5], [0.5]]))


def test_shaping_does_not_give_a_reward_to_what_has_none():
    shaped = replace(CENTER, shaping=partial(shaping.overlong, max_tokens=4, buffer=0.5))
    trio = [completion((1, 2, 3, 4)), completion((1,)), completion((1,))]
    batch = collate([group([None, 1.0, 0.0], trio)], shaped, MATH)
    assert_close(batch.advantages_B1, tensor([[0.0], [0.5], [-0.5]]))


def test_every_completion_gets_the_kl_coefficient_of_its_domain():
    objective = replace(GRPO, kl=kl.KL(kl.k3, {"chat": 0.04}))
    groups = [group([1.0, 0.0], of=prompt(domain="chat")), group([1.0, 0.0], of=prompt(domain="math"))]
    assert_close(collate(groups, objective, MATH).kl_coefficients_B1, tensor([[0.04], [0.04], [0.0], [0.0]]))
    assert not collate(groups, GRPO, MATH).kl_coefficients_B1.any()
    whole = collate(groups, replace(GRPO, kl=kl.KL(kl.k3, 1)), MATH).kl_coefficients_B1
    assert_close(whole, torch.ones(4, 1))  # floats, also where the recipe says 1


def test_an_empty_completion_weighs_nothing():
    batch = collate([group([0.0, 1.0], [completion(()), completion((7,))])], GRPO, MATH)
    assert batch.lengths_B.tolist() == [2, 3]
    assert_close(batch.weights_BT.sum(1), tensor([0.0, 1.0]))


@pytest.mark.parametrize("weighting", ["sequence_mean", "token_mean"])
def test_a_step_whose_groups_were_all_dropped_is_an_empty_batch(weighting):
    """A policy that solves every prompt of a step leaves nothing to learn, and no reason to crash."""
    objective = replace(
        GRPO, weighting=getattr(weightings, weighting), train_on_truncated=False, keep_sampling_mask=True
    )
    batch = collate([], objective, MATH)
    assert len(batch) == 0 and batch.lengths_B.dtype == torch.int64 and batch.kept_BTC is None
    assert batch.prompts_B.dtype == torch.int64
    loss, _ = objective.loss(batch.rollout_logprobs_BT, batch)
    assert loss == 0


def test_padded_fills_with_zeros_behind():
    assert padded([[1, 2, 3], [], [4]], torch.int64).tolist() == [[1, 2, 3], [0, 0, 0], [4, 0, 0]]
    assert len(padded([], torch.float32)) == 0
    assert padded([[0.1], []], torch.float64).tolist() == [[0.1], [0.0]]  # not the 0.1 of float32


ids, floats = st.integers(0, 2**31 - 1), st.floats(allow_nan=True, allow_infinity=True)
KINDS = [(torch.int64, st.integers(-(2**63), 2**63 - 1)), (torch.bool, st.booleans()),
         (torch.float32, floats | st.booleans()), (torch.float64, floats | st.integers(0, 2**53))]  # fmt: skip


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
@given(data=st.data(), kind=st.sampled_from(KINDS))
def test_padded_holds_what_a_tensor_of_each_row_would(data, kind):
    """To the last bit, whatever the rows hold."""
    dtype, values = kind
    rows = data.draw(st.lists(st.lists(values, max_size=5), max_size=5))
    out = padded(rows, dtype)
    assert out.dtype == dtype and out.shape == (len(rows), max(map(len, rows), default=1))
    for got, row in zip(out, rows, strict=True):
        behind = torch.zeros(len(got) - len(row), dtype=dtype)
        assert_close(got, torch.cat([torch.tensor(row, dtype=dtype), behind]), rtol=0, atol=0, equal_nan=True)


@given(made=st.lists(st.tuples(st.integers(0, 3), st.none() | st.lists(st.lists(ids, max_size=4), max_size=4))))
def test_of_each_token_what_was_left_stands_in_its_place(made):
    pairs, longest = [], 0
    for length, left in made:
        of = completion([1] * len(left or ()))
        object.__setattr__(of, "kept_ids", left)  # also what no engine says: the token itself is not among them
        pairs.append((prompt(token_ids=(2,) * length), of))
        longest = max([longest, *map(len, left or ())])
    out = kept(pairs, 8)
    if not longest:
        assert out is None
        return
    wanted = torch.full((len(pairs), 8, longest), -1, dtype=torch.int32)
    for b, (length, left) in enumerate(made):
        for t, row in enumerate(left or (), length):
            wanted[b, t, : len(row)] = tensor(row, dtype=torch.int32)
    assert out.dtype == torch.int32 and torch.equal(out, wanted)


def test_what_was_left_to_sample_from_travels_only_where_it_is_wanted():
    cut = replace(completion([7, 8]), kept_ids=((7, 3, 4), (8,)))
    of = group([1.0, 0.0], [cut, completion([5])], prompt(token_ids=[1]))
    keeping = replace(GRPO, keep_sampling_mask=True)
    assert collate([of], GRPO, MATH).kept_BTC is None
    assert collate([group([1.0, 0.0])], keeping, MATH).kept_BTC is None
    none = [-1, -1, -1]
    kept = collate([of], keeping, MATH).kept_BTC
    assert kept.tolist() == [[none, [7, 3, 4], [8, -1, -1]], [none, none, none]] and kept.dtype == torch.int32
    assert collate([of], keeping, MATH).rows([1]).kept_BTC.tolist() == [[none, none]]


def test_rewards_travel_only_where_a_penalty_will_be_taken_from_them():
    objective = replace(CENTER, kl=kl.KL(kl.k1, 0.1, place="reward"))
    groups = [group([1.0, 0.0]), group([0.0, None, 1.0])]
    batch = collate(groups, objective, MATH)
    assert batch.rewards.total_NG.tolist() == [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    for none in (CENTER, replace(CENTER, kl=kl.KL(kl.k1, 0.1)), replace(CENTER, kl=kl.KL(kl.k1, 0.0, place="reward"))):
        assert collate(groups, none, MATH).rewards is None


def test_every_row_knows_its_place_among_the_rewards():
    # two rows of three places: the third of the first is padding
    assert collate([group([1.0, 0.0]), group([0.0, None, 1.0])], CENTER, MATH).slots_B.tolist() == [0, 1, 3, 4, 5]


def test_a_penalty_in_the_reward_is_of_every_token_of_a_completion_with_a_reward():
    """Truncated ones that are not trained on are penalised too; masked ones are not, nor is anything without it."""
    cut = completion((7, 8), stop_reason="length")
    completions = [completion((7, 8, 2), (True, False, True)), cut, completion()]
    made = group([1.0, 0.0, None], completions, prompt(token_ids=(4,)))
    objective = replace(GRPO, kl=kl.KL(kl.k1, 0.1, place="reward"), train_on_truncated=False)
    batch = collate([made], objective, MATH)
    assert batch.penalised_BT.tolist() == [[0, 1, 0, 1], [0, 1, 1, 0], [0, 0, 0, 0]]
    assert batch.mask_BT.tolist() == [[0, 1, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert collate([made], GRPO, MATH).penalised_BT is None
