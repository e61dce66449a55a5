"""A batch reaches the ranks as it was, without its padding."""

import pickle
from dataclasses import fields, replace
from functools import partial

import torch
from hypothesis import given
from hypothesis import strategies as st

from rlvr.cluster.batches import received, send
from rlvr.collate import collate
from rlvr.objective import Batch, Objective, advantages, kl, ratios, surrogates, weightings
from rlvr.types import Completion, Group
from tests.builders import prompt, verdict

PENALTY = Objective(
    advantages.center, ratios.token, partial(surrogates.clip, low=0.2, high=0.2), weightings.sequence_mean,
    kl=kl.KL(kl.k1, 0.1, place="reward"), keep_sampling_mask=True,
)  # fmt: skip


@st.composite
def completions(draw) -> Completion:
    ids = draw(st.lists(st.integers(0, 2**31 - 1), max_size=6))
    kept = tuple(draw(st.sampled_from([(), (token,), (token, 1, 2)])) for token in ids)
    mask = draw(st.lists(st.booleans(), min_size=len(ids), max_size=len(ids)))
    return Completion(ids, mask, [-0.5] * len(ids), 0, "", draw(st.sampled_from(["eos", "length"])), kept)


@st.composite
def groups(draw) -> Group:
    some = tuple(draw(st.lists(completions(), min_size=1, max_size=4)))
    rewards = [draw(st.sampled_from([None, 0.0, 1.0])) for _ in some]
    asked = prompt(token_ids=draw(st.lists(st.integers(1, 9), min_size=1, max_size=5)))
    return Group(asked, some, tuple(map(verdict, rewards)))


def alike(one, other) -> bool:
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if hasattr(one, "valid_NG"):
        return all(alike(getattr(one, f.name), getattr(other, f.name)) for f in fields(one))
    return one == other


@given(st.lists(groups(), max_size=4), st.booleans())
def test_every_tensor_arrives_as_it_was_whatever_the_lengths(made, old):
    batch = collate(made, PENALTY, {"math": 1.0})
    if old:
        inside_BT = torch.arange(batch.token_ids_BT.shape[1]) < batch.lengths_B[:, None]
        batch = replace(batch, old_logprobs_BT=torch.rand(batch.token_ids_BT.shape) * inside_BT)
    found = received(pickle.loads(pickle.dumps(send(batch))))
    assert [f.name for f in fields(Batch) if not alike(getattr(batch, f.name), getattr(found, f.name))] == []


def test_padding_does_not_travel():
    """One completion of 10,000 tokens, and 7 of 10: of the padded tensors seven eighths are padding."""
    lengths = [10_000] + [10] * 7
    made = tuple(Completion((5,) * n, (True,) * n, (0.0,) * n, 0, "", "eos") for n in lengths)
    batch = collate([Group(prompt(token_ids=(4, 4)), made, (verdict(1.0), verdict(0.0)) * 4)], PENALTY, {"math": 1.0})
    sent = send(batch)
    assert {len(x) for x in sent.of_tokens.values()} == {sum(lengths) + 8 * 2}
    assert not [name for name, x in sent.others.items() if isinstance(x, torch.Tensor) and x.numel() > 8]
