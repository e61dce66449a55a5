"""What the reference engine changes in transformers so that a decoding step copies little. Knows no request.

There every step copies all keys and values twice: to append a column, and once more for each query head that shares
them. Here a column is written into room that was left for it, and query heads that share a key are its queries.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, Cache
from transformers.cache_utils import DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "rlvr_decoding"
ROOM = 16  # columns


def attention(
    module: Any, query_BHTD: Tensor, key_BKSD: Tensor, value_BKSD: Tensor, mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """[B,T,H,D], as transformers' own for `sdpa`, which it is but for one token a row: H/K query heads have one key."""
    B, H, T, D = query_BHTD.shape
    if T > 1 or options.get("position_bias") is not None:
        return sdpa_attention_forward(module, query_BHTD, key_BKSD, value_BKSD, mask, **options)
    K = key_BKSD.shape[1]
    out_BKHD = scaled_dot_product_attention(
        query_BHTD.view(B, K, H // K, D), key_BKSD, value_BKSD, mask, scale=options.get("scaling")
    )
    return out_BKHD.reshape(B, 1, H, -1), None


def prepare(model: Any) -> None:
    """Use it in a model that uses torch's attention."""
    if model.config._attn_implementation == "sdpa":
        AttentionInterface.register(NAME, attention)
        AttentionMaskInterface.register(NAME, sdpa_mask)
        model.set_attn_implementation(NAME)


class RoomyLayer(DynamicLayer):
    """Keys and values [B,K,S,D] of a layer: the first S columns of memory that has some more."""

    room: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        used = self.get_seq_length()
        total = used + key_states.shape[2]
        if self.room is None or self.room[0].shape[2] < total:
            self.room = _roomy(self.keys, key_states), _roomy(self.values, value_states)
        for room, new in zip(self.room, (key_states, value_states), strict=True):
            room[:, :, used:total] = new
        self.keys, self.values = (room[:, :, :total] for room in self.room)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        self.room = None
        super().batch_select_indices(indices)


def _roomy(old_BKSD: Tensor | None, new_BKTD: Tensor) -> Tensor:
    """Memory that begins with the old columns and has room for the new ones and some more."""
    used = old_BKSD.shape[2] if old_BKSD is not None and old_BKSD.numel() else 0
    B, K, T, D = new_BKTD.shape
    room = new_BKTD.new_empty(B, K, used + T + ROOM, D)
    if old_BKSD is not None and used:
        room[:, :, :used] = old_BKSD
    return room


class Context:
    """What the model has read of each row: keys and values, and which columns are no padding."""

    def __init__(self, mask_BT: Tensor):
        self.cache, self.mask_BT = Cache(layer_class_to_replicate=RoomyLayer), mask_BT

    def add(self, mask_BT: Tensor) -> Tensor:
        """Further columns; their positions [B,T]."""
        self.mask_BT = torch.cat([self.mask_BT, mask_BT], dim=1)
        return (self.mask_BT.cumsum(1)[:, -mask_BT.shape[1] :] - 1).clamp(min=0)

    def take(self, rows_B: Tensor) -> None:
        """These rows from now on; one may come several times."""
        self.cache.batch_select_indices(rows_B)
        self.mask_BT = self.mask_BT[rows_B]
