"""Where the ranks meet, and how long they wait for one another. Knows torch.distributed; no DeepSpeed and no Ray."""

from datetime import timedelta
from socket import socket

import torch.distributed as dist
from torch.distributed import distributed_c10d

# NCCL's own ten minutes end ranks that only wait: for one that converts a large checkpoint, or has the longest rows. A
# dead rank is noticed by whoever started it; this is for what hangs and does not die.
PATIENCE = timedelta(hours=3)


def join(backend: str, address: str, rank: int, ranks: int, bound: socket | None = None) -> None:
    """`address` is host:port of rank 0, the same on every rank; "" with one rank. `bound`: rank 0's socket that is
    bound to it, so that nobody else can take the port meanwhile. Joins nothing where there is a group already: with
    cluster=inline it is vLLM's, of this one process."""
    distributed_c10d.default_pg_timeout = PATIENCE  # of the groups that DeepSpeed makes too, which names none
    distributed_c10d.default_pg_nccl_timeout = PATIENCE
    if dist.is_initialized():
        return
    host, port = address.split(":") if address else ("127.0.0.1", "0")
    listening = bound.detach() if bound and rank == 0 else None
    store = dist.TCPStore(
        host, int(port), ranks, is_master=rank == 0, wait_for_workers=False, master_listen_fd=listening
    )
    store.set_timeout(PATIENCE)  # not to find rank 0: who cannot reach it within minutes never will
    dist.init_process_group(backend, store=store, rank=rank, world_size=ranks)
