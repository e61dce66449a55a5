"""Flash attention over packed documents, out of PyTorch itself. Knows transformers' interface; no batch and no model.

A row holds documents end to end; `starts` says where each begins, so that none sees another, no mask is made, and
nothing is computed that a mask would hide.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, AttentionMaskInterface

from rlvr.config import RecipeError

VARLEN = "varlen"


def chosen(asked: str, dtype: torch.dtype) -> str:
    """`auto` resolved: PyTorch's own where there is a GPU and the dtype is bfloat16, which it needs."""
    usable = torch.cuda.is_available() and dtype == torch.bfloat16
    if asked == VARLEN and not usable:
        raise RecipeError(
            f"model.attention={VARLEN}: needs a GPU and model.dtype=bfloat16; `auto` takes it where it can"
        )
    if asked == "auto":
        return VARLEN if usable else "sdpa"
    return asked


def takes_one_row(implementation: str) -> bool:
    """Whether documents are kept apart by where they start in a single row, not by a mask over several."""
    return implementation == VARLEN or implementation.startswith("flash")


def documents(starts_D1: Tensor, longest: int) -> dict[str, Any]:
    """What transformers hands through to such an attention."""
    return {
        "cu_seq_lens_q": starts_D1, "cu_seq_lens_k": starts_D1, "max_length_q": longest, "max_length_k": longest,
    }  # fmt: skip


def attend(
    module: Any,
    query_1NTD: Tensor,
    key_1KTD: Tensor,
    value_1KTD: Tensor,
    mask: None,
    *,
    scaling: float,
    cu_seq_lens_q: Tensor,
    max_length_q: int,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal, within each document; [1,T,N,D] and no weights, as transformers' other attentions return them."""
    if softcap is not None or s_aux is not None:
        raise RecipeError(f"model.attention={VARLEN}: this model's attention has soft caps or sinks; try sdpa or eager")
    query_TND, key_TKD, value_TKD = (x[0].transpose(0, 1) for x in (query_1NTD, key_1KTD, value_1KTD))
    before = -1 if sliding_window is None else sliding_window - 1
    out_TND: Any = varlen_attn(
        query_TND, key_TKD, value_TKD, cu_seq_lens_q, cu_seq_lens_q, max_length_q, max_length_q,
        scale=scaling, window_size=(before, 0), enable_gqa=True,
    )  # fmt: skip
    return out_TND[None], None


AttentionInterface.register(VARLEN, attend)
AttentionMaskInterface.register(VARLEN, lambda *_, **__: None)
