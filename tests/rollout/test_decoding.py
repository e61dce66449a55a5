"""Our attention and cache say what transformers' own say."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.cache_utils import DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from rlvr.rollout.decoding import NAME, ROOM, Context, RoomyLayer, attention, prepare


@pytest.mark.parametrize("heads", [1, 2, 6])
@pytest.mark.parametrize("masked", [False, True])
def test_one_token_a_row_attends_as_with_a_copy_of_each_key_for_each_head(heads, masked):
    torch.manual_seed(0)
    key, value = torch.randn(5, 2, 7, 8), torch.randn(5, 2, 7, 4)
    query = torch.randn(5, 2 * heads, 1, 8)
    mask = torch.rand(5, 1, 1, 7) < 0.6 if masked else None
    if mask is not None:
        mask[..., -1] = True
    module = torch.nn.Module()
    module.num_key_value_groups, module.is_causal = heads, True
    ours, _ = attention(module, query, key, value, mask, scaling=0.3)
    theirs, _ = sdpa_attention_forward(module, query, key, value, mask, scaling=0.3)
    torch.testing.assert_close(ours, theirs)


@given(st.lists(st.one_of(st.integers(1, 2 * ROOM), st.lists(st.integers(0, 2), min_size=3, max_size=3)), max_size=12))
def test_a_layer_with_room_holds_what_any_layer_holds(changes):
    """A number: so many columns more; a list: these rows from now on."""
    torch.manual_seed(0)
    ours, theirs = RoomyLayer(), DynamicLayer()
    for change in changes:
        if isinstance(change, int):
            keys, values = torch.randn(3, 2, change, 4), torch.randn(3, 2, change, 5)
            for a, b in zip(ours.update(keys, values), theirs.update(keys, values), strict=True):
                assert torch.equal(a, b)
        else:
            for layer in (ours, theirs):
                layer.batch_select_indices(torch.tensor(change))
        assert ours.get_seq_length() == theirs.get_seq_length()


def test_a_column_is_written_without_a_copy_of_the_others():
    layer = RoomyLayer()
    first, _ = layer.update(torch.zeros(1, 1, 3, 2), torch.zeros(1, 1, 3, 2))
    for _ in range(ROOM):
        keys, _ = layer.update(torch.ones(1, 1, 1, 2), torch.ones(1, 1, 1, 2))
    assert keys.data_ptr() == first.data_ptr() and keys.shape[2] == 3 + ROOM


def test_positions_count_what_is_no_padding():
    context = Context(torch.empty(2, 0, dtype=torch.int64))
    assert context.add(torch.tensor([[0, 0, 1], [1, 1, 1]])).tolist() == [[0, 0, 0], [0, 1, 2]]
    context.take(torch.tensor([1, 0, 0]))
    assert context.add(torch.ones(3, 1, dtype=torch.int64)).tolist() == [[3], [1], [1]]


def test_a_model_with_attention_of_its_own_keeps_it():
    from transformers import Qwen3Config, Qwen3ForCausalLM

    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "head_dim": 4}
    for given_name, name in (("eager", "eager"), ("sdpa", NAME)):
        config = Qwen3Config(vocab_size=7, num_key_value_heads=1, attn_implementation=given_name, **sizes)
        model = Qwen3ForCausalLM(config)
        prepare(model)
        assert model.config._attn_implementation == name
