"""What vLLM's own workers can do besides: imported in each process that holds the model, or a part of it."""

from collections.abc import Mapping
from typing import Any

import torch
import vllm._custom_ops as ops
from tqdm.std import TqdmDefaultWriteLock

TqdmDefaultWriteLock.mp_lock = None  # a semaphore that would outlive a process which is killed; nobody sees its bars
if not torch.cuda.is_available():
    # weights that oneDNN has packed cannot be loaded again, and a tied head would silently stay the old one
    ops._supports_onednn = False


class Loading:
    """Mixed into vLLM's class of workers, whose `apply_model` it calls."""

    def load_bucket(self: Any, bucket: Mapping[str, torch.Tensor]) -> None:
        """Whole tensors: a worker of a tensor-parallel engine takes its part of each."""
        self.apply_model(lambda model: model.load_weights(bucket.items()))
