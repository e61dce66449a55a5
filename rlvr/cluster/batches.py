"""How a step's batch gets from the driver to the trainer ranks: without its padding, and once for each node.

    Batch [B,T] --each row up to its length, end to end--> arrays in Ray's object store --> Batch [B,T] in each rank

Where lengths have a long tail most of [B,T] is padding.
"""

from dataclasses import dataclass, fields
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlvr.objective import Batch

FILL = {"kept_BTC": -1}  # what stands behind the end of a row; elsewhere 0


@dataclass(frozen=True)
class Sent:
    width: int  # T
    of_tokens: dict[str, np.ndarray]  # Ray shares these between processes without a copy
    others: dict[str, Any]


def send(batch: Batch) -> Sent:
    values = {field.name: getattr(batch, field.name) for field in fields(batch)}
    padded = {name: x for name, x in values.items() if "_BT" in name and x is not None}
    others = {name: x for name, x in values.items() if name not in padded}
    lengths = batch.lengths_B.tolist()
    return Sent(batch.token_ids_BT.shape[1], {n: _cut(x, lengths) for n, x in padded.items()}, others)


def received(sent: Sent) -> Batch:
    lengths = sent.others["lengths_B"].tolist()
    padded = {n: _padded(x, lengths, sent.width, FILL.get(n, 0)) for n, x in sent.of_tokens.items()}
    values: dict[str, Any] = padded | sent.others
    return Batch(**values)


def _cut(x_BT: Tensor, lengths: list[int]) -> np.ndarray:
    rows = x_BT.numpy()
    cut = np.empty((sum(lengths), *rows.shape[2:]), rows.dtype)
    for (begin, end), row in zip(_places(lengths), rows, strict=True):
        cut[begin:end] = row[: end - begin]
    return cut


def _padded(cut: np.ndarray, lengths: list[int], width: int, fill: int) -> Tensor:
    shape = (len(lengths), width, *cut.shape[1:])
    rows = np.full(shape, fill, cut.dtype) if fill else np.zeros(shape, cut.dtype)  # zeros are not written
    for (begin, end), row in zip(_places(lengths), rows, strict=True):
        row[: end - begin] = cut[begin:end]
    return torch.from_numpy(rows)


def _places(lengths: list[int]) -> list[tuple[int, int]]:
    ends = list(accumulate(lengths))
    return list(zip([0, *ends], ends, strict=False))
