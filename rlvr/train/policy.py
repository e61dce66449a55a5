"""The language model as the trainer sees it: rows of packed completions in, logprobs of their tokens out.

Knows transformers; knows no DeepSpeed, no objective and no reward.

    a row:      [ prompt a | completion a | prompt b | completion b | padding ]
    positions:    0 1 2 ...               | 0 1 2 ...               | 0 0 0        one document each: none sees another

    shared:     [ prompt a | completion 1 | completion 2 | completion 3 ]
    positions:    0 1 2 3    4 5 6 ...      4 5 6 ...      4 5 6 ...    each sees the prompt and itself
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import local_torch_dtype

from rlvr import compiling
from rlvr.config import ModelConfig, RecipeError
from rlvr.data.tokenizer import local
from rlvr.objective import Batch
from rlvr.train.attention import chosen, documents, takes_one_row
from rlvr.train.logprobs import LogprobHead
from rlvr.train.packing import Row

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def dtype_of(name: str) -> torch.dtype:
    """The dtype that `model.dtype` names; `auto` is bfloat16 on GPU and float32 on CPU."""
    if name == "auto":
        return torch.bfloat16 if torch.cuda.is_available() else torch.float32
    if name not in DTYPES:
        raise RecipeError(f"model.dtype={name}: one of auto, {', '.join(DTYPES)}")
    return DTYPES[name]


def load_policy(cfg: ModelConfig, gradient_checkpointing: bool, compiled: bool = False) -> "Policy":
    """The pre-trained model. Dropout stays off: the policy that is trained must be the one that sampled."""
    dtype = dtype_of(cfg.dtype)
    attention = chosen(cfg.attention, dtype)
    try:
        lm = AutoModelForCausalLM.from_pretrained(local(cfg.path), dtype=dtype, attn_implementation=attention)
    except ImportError as error:  # flash attention is a package of its own
        raise RecipeError(f"model.attention={cfg.attention}: {error}") from error
    if is_deepspeed_zero3_enabled():
        restore_buffers(lm, dtype)
    lm.config.use_cache = False
    embedding: Any = lm.get_input_embeddings()
    embedding.padding_idx = None  # its row would get no gradient, and often it is that of the end token
    if compiled:
        # once for all layers and lengths; again with and without gradients, adapters, and for the reference
        compiling.enable()
        if not hasattr(lm.model, "layers"):
            raise RecipeError(f"model.path={cfg.path}: {type(lm).__name__} cannot be compiled: trainer.compile=false")
        for layer in lm.model.layers:
            layer.compile(dynamic=True)
    policy = Policy(lm).eval()
    if gradient_checkpointing:
        checkpoint_layers(lm)
    return policy


def checkpoint_layers(lm: Any) -> None:
    """transformers checkpoints a layer in training mode only. Layers are put into it, and not what is in them: that
    would drop out. What a layer itself would drop, as those of OPT do, is set to nothing."""
    lm.gradient_checkpointing_enable({"use_reentrant": False})
    for layer in lm.modules():
        if isinstance(layer, GradientCheckpointingLayer):
            layer.training = True
            vars(layer).update({name: 0.0 for name in vars(layer) if "dropout" in name})


def restore_buffers(lm: Any, dtype: torch.dtype) -> None:
    """Buffers that are computed and in no file, rotary frequencies above all, as the engines have them. A model that is
    built for ZeRO-3 has them rounded to the training dtype: the policy that trained would be another than sampled."""
    with torch.device("meta"), local_torch_dtype(dtype):  # its class itself knows nothing of ZeRO-3
        twin = type(lm)(lm.config)
    for name, module in twin.named_modules():
        own = [(n, b) for n, b in module.named_buffers(recurse=False) if n in module._non_persistent_buffers_set]
        exact = {n: torch.empty_like(b, device="cpu") for n, b in own if b.is_floating_point()}
        if not exact:
            continue
        module._buffers.update(exact)
        twin._init_weights(module)  # as transformers fills them for every other model that it loads
        rounded = lm.get_submodule(name)._buffers
        rounded.update({n: b.to(rounded[n].device) for n, b in exact.items()})


@dataclass(frozen=True)
class Packed:
    """A micro-batch as the model reads it, and where each trained token of `batch` sits in it."""

    token_ids_RL: Tensor
    positions_RL: Tensor
    predict_N: Tensor  # flat positions in [R,L] whose next token is trained on
    targets_N: Tensor  # that next token
    place_N: Tensor  # flat positions in the batch's [B,T]
    starts_D1: Tensor  # flat positions where documents begin, and the end; padding is documents of one token
    longest: int  # tokens of the longest document
    kept_NC: Tensor | None = None  # the ids that each target was sampled from (`Batch.kept_BTC`)
    trunks_RL: Tensor | None = None  # where a prompt is shared: the document of each token, -1: padding,
    branches_RL: Tensor | None = None  # and which completion in it the token is part of; 0: the prompt

    def to(self, device: torch.device) -> "Packed":
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        moved: dict[str, Any] = {name: x.to(device) for name, x in values.items() if isinstance(x, Tensor)}
        return replace(self, **moved)


def pack(batch: Batch, rows: Sequence[Row], select_BT: Tensor) -> Packed:
    """Lay the documents of each row end to end. `select_BT` marks the tokens to score."""
    T = batch.token_ids_BT.shape[1]
    lengths = batch.lengths_B.tolist()
    prompts = lengths if batch.prompts_B is None else batch.prompts_B.tolist()
    laid = [[(n, i, prompts[i] * (n > 0)) for document in row for n, i in enumerate(document)] for row in rows]
    width = max((sum(lengths[i] - begin for _, i, begin in row) for row in laid), default=1)
    token_ids_RL = torch.zeros(max(len(rows), 1), width, dtype=torch.int64)
    positions_RL = torch.zeros_like(token_ids_RL)
    source_RL = torch.full_like(token_ids_RL, -1)  # flat place in [B,T] of each packed token
    before_RL = torch.arange(token_ids_RL.numel()).view_as(token_ids_RL) - 1  # flat place of the token before it
    trunks_RL, branches_RL = torch.full_like(token_ids_RL, -1), torch.zeros_like(token_ids_RL)
    for r, row in enumerate(laid):
        start = fork = trunk = 0
        for n, i, begin in row:
            end = start + lengths[i] - begin
            token_ids_RL[r, start:end] = batch.token_ids_BT[i, begin : lengths[i]]
            positions_RL[r, start:end] = torch.arange(begin, lengths[i])
            source_RL[r, start:end] = i * T + torch.arange(begin, lengths[i])
            if n == 0:
                fork, trunk = start + prompts[i], start
            else:
                before_RL[r, start : min(start + 1, end)] = r * width + fork - 1  # an empty one has none
            trunks_RL[r, start:end] = trunk
            branches_RL[r, max(start, fork) : end] = n + 1
            start = end
    source = source_RL.flatten()
    chosen = source >= 0
    chosen[chosen.clone()] = select_BT.flatten()[source[chosen]] > 0  # a rank without rows has nothing to select from
    if (chosen & (positions_RL.flatten() == 0)).any():
        raise ValueError("the first token of a sequence has no logprob: nothing precedes it")
    packed_at_N = chosen.nonzero()[:, 0]
    place_N = source[packed_at_N]
    starts_D = (positions_RL.flatten() == 0).nonzero()[:, 0]
    starts_D1 = torch.cat([starts_D, torch.tensor([positions_RL.numel()])]).to(torch.int32)
    shares = any(n > 0 for row in laid for n, _, _ in row)
    return Packed(
        token_ids_RL,
        positions_RL,
        before_RL.flatten()[packed_at_N],
        token_ids_RL.flatten()[packed_at_N],
        place_N,
        starts_D1,
        int(starts_D1.diff().max()),
        None if batch.kept_BTC is None else batch.kept_BTC.flatten(0, 1)[place_N],
        trunks_RL if shares else None,
        branches_RL if shares else None,
    )


def prompts_of(batch: Batch) -> list[tuple[int, ...]]:
    """The tokens of each completion's prompt; none where the batch does not say."""
    ends = [0] * len(batch) if batch.prompts_B is None else batch.prompts_B.tolist()
    token_ids = batch.token_ids_BT[:, : max(ends, default=0)].tolist()
    return [tuple(ids[:end]) for ids, end in zip(token_ids, ends, strict=True)]


def seen(trunks_RL: Tensor, branches_RL: Tensor) -> Tensor:
    """[R,1,L,L] bool: what each token attends to: of its prompt and of its own completion what came before it."""
    same_trunk_RLL = trunks_RL[:, :, None] == trunks_RL[:, None, :]
    same_branch_RLL = branches_RL[:, :, None] == branches_RL[:, None, :]
    return (same_trunk_RLL & (same_branch_RLL | (branches_RL == 0)[:, None, :])).tril()[:, None]


class Policy(nn.Module):
    """`forward` is the only entry: DeepSpeed's hooks hang on it."""

    lm: Any  # a transformers model for causal language modelling: `.model` and `.lm_head`

    def __init__(self, lm: Any):
        super().__init__()
        self.lm = lm
        self.lm.lm_head = LogprobHead(lm.lm_head)
        self.single_row = takes_one_row(lm.config._attn_implementation)
        self.attention_tokens = math.inf if self.single_row else _attention_tokens(lm)
        self.can_share_prompts = lm.config._attn_implementation == "sdpa" and _sees_everything(lm)

    def forward(self, packed: Packed, temperature: float, chunk: int, whole: bool = False) -> tuple[Tensor, Tensor]:
        """(logprobs [N] with gradient, entropy [N]) of the packed targets; `whole`: from the logits of the model's own
        forward pass."""
        ids_RL, positions_RL, apart = packed.token_ids_RL, packed.positions_RL, {}
        mask = None  # without one, transformers reads the documents off the positions and keeps them apart
        if packed.trunks_RL is not None and packed.branches_RL is not None:
            mask = seen(packed.trunks_RL, packed.branches_RL)
        if self.single_row:
            ids_RL, positions_RL = ids_RL.view(1, -1), positions_RL.view(1, -1)
            apart = documents(packed.starts_D1, packed.longest)
        inputs = {"input_ids": ids_RL, "position_ids": positions_RL, "attention_mask": mask, "use_cache": False} | apart
        if whole:
            spread = (self.lm(**inputs).logits.flatten(0, 1)[packed.predict_N].float() / temperature).log_softmax(1)
            return spread.gather(1, packed.targets_N[:, None])[:, 0], -(spread.exp() * spread).sum(1)
        hidden_NH = self.lm.model(**inputs).last_hidden_state.flatten(0, 1)[packed.predict_N]
        return self.lm.lm_head(hidden_NH, packed.targets_N, temperature, chunk, packed.kept_NC)


def _attention_tokens(lm: Any) -> float:
    """How wide a row is in which attention to all of it costs as much as the layers' matrices do, in FLOPs: 4 x width x
    heads x head size a token and layer against two for each weight."""
    config = lm.config.get_text_config()
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    embedding = lm.get_input_embeddings().weight
    weights = sum(getattr(p, "ds_numel", p.numel()) for p in lm.model.parameters() if p is not embedding)
    return weights / config.num_hidden_layers / (2 * config.num_attention_heads * head)


def _sees_everything(lm: Any) -> bool:
    """Whether every layer attends to all that came before: a mask of ours would take the place of a sliding window."""
    config = lm.config.get_text_config()
    kinds = getattr(config, "layer_types", None)
    if kinds is not None:
        return set(kinds) == {"full_attention"}
    return getattr(config, "sliding_window", None) is None and getattr(config, "attention_chunk_size", None) is None


def scatter(values_N: Tensor, packed: Packed, batch: Batch) -> Tensor:
    """Per-token values back in the batch's shape [B,T], zeros elsewhere; differentiable."""
    flat = torch.zeros(batch.token_ids_BT.numel(), dtype=values_N.dtype, device=values_N.device)
    return flat.index_put((packed.place_N,), values_N).view(batch.token_ids_BT.shape)
