"""A tiny language model, packed and unpacked: the same logprobs and the same gradient, whatever shares a row."""

import math
from copy import deepcopy
from dataclasses import replace
from functools import partial
from itertools import pairwise

import pytest
import torch
from torch.testing import assert_close
from transformers import LlamaConfig, LlamaForCausalLM, OPTConfig, OPTForCausalLM
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from rlvr.collate import collate
from rlvr.config import ModelConfig, RecipeError
from rlvr.objective import Batch, Objective, advantages, ratios, surrogates, weightings
from rlvr.train import attention
from rlvr.train.packing import layout
from rlvr.train.policy import Policy, dtype_of, load_policy, pack, prompts_of, scatter, seen
from tests.builders import completion, group, prompt
from tests.train.conftest import VOCABULARY

GRPO = Objective(
    advantages.standardize, ratios.token, partial(surrogates.clip, low=0.2, high=0.2), weightings.sequence_mean
)


def load(folder: str, checkpointing: bool = False, **cfg) -> Policy:
    return load_policy(ModelConfig(path=folder, dtype="float32", **cfg), checkpointing)


@pytest.fixture(scope="module")
def policy(model_folder) -> Policy:
    return load(model_folder)


def test_the_token_that_pads_is_learnt_too(tmp_path):
    """In many models it is the end token, which ends the turns of a prompt."""
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=64, bos_token_id=None, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    padding = load(str(tmp_path))
    of = Batch.of_tokens(torch.tensor([[5, 1, 6, 1, 7, 8]]))
    padding(pack(of, [[[0]]], of.mask_BT), 1.0, 8)[0].sum().backward()
    norms_V = padding.lm.get_input_embeddings().weight.grad.norm(dim=1)
    assert norms_V[1] > 0 and norms_V[6] > 0 and norms_V[2] == 0


def batch() -> Batch:
    """Six completions of 1 to 9 tokens behind prompts of 3 and 1; one has tool output in it, one no verdict."""
    generator = torch.Generator().manual_seed(1)

    def tokens(count: int) -> list[int]:
        return torch.randint(1, VOCABULARY, (count,), generator=generator).tolist()

    first = [completion(tokens(5)), completion(tokens(9), [i not in (3, 4) for i in range(9)]), completion(tokens(1))]
    second = [completion(tokens(4)), completion(tokens(7)), completion(tokens(2))]
    groups = [
        group([1.0, 0.0, 0.5], first, prompt(0, tokens(3))),
        group([0.0, None, 1.0], second, prompt(1, tokens(1))),
    ]
    return collate(groups, GRPO, {"math": 1.0})


def alone(policy: Policy, of: Batch, temperature: float = 1.0) -> torch.Tensor:
    """[B,T] logprobs with every sequence in a forward pass of its own; position t holds log p(token t | before)."""
    out = torch.zeros(of.mask_BT.shape, dtype=policy.lm.dtype)
    for i, length in enumerate(of.lengths_B.tolist()):
        ids = of.token_ids_BT[i, :length]
        logits = policy.lm(input_ids=ids[None], use_cache=False).logits[0, :-1] / temperature
        out[i, 1:length] = logits.log_softmax(1).gather(1, ids[1:, None])[:, 0]
    return out


def apart(*rows: list[int]) -> list:
    """Rows in which every completion is a document of its own."""
    return [[[i] for i in row] for row in rows]


def packed_logprobs(policy: Policy, of: Batch, rows, temperature: float = 1.0, chunk: int = 5) -> torch.Tensor:
    packed = pack(of, rows, of.mask_BT)
    return scatter(policy(packed, temperature, chunk)[0], packed, of)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize(
    "rows",
    [
        apart([0], [1], [2], [3], [4], [5]),  # one a row, padded to the longest
        apart([0, 1, 2, 3, 4, 5]),  # all in one row
        apart([5, 3, 1], [2, 0], [4]),  # mixed, with padding behind
    ],
)
def test_documents_that_share_a_row_do_not_see_each_other(model_folder, rows, implementation):
    policy, of = load(model_folder, attention=implementation), batch()
    with torch.no_grad():
        assert_close(packed_logprobs(policy, of, rows), alone(policy, of) * of.mask_BT, atol=2e-5, rtol=0)


def as_flash_attention_does(module, query, key, value, mask, position_ids=None, scaling=None, **_):
    """Takes a lone row apart by its positions; of several rows it takes each for one document (transformers' rule)."""
    from transformers.modeling_flash_attention_utils import _is_packed_sequence

    assert mask is None
    starts = [0, query.shape[2]]
    if _is_packed_sequence(position_ids, query.shape[0]):
        starts = [*(position_ids[0] == 0).nonzero()[:, 0].tolist(), query.shape[2]]
    attend = partial(torch.nn.functional.scaled_dot_product_attention, is_causal=True, scale=scaling, enable_gqa=True)
    pieces = [attend(*(x[:, :, a:b] for x in (query, key, value))) for a, b in pairwise(starts)]
    return torch.cat(pieces, dim=2).transpose(1, 2), None


def test_flash_attention_is_given_a_single_row(model_folder, monkeypatch):
    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS, "flash_attention_2", as_flash_attention_does)
    of, rows = batch(), apart([5, 3, 1], [2, 0], [4])
    lm = load(model_folder).lm
    wanted = alone(Policy(lm), of)
    lm.config._attn_implementation = "flash_attention_2"
    policy = Policy(lm)
    with torch.no_grad():
        assert_close(packed_logprobs(policy, of, rows), wanted * of.mask_BT, atol=2e-5, rtol=0)
        assert policy.attention_tokens == math.inf
        policy.single_row = False  # what this guards against
        assert not torch.allclose(packed_logprobs(policy, of, rows), wanted * of.mask_BT, atol=1e-2)


def as_pytorch_does(query, key, value, starts, same_starts, longest, same_longest, *, scale, window_size, enable_gqa):
    """`varlen_attn` on a CPU, by its documentation: [tokens, heads, size], documents from starts[n] to starts[n+1]."""
    assert starts is same_starts and longest == same_longest == int(starts.diff().max()) and starts.dtype == torch.int32
    assert starts[0] == 0 and starts[-1] == len(query) and enable_gqa and window_size[1] == 0
    pieces = []
    for a, b in pairwise(starts.tolist()):
        seen = torch.ones(b - a, b - a, dtype=torch.bool).tril()
        if window_size[0] >= 0:
            seen &= ~torch.ones(b - a, b - a, dtype=torch.bool).tril(-window_size[0] - 1)
        q, k, v = (x[a:b].transpose(0, 1)[None] for x in (query, key, value))
        attend = torch.nn.functional.scaled_dot_product_attention
        pieces.append(attend(q, k, v, attn_mask=seen, scale=scale, enable_gqa=True)[0].transpose(0, 1))
    return torch.cat(pieces)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("rows", [apart([0, 1, 2, 3, 4, 5]), apart([5, 3, 1], [2, 0], [4])])
def test_pytorchs_flash_attention_is_told_where_documents_begin(model_folder, monkeypatch, rows, checkpointing):
    monkeypatch.setattr(attention, "varlen_attn", as_pytorch_does)
    of, lm = batch(), load(model_folder, checkpointing).lm
    wanted = alone(load(model_folder), of)
    lm.set_attn_implementation(attention.VARLEN)
    policy = Policy(lm).train(checkpointing)
    got = packed_logprobs(policy, of, rows)
    assert policy.single_row and policy.attention_tokens == math.inf
    assert_close(got, wanted * of.mask_BT, atol=2e-5, rtol=0)
    (got * of.mask_BT).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in policy.parameters())


def test_a_sliding_window_reaches_pytorchs_flash_attention(monkeypatch):
    monkeypatch.setattr(attention, "varlen_attn", as_pytorch_does)
    query, key, value = torch.randn(1, 4, 9, 8), torch.randn(1, 2, 9, 8), torch.randn(1, 2, 9, 8)
    starts = torch.tensor([0, 3, 9], dtype=torch.int32)
    told = {"scaling": 0.3, "cu_seq_lens_q": starts, "max_length_q": 6, "sliding_window": 2}
    out, weights = attention.attend(None, query, key, value, None, **told)
    assert weights is None and out.shape == (1, 9, 4, 8)
    last = torch.nn.functional.scaled_dot_product_attention(
        query[:, :, 8:], key[:, :, 7:], value[:, :, 7:], scale=0.3, enable_gqa=True
    )  # sees itself and one before
    assert_close(out[:, 8], last[:, :, 0])
    for what in ({"softcap": 50.0}, {"s_aux": torch.zeros(4)}):  # silently left out, they would be another model
        with pytest.raises(RecipeError, match=r"model\.attention=varlen: .* soft caps or sinks"):
            attention.attend(None, query, key, value, None, **told, **what)


def test_flash_attention_wants_a_gpu(model_folder):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    assert attention.chosen("auto", torch.bfloat16) == "sdpa"
    with pytest.raises(RecipeError, match=r"model\.attention=varlen: needs a GPU"):
        load_policy(ModelConfig(path=model_folder, dtype="bfloat16", attention="varlen"), False)


def test_attention_to_a_whole_row_is_reckoned_from_the_shape_of_the_model(policy):
    # q and o 2 x 16 x 16, k and v 2 x 16 x 8, gate, up and down 3 x 16 x 24, norms 2 x 16 + 2 x 8; last norm 16 / 2
    layer = 512 + 256 + 1152 + 48 + 8
    assert policy.attention_tokens == layer / (2 * 2 * 8)


def test_an_attention_that_is_not_installed_is_named(model_folder):
    with pytest.raises(RecipeError, match=r"model\.attention=flash_attention_2: "):
        load(model_folder, attention="flash_attention_2")


def test_the_temperature_divides_the_logits(policy):
    of = batch()
    with torch.no_grad():
        got = packed_logprobs(policy, of, apart([0, 1, 2], [3, 4, 5]), temperature=0.6)
        assert_close(got, alone(policy, of, temperature=0.6) * of.mask_BT, atol=2e-5, rtol=0)


def test_only_the_tokens_that_are_trained_on_are_scored():
    of = batch()
    packed = pack(of, apart([0, 1, 2], [3, 4, 5]), of.mask_BT)
    assert sorted(packed.place_N.tolist()) == of.mask_BT.flatten().nonzero()[:, 0].tolist()
    assert not packed.place_N[packed.place_N // of.mask_BT.shape[1] == 4].numel()  # no verdict, no tokens


@pytest.mark.parametrize("rows", [apart([0, 1, 2, 3], [4, 5]), [[[0, 2, 1]], [[3], [5, 4]]]])
def test_what_a_token_was_sampled_from_follows_it_into_its_row(policy, rows):
    """Each from the token itself, the next id, and, for every other one, the id after that."""
    of = batch()
    kept_BTC = (of.token_ids_BT[:, :, None] + torch.arange(3)) % VOCABULARY
    kept_BTC[:, ::2, 2] = -1
    of = replace(of, kept_BTC=kept_BTC.to(torch.int32))
    expected = torch.zeros_like(of.mask_BT)
    for i, t in of.mask_BT.nonzero().tolist():
        logits_V = policy.lm(input_ids=of.token_ids_BT[i : i + 1, :t], use_cache=False).logits[0, -1]
        left = [int(id_) for id_ in kept_BTC[i, t] if id_ >= 0]
        expected[i, t] = logits_V[left].log_softmax(0)[0]
    assert_close(packed_logprobs(policy, of, rows), expected, atol=1e-5, rtol=1e-5)


def test_a_token_is_predicted_from_the_position_before_it():
    # two prompts of two tokens, completions [7, 8, 2] and [9]; in one row: 4 5 7 8 2 4 5 9
    made = group([1.0, 0.0], [completion((7, 8, 2)), completion((9,))], prompt(token_ids=(4, 5)))
    of = collate([made], GRPO, {"math": 1.0})
    packed = pack(of, apart([0, 1]), of.mask_BT)
    assert packed.token_ids_RL.tolist() == [[4, 5, 7, 8, 2, 4, 5, 9]]
    assert packed.positions_RL.tolist() == [[0, 1, 2, 3, 4, 0, 1, 2]]
    assert packed.predict_N.tolist() == [1, 2, 3, 6]
    assert packed.targets_N.tolist() == [7, 8, 2, 9]
    assert packed.place_N.tolist() == [2, 3, 4, 5 + 2]  # T is 5


def test_rows_are_as_wide_as_their_widest_and_padded_behind():
    of = batch()
    packed = pack(of, apart([0, 5], [2]), of.mask_BT)
    widths = of.lengths_B.tolist()
    assert packed.token_ids_RL.shape == (2, widths[0] + widths[5])
    assert not packed.token_ids_RL[1, widths[2] :].any() and not packed.positions_RL[1, widths[2] :].any()


def test_the_first_token_of_a_sequence_cannot_be_scored():
    of = batch()
    with pytest.raises(ValueError, match="the first token of a sequence has no logprob"):
        pack(of, apart([0]), torch.ones_like(of.mask_BT))


def test_scattered_values_are_zero_elsewhere_and_differentiable():
    of = batch()
    packed = pack(of, apart([0, 1, 2, 3, 4, 5]), of.mask_BT)
    values = torch.arange(1.0, len(packed.place_N) + 1, requires_grad=True)
    out = scatter(values, packed, of)
    assert torch.equal(out != 0, of.mask_BT > 0)
    weights = torch.randn(out.shape)
    (grad,) = torch.autograd.grad((out * weights).sum(), values)
    assert_close(grad, weights.flatten()[packed.place_N])


def gradient(
    policy: Policy, of: Batch, row_tokens: int, micro_batch_tokens: int, prompts: list[tuple[int, ...]] | tuple = ()
) -> torch.Tensor:
    """Of the whole step, as the trainer makes it: micro-batch by micro-batch, summed."""
    policy.zero_grad()
    made = layout(of.lengths_B.tolist(), 1, row_tokens, micro_batch_tokens, prompts=prompts)
    assert (made.shared > 0) == bool(prompts)
    for rows in made.micro_batches[0]:
        mine = [i for row in rows for one in row for i in one]
        micro = of.rows(mine)
        packed = pack(micro, [[[mine.index(i) for i in one] for one in row] for row in rows], micro.mask_BT)
        logprobs = scatter(policy(packed, 1.0, 4)[0], packed, micro)
        GRPO.loss(logprobs, micro)[0].backward()
    return torch.cat([p.grad.flatten() for p in policy.parameters()])


@pytest.fixture(scope="module")
def exactly(policy) -> Policy:
    """In float64, but for the norms and rotations that transformers computes in float32."""
    return deepcopy(policy).double()


@pytest.fixture(scope="module")
def exact_gradient(exactly) -> torch.Tensor:
    """Of `batch()`, every sequence in a pass of its own, plain logits, no packing, all at once."""
    of = batch()
    exactly.zero_grad()
    GRPO.loss(alone(exactly, of), of)[0].backward()
    gradient = torch.cat([p.grad.flatten() for p in exactly.parameters()])
    assert gradient.abs().max() > 1e-3
    return gradient


SIZES = [(1, 1), (12, 12), (16, 40), (1000, 1000)]  # row_tokens, micro_batch_tokens
WITHIN = 2e-6  # of the largest element, in float32; a plain pass in float32 is as far from float64


def close(got: torch.Tensor, exact: torch.Tensor, within: float) -> None:
    assert_close(got.double(), exact, atol=within * float(exact.abs().max()), rtol=0)


@pytest.mark.parametrize("sizes", SIZES)
def test_the_gradient_is_the_same_for_any_row_and_micro_batch_size(policy, exactly, exact_gradient, sizes):
    close(gradient(exactly, batch(), *sizes), exact_gradient, 1e-12)
    close(gradient(policy, batch(), *sizes), exact_gradient, WITHIN)


SHARED = [
    [[[0, 1, 2]], [[3, 4, 5]]],
    [[[2, 0], [5, 3, 4], [1]]],  # a document of one among them
    [[[1, 0]], [[3, 5], [2]], [[4]]],  # with padding behind
]


@pytest.mark.parametrize("rows", SHARED)
def test_completions_behind_one_prompt_see_it_and_not_one_another(policy, rows):
    of = batch()
    with torch.no_grad():
        assert_close(packed_logprobs(policy, of, rows), alone(policy, of) * of.mask_BT, atol=2e-5, rtol=0)


@pytest.mark.parametrize("sizes", [(12, 24), (17, 34), (1000, 1000)])
def test_a_prompt_that_is_shared_learns_from_all_its_completions(policy, exactly, exact_gradient, sizes):
    of = batch()
    close(gradient(exactly, of, *sizes, prompts_of(of)), exact_gradient, 1e-6)  # a norm may round to the next float32
    close(gradient(policy, of, *sizes, prompts_of(of)), exact_gradient, WITHIN)


def test_checkpointing_changes_no_gradient(model_folder, exact_gradient):
    of, frugal = batch(), load(model_folder, checkpointing=True)
    for prompts in ((), prompts_of(of)):
        close(gradient(frugal, of, 17, 34, prompts), exact_gradient, WITHIN)


def test_a_shared_prompt_is_laid_down_once_and_predicts_every_first_token():
    made = group([1.0, 0.0], [completion((7, 8, 2)), completion((9, 2))], prompt(token_ids=(4, 5)))
    of = collate([made], GRPO, {"math": 1.0})
    packed = pack(of, [[[0, 1]], [[1]]], of.mask_BT)
    assert packed.token_ids_RL.tolist() == [[4, 5, 7, 8, 2, 9, 2], [4, 5, 9, 2, 0, 0, 0]]
    assert packed.positions_RL.tolist() == [[0, 1, 2, 3, 4, 2, 3], [0, 1, 2, 3, 0, 0, 0]]
    assert packed.predict_N.tolist() == [1, 2, 3, 1, 5, 7 + 1, 7 + 2]
    assert packed.targets_N.tolist() == [7, 8, 2, 9, 2, 9, 2]
    assert packed.place_N.tolist() == [2, 3, 4, 5 + 2, 5 + 3, 5 + 2, 5 + 3]  # T is 5
    sees = seen(packed.trunks_RL, packed.branches_RL)[:, 0].int().tolist()
    assert sees[0] == [
        [1, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 1, 0, 0],
        [1, 1, 0, 0, 0, 1, 0],
        [1, 1, 0, 0, 0, 1, 1],
    ]
    assert sees[1][3] == [1, 1, 1, 1, 0, 0, 0] and sees[1][4] == [0, 0, 0, 0, 1, 0, 0]


@pytest.mark.parametrize("row", [[[0, 1]], [[1, 0]], [[1, 1]]])
def test_an_empty_completion_may_share_a_prompt_and_has_nothing_to_predict(row):
    made = group([1.0, 0.0], [completion((7, 8)), completion(())], prompt(token_ids=(4, 5)))
    of = collate([made], GRPO, {"math": 1.0})
    packed = pack(of, [row], of.mask_BT)
    full = 0 in row[0]
    assert packed.token_ids_RL.tolist() == [[4, 5, 7, 8] if full else [4, 5]]
    assert packed.predict_N.tolist() == ([1, 2] if full else [])


def test_the_prompts_of_a_batch_are_those_of_its_groups():
    of = batch()
    first, second = ([*of.token_ids_BT[i].tolist()] for i in (0, 3))
    assert prompts_of(of) == [tuple(first[:3])] * 3 + [tuple(second[:1])] * 3
    assert prompts_of(Batch.of_tokens(torch.ones(2, 3, dtype=torch.int64))) == [(), ()]


def test_prompts_are_shared_only_where_the_mask_is_all_that_says_who_sees_whom(model_folder):
    assert load(model_folder).can_share_prompts
    assert not load(model_folder, attention="eager").can_share_prompts
    lm = load(model_folder).lm
    kinds = ["full_attention", "sliding_attention"]
    lm.config.layer_types = kinds
    assert not Policy(lm).can_share_prompts
    lm.config.layer_types = None
    assert Policy(lm).can_share_prompts
    lm.config.sliding_window = 16
    assert not Policy(lm).can_share_prompts


def test_gradient_checkpointing_changes_no_gradient(model_folder, policy):
    of = batch()
    frugal = load(model_folder, checkpointing=True)
    passes = []
    frugal.lm.model.layers[0].mlp.register_forward_pre_hook(lambda *_: passes.append(1))
    assert_close(gradient(frugal, of, 16, 40), gradient(policy, of, 16, 40))
    micro_batches = layout(of.lengths_B.tolist(), 1, 16, 40).micro_batches[0]
    assert len(passes) == 2 * len(micro_batches), "each once more, in the backward pass"


@pytest.mark.parametrize("model", ["llama", "opt"])
def test_checkpointing_switches_no_dropout_on(tmp_path, model):
    """Neither in a layer nor, as OPT has it, by the layer itself. What was trained keeps its config."""
    shape = {"vocab_size": VOCABULARY, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    special = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    if model == "llama":
        lm = LlamaForCausalLM(LlamaConfig(**shape, **special, intermediate_size=24, attention_dropout=0.5))
    else:
        sizes = {"ffn_dim": 24, "word_embed_proj_dim": 16, "max_position_embeddings": 64}
        lm = OPTForCausalLM(OPTConfig(**shape, **special, **sizes, dropout=0.5, attention_dropout=0.5, layerdrop=0.5))
    lm.save_pretrained(tmp_path)
    plain, frugal = load(str(tmp_path)), load(str(tmp_path), checkpointing=True)
    of = batch()
    assert_close(gradient(frugal, of, 16, 40), gradient(plain, of, 16, 40))
    assert frugal.lm.config.attention_dropout == 0.5


def test_a_rank_without_rows_still_has_a_graph(policy):
    of = batch().rows([])
    packed = pack(of, [], of.mask_BT)
    logprobs, entropy = policy(packed, 1.0, 4)
    loss, _ = GRPO.loss(scatter(logprobs, packed, of), of)
    policy.zero_grad()
    loss.backward()
    assert loss == 0 and len(entropy) == 0
    assert not any(p.grad.any() for p in policy.parameters() if p.grad is not None)


def test_the_policy_computes_in_the_dtype_that_the_recipe_names(model_folder):
    assert dtype_of("float32") is torch.float32 and dtype_of("bfloat16") is torch.bfloat16
    assert dtype_of("auto") is (torch.bfloat16 if torch.cuda.is_available() else torch.float32)
    with pytest.raises(RecipeError, match=r"model\.dtype=float16: one of auto, float32, bfloat16"):
        dtype_of("float16")
    made = load_policy(ModelConfig(path=model_folder, dtype="bfloat16"), False)
    assert {p.dtype for p in made.parameters()} == {torch.bfloat16}


def test_the_policy_that_trains_is_the_policy_that_samples(policy):
    """No dropout: two passes agree to the bit."""
    of = batch()
    assert torch.equal(packed_logprobs(policy, of, apart([0, 1, 2])), packed_logprobs(policy, of, apart([0, 1, 2])))
    assert not policy.training
