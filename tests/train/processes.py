"""Ranks of a trainer as processes that start at once: forked from a server that has imported DeepSpeed, and no more.

A fork of the tests' own process would inherit the process group that they share, and OpenMP's threads."""

import multiprocessing
import random
import socket
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Any

from torch.multiprocessing.spawn import start_processes

LIMIT_S = 240.0


def as_ranks(count: int, function: Callable[..., None], *arguments: Any) -> None:
    """`function(rank, *arguments)` in `count` processes; raises what one of them raises, or that they do not end."""
    multiprocessing.set_forkserver_preload(["rlvr.train.deepspeed"])
    ranks = start_processes(function, arguments, nprocs=count, start_method="forkserver", join=False)
    deadline = monotonic() + LIMIT_S
    while not ranks.join(timeout=max(0.0, deadline - monotonic())):
        if monotonic() >= deadline:
            for process in ranks.processes:
                process.kill()
            raise TimeoutError(f"{function.__name__}: {count} ranks did not end within {LIMIT_S:g} s")


def free_port() -> int:
    """One that the kernel gives to nobody who asks for any, as the processes of a Ray do meanwhile."""
    while True:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port := random.SystemRandom().randrange(20_000, 32_000)))
            return port
