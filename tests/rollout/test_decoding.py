"""Our attention and cache say what transformers' own say."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.cache_utils import DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from rlvr.config import RecipeError
from rlvr.rollout.decoding import NAME, ROOM, Context, attention, prepare

TINY = str(Path(__file__).resolve().parents[2] / "recipes" / "tiny")


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


@given(st.integers(1, ROOM), st.lists(st.one_of(st.none(), st.lists(st.integers(0, 2), min_size=3, max_size=3)),
                                      max_size=3 * ROOM))  # fmt: skip
def test_a_layer_with_room_holds_what_any_layer_holds(prompt, changes):
    """None: one column more; a list: these rows from now on."""
    torch.manual_seed(0)
    context, theirs = Context(torch.ones(3, prompt, dtype=torch.int64)), DynamicLayer()

    def read(columns: int) -> None:
        keys, values = torch.randn(3, 2, columns, 4), torch.randn(3, 2, columns, 5)
        ours = context.cache.update(keys, values, 0)
        for a, b in zip(ours, theirs.update(keys, values), strict=True):
            used = b.shape[2]
            assert torch.equal(a[:, :, :used], b) and not a[:, :, used:].any()
            assert used == context.used and a.shape[2] == context.mask_BR.shape[1]
            assert context.mask_BR[:, :used].all() and not context.mask_BR[:, used:].any()

    read(prompt)
    for rows in changes:
        if rows is None:
            context.add()
            assert context.cache.get_seq_length() == theirs.get_seq_length()  # before the column is read
            read(1)
        else:
            context.take(torch.tensor(rows))
            theirs.batch_select_indices(torch.tensor(rows))


def test_a_column_is_written_without_a_copy_of_the_others():
    context = Context(torch.ones(1, 3, dtype=torch.int64))
    context.cache.update(torch.zeros(1, 1, 3, 2), torch.zeros(1, 1, 3, 2), 0)
    places = set()
    for _ in range(ROOM):
        context.add()
        keys, _ = context.cache.update(torch.ones(1, 1, 1, 2), torch.ones(1, 1, 1, 2), 0)
        places.add(keys.data_ptr())
    assert len(places) == 1 and keys.shape[2] == 3 + ROOM and keys[:, :, 3:].all()


def test_positions_count_what_is_no_padding():
    context = Context(torch.tensor([[0, 0, 1], [1, 1, 1]]))
    assert context.positions_BT.tolist() == [[0, 0, 0], [0, 1, 2]]
    context.take(torch.tensor([1, 0, 0]))
    context.add()
    assert context.positions_BT.tolist() == [[3], [1], [1]]
    context.add()
    assert context.positions_BT.tolist() == [[4], [2], [2]]
    assert context.mask_BR[:, :5].tolist() == [[1, 1, 1, 1, 1], [0, 0, 1, 1, 1], [0, 0, 1, 1, 1]]


def test_a_model_with_attention_of_its_own_keeps_it():
    from transformers import Qwen3Config, Qwen3ForCausalLM

    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "head_dim": 4}
    for given_name, name in (("eager", "eager"), ("sdpa", NAME)):
        config = Qwen3Config(vocab_size=7, num_key_value_heads=1, attn_implementation=given_name, **sizes)
        model = Qwen3ForCausalLM(config)
        prepare(model)
        assert model.config._attn_implementation == name


def test_a_model_that_keeps_more_than_keys_and_values_is_refused_in_words(tmp_path):
    from rlvr.rollout.transformers import TransformersEngine

    config = AutoConfig.for_model(
        "lfm2", vocab_size=512, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, layer_types=["conv", "full_attention"],
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(TINY).save_pretrained(tmp_path)
    with pytest.raises(RecipeError, match=rf"^model\.path={tmp_path}: rollout\.engine=.* cannot .* Lfm2ForCausalLM"):
        TransformersEngine(str(tmp_path), dtype="float32", max_model_len=64, max_num_seqs=2)
