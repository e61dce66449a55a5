"""What the reference engine changes in transformers so that a decoding step copies little. Knows no request.

There every step copies all keys and values twice: to append a column, and once more for each query head that shares
them. Here a column is written into room that was left for it, and query heads that share a key are its queries. Room
that is not used yet is masked like padding.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention
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
    """Keys and values [B,K,R,D] of a layer. The prompts fill them; then there is room, where one column a time comes to
    `at`: a tensor of one integer, as what is compiled must not depend on a number that each step changes."""

    keys: Tensor
    values: Tensor

    def __init__(self, at: Tensor):
        super().__init__()
        self.at = at

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = key_states, value_states
        else:
            self.keys.index_copy_(2, self.at, key_states)
            self.values.index_copy_(2, self.at, value_states)
        return self.keys, self.values

    def get_seq_length(self) -> Any:
        return self.at if self.is_initialized else 0

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.keys.shape[2], 0

    def batch_select_indices(self, indices: Tensor) -> None:
        self.keys, self.values = self.keys[indices], self.values[indices]

    def widen(self) -> None:
        self.keys, self.values = (pad(old_BKRD, (0, 0, 0, ROOM)) for old_BKRD in (self.keys, self.values))


class Context:
    """What the model has read of each row: keys and values, which columns are no padding, and room for more."""

    def __init__(self, mask_BT: Tensor):
        """Of the prompts, which the model is about to read."""
        self.mask_BR = mask_BT
        self.positions_BT = (mask_BT.cumsum(1) - 1).clamp(min=0)  # of the tokens that the model is about to read
        self.at = torch.tensor([0], device=mask_BT.device)
        self.used = mask_BT.shape[1]
        layer: Any = partial(RoomyLayer, self.at)
        self.cache = Cache(layer_class_to_replicate=layer)

    def add(self) -> None:
        """One token of each row, which the model is about to read."""
        if self.used == self.mask_BR.shape[1]:
            self.mask_BR = pad(self.mask_BR, (0, ROOM))
            layers: Any = self.cache.layers
            for layer in layers:
                layer.widen()
        self.mask_BR[:, self.used] = 1
        self.at.fill_(self.used)
        self.used += 1
        self.positions_BT = self.positions_BT[:, -1:] + 1

    def take(self, rows_B: Tensor) -> None:
        """These rows from now on; one may come several times."""
        self.cache.batch_select_indices(rows_B)
        self.mask_BR, self.positions_BT = self.mask_BR[rows_B], self.positions_BT[rows_B]
