"""How a bucket of weights gets from a trainer rank into an engine.

shipped     through Ray's object store: one copy on each node for all of its engines, on whatever device
lent        to an engine on the rank's own device, which reads it where it lies: CUDA IPC, without a GPU shared memory
"""

import pickle
from collections.abc import Mapping
from multiprocessing.reduction import ForkingPickler

import numpy as np
import torch
from torch import Tensor

# Ray's object store shares numpy arrays between processes without a copy, and knows no bfloat16
Shipped = dict[str, tuple[np.ndarray, bool]]
Lent = bytes


def ship(bucket: Mapping[str, Tensor]) -> Shipped:
    half = {name: tensor.dtype == torch.bfloat16 for name, tensor in bucket.items()}
    return {n: ((t.view(torch.int16) if half[n] else t).contiguous().numpy(), half[n]) for n, t in bucket.items()}


def lend(bucket: Mapping[str, Tensor]) -> Lent:
    """Handles of the tensors. Whoever lends keeps them alive and unchanged until they have been read; each handle is to
    be opened once: CUDA keeps memory that was lent and never opened."""
    import torch.multiprocessing  # teaches the pickler what a tensor is

    torch.multiprocessing.set_sharing_strategy("file_system")  # a name can be sent through Ray, a descriptor cannot
    if torch.cuda.is_available():
        torch.cuda.synchronize()  # the engine's stream knows nothing of ours
    return bytes(ForkingPickler.dumps(dict(bucket)))


def opened(bucket: Shipped | Lent) -> dict[str, Tensor]:
    """Views of memory that others own: to be copied by whoever keeps them."""
    if isinstance(bucket, bytes):
        lent: dict[str, Tensor] = pickle.loads(bucket)
        return lent
    tensors = {}
    for name, (array, half) in bucket.items():
        tensor = torch.from_numpy(array if array.flags.writeable else _unlocked(array))
        tensors[name] = tensor.view(torch.bfloat16) if half else tensor
    return tensors


def _unlocked(array: np.ndarray) -> np.ndarray:
    """The same memory without numpy's read-only mark, which torch would warn of; engines only ever read it."""
    return np.frombuffer(array.reshape(-1).data.cast("B"), dtype=array.dtype).reshape(array.shape)
