"""A GPU that fails under a living process. Knows CUDA's errors; no engine and no trainer.

After an Xid, an ECC error or an illegal access every further call to the GPU fails, whatever is asked of the process.
"""

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from inspect import isfunction, isgeneratorfunction
from typing import TypeVar

import torch

Actor = TypeVar("Actor", bound=type)


def dies_with_its_gpu(actor: Actor) -> Actor:
    """A class of actors, each of which ends once its GPU has failed: Ray then sees a death, and it is replaced."""
    for name, method in list(vars(actor).items()):
        if isfunction(method) and not name.startswith("__"):  # whoever fails when it is made is dead as it is
            setattr(actor, name, _guarded(method))
    return actor


def _guarded(method: Callable) -> Callable:
    @wraps(method)  # what Ray has noted on it too
    def call(*args, **kwargs):
        with _watched():
            return method(*args, **kwargs)

    @wraps(method)
    def stream(*args, **kwargs):
        with _watched():
            yield from method(*args, **kwargs)

    return stream if isgeneratorfunction(method) else call


@contextmanager
def _watched() -> Iterator[None]:
    try:
        yield
    except Exception:  # CUDA's errors come by many names: torch's, Triton's, cuBLAS's
        if gpu_has_failed():
            traceback.print_exc()
            print("the GPU does not work any more in this process, which ends", file=sys.stderr, flush=True)
            os._exit(1)
        raise


def gpu_has_failed() -> bool:
    """Whether the process can do nothing more on its GPU. False where only memory, or a kernel, is missing; does not
    wait for what the GPU is doing."""
    if not torch.cuda.is_initialized():
        return False
    try:
        torch.cuda.current_stream().query()
    except RuntimeError:
        return True
    return False
