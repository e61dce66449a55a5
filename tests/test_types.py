"""The records refuse what cannot be; seeds depend on the place in the run and on nothing else."""

import math
import pickle
import sys
from array import array
from dataclasses import FrozenInstanceError, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr.types import DETAIL_LIMIT, Group, Outcome, Provenance, Verdict, sampling_seed
from tests.builders import completion, group, prompt, verdict


@pytest.mark.parametrize("field", ["loss_mask", "rollout_logprobs"])
def test_a_completion_with_lists_of_different_lengths_is_refused(field):
    with pytest.raises(ValueError, match=r"differ in length: \[2, 3\]"):
        replace(completion((7, 8, 2)), **{field: (0, 0)})


def test_a_completion_may_be_empty():
    assert len(completion(()).token_ids) == 0


def test_a_completion_is_the_same_whatever_sequences_it_is_made_of():
    made = completion((7, 8, 2), (True, False, True), (-0.5, 0.0, -1.5))
    again = replace(made, token_ids=[7, 8, 2], loss_mask=[1, 0, 1], rollout_logprobs=[-0.5, 0, -1.5])
    assert again == made and hash(again) == hash(made) and made.length == 2
    assert made != replace(made, token_ids=(7, 8, 3))
    assert replace(made, token_ids=array("q", [7, 8, 2])).token_ids.typecode == made.token_ids.typecode


def test_a_token_takes_few_bytes_wherever_a_completion_goes():
    """A step has millions: four for its id, four for its logprob, one for the mask."""
    made = [replace(completion(range(n)), text="") for n in (10_000, 20_000)]
    assert len(pickle.dumps(made[1])) - len(pickle.dumps(made[0])) == pytest.approx(90_000, abs=100)
    assert sum(sys.getsizeof(x) for x in (made[1].token_ids, made[1].loss_mask, made[1].rollout_logprobs)) < 200_000


@pytest.mark.parametrize("outcome", [Outcome.OK, Outcome.REJECTED])
@pytest.mark.parametrize("reward", [None, math.nan, math.inf, -math.inf])
def test_a_trainable_verdict_needs_a_finite_reward(outcome, reward):
    with pytest.raises(ValueError, match="finite exactly when ok or rejected"):
        Verdict(reward, outcome)


@pytest.mark.parametrize("outcome", [Outcome.ABSTAIN, Outcome.ERROR])
@pytest.mark.parametrize("reward", [0.0, 1.0])
def test_an_error_or_an_abstention_is_never_a_reward(outcome, reward):
    with pytest.raises(ValueError, match="finite exactly when ok or rejected"):
        Verdict(reward, outcome)


def test_who_gave_verdicts_can_be_told_apart_in_a_set():
    same = Provenance("math", parts={"digits": 1.0})
    assert {same, Provenance("math", parts={"digits": 1.0}), Provenance("math"), Provenance("regex")} == {
        same, Provenance("math"), Provenance("regex"),
    }  # fmt: skip


def test_only_ok_and_rejected_are_trainable():
    verdicts = [Verdict(1.0, Outcome.OK), Verdict(0.0, Outcome.REJECTED)]
    verdicts += [Verdict(None, Outcome.ABSTAIN), Verdict(None, Outcome.ERROR)]
    assert [v.trainable for v in verdicts] == [True, True, False, False]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_reward_part_must_be_finite(value):
    with pytest.raises(ValueError, match="parts must be finite"):
        Verdict(1.0, Outcome.OK, {"math": 1.0, "format": value})


def test_a_long_detail_is_cut_to_the_limit_and_says_so():
    kept = Verdict(1.0, Outcome.OK, detail="x" * DETAIL_LIMIT).detail
    cut = Verdict(1.0, Outcome.OK, detail="x" * (DETAIL_LIMIT + 1)).detail
    assert kept == "x" * DETAIL_LIMIT
    assert cut == "x" * (DETAIL_LIMIT - 3) + "..."


def test_a_group_is_as_old_as_its_oldest_completion():
    made = group([1.0, 0.0, 0.0], [completion(policy_version=v) for v in (5, 3, 4)])
    assert made.policy_version == 3


def test_records_are_frozen_and_survive_pickling():
    made = group([1.0, None])
    with pytest.raises(FrozenInstanceError):
        made.verdicts = ()  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(made)) == made


def test_a_stage_returns_a_new_group():
    bare = Group(prompt(), (completion(), completion()))
    judged = replace(bare, verdicts=(verdict(1.0), verdict(0.0)))
    assert bare.verdicts == () and [v.reward for v in judged.verdicts] == [1.0, 0.0]


@settings(max_examples=50, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**40), position=st.integers(0, 2**40), index=st.integers(0, 1000))
def test_a_sampling_seed_is_a_function_of_its_place_and_fits_in_63_bits(seed, position, index):
    made = sampling_seed(seed, position, index)
    assert made == sampling_seed(seed, position, index)
    assert 0 <= made < 2**63


def test_neighbouring_places_share_no_seed():
    seeds = {sampling_seed(s, p, c) for s in range(10) for p in range(50) for c in range(16)}
    assert len(seeds) == 10 * 50 * 16


def test_neighbouring_seeds_differ_in_about_half_of_their_bits():
    pairs = [(sampling_seed(0, p, c), sampling_seed(0, p, c + 1)) for p in range(50) for c in range(8)]
    flipped = [(a ^ b).bit_count() for a, b in pairs]
    assert 28 < sum(flipped) / len(flipped) < 35  # of 63


def test_sampling_seeds_never_change_between_releases():
    """A run resumed under a newer release must draw the same completions."""
    assert [sampling_seed(0, 0, 0), sampling_seed(1, 2, 3)] == [3119036373970289394, 5496248585408465580]


def test_a_token_must_be_among_those_it_was_sampled_from():
    made = replace(completion([7, 8, 9], [True, False, True]), kept_ids=((7, 3), (), (9,)))  # the second is tool output
    assert made.kept_ids == ((7, 3), (), (9,))
    with pytest.raises(ValueError, match="token 9 at 2 is not among"):
        replace(made, kept_ids=((7,), (), (3, 4)))
    with pytest.raises(ValueError):
        replace(made, kept_ids=((7,), ()))
