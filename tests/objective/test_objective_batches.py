"""Batches that can be cut, moved and sent."""

import pickle
from dataclasses import FrozenInstanceError, replace

import pytest
import torch
from torch import tensor
from torch.testing import assert_close

from rlvr.objective import Batch, Rewards, Statistics, kl
from rlvr.objective.weightings import token_mean
from tests.objective.test_objective import GRPO, RHO, batch


def test_rows_are_cut_to_their_longest():
    whole = batch(lengths_B=tensor([2, 3]), ref_logprobs_BT=RHO)
    first = whole.rows([0])
    assert len(first) == 1
    assert first.token_ids_BT.tolist() == [[0, 1]] and first.ref_logprobs_BT.shape == first.weights_BT.shape == (1, 2)
    assert first.advantages_B1.tolist() == [[1.0]] and first.lengths_B.tolist() == [2]
    both = whole.rows([1, 0])
    assert both.token_ids_BT.tolist() == [[3, 4, 5], [0, 1, 2]] and both.advantages_B1.tolist() == [[-1.0], [1.0]]
    assert whole.rows(slice(1, 2)).token_ids_BT.tolist() == [[3, 4, 5]]


def test_no_rows_are_a_batch_too():
    nothing = batch().rows([])
    assert len(nothing) == 0 and nothing.token_ids_BT.shape == (0, 0)


def test_a_batch_goes_to_a_device_whole():
    moved = batch(rewards=Rewards.of_one_group([1.0, 0.0])).to("meta")
    assert {moved.mask_BT.device.type, moved.old_logprobs_BT.device.type, moved.lengths_B.device.type} == {"meta"}
    assert moved.rewards is not None


def test_rows_leave_the_rewards_of_the_groups_behind():
    assert batch(rewards=Rewards.of_one_group([1.0, 0.0])).rows([0]).rewards is None


def test_records_are_frozen_and_slotted():
    for record, name in ((batch(), "mask_BT"), (GRPO, "kl")):
        with pytest.raises(FrozenInstanceError):
            setattr(record, name, None)
    assert not hasattr(batch(), "__dict__") and not hasattr(Statistics(), "__dict__")


def test_an_objective_says_what_it_asks_for_only_where_a_recipe_does():
    assert (GRPO.no_signal, GRPO.train_on_truncated) == ("drop", True)
    assert (GRPO.count_masked, GRPO.keep_sampling_mask) == (False, False)


def test_what_a_batch_does_not_have_stays_absent():
    assert batch(old_logprobs_BT=None).rows([0]).old_logprobs_BT is None
    assert batch().to("cpu").ref_logprobs_BT is None


def test_bare_tokens_score_every_token_but_the_first():
    made = Batch.of_tokens(tensor([[4, 5, 6], [7, 8, 9]]))
    assert made.token_ids_BT.tolist() == [[4, 5, 6], [7, 8, 9]]
    assert made.lengths_B.tolist() == [3, 3]
    for scored_BT in (made.mask_BT, made.counted_BT):
        assert_close(scored_BT, tensor([[0.0, 1.0, 1.0]] * 2))
    for nothing_BT in (made.weights_BT, made.rollout_logprobs_BT):
        assert_close(nothing_BT, torch.zeros(2, 3))
    for nothing_B1 in (made.advantages_B1, made.kl_coefficients_B1):
        assert_close(nothing_B1, torch.zeros(2, 1))


def test_an_objective_survives_the_trip_to_an_actor():
    objective = replace(GRPO, kl=kl.KL(kl.k3, {"math": 0.1}), weighting=token_mean)
    loss, _ = pickle.loads(pickle.dumps(objective)).loss(RHO.log(), batch(ref_logprobs_BT=RHO))
    assert_close(loss, objective.loss(RHO.log(), batch(ref_logprobs_BT=RHO))[0])
