"""Ranks meet, and wait for one another for as long as a long step takes."""

from datetime import timedelta
from socket import socket

import pytest
import torch
import torch.distributed as dist

from rlvr.train.process_group import join
from tests.train.processes import as_ranks, free_port

HOURS = timedelta(hours=2)


def patience(group) -> timedelta:
    return group._get_backend(torch.device("cpu")).options._timeout


def meet(rank: int, address: str, bound: socket | None = None) -> None:
    for _ in range(2):  # a second trainer of the process is in the same group
        join("gloo", address, rank, 2, bound)
    total = torch.tensor([rank + 1.0])
    dist.all_reduce(total)
    assert float(total) == 3
    assert patience(dist.group.WORLD) >= HOURS
    assert dist.distributed_c10d._get_default_store().timeout >= HOURS
    assert dist.distributed_c10d._get_default_timeout(dist.Backend.NCCL) >= HOURS
    dist.destroy_process_group()


def test_ranks_that_have_met_are_patient():
    as_ranks(2, meet, f"127.0.0.1:{free_port()}")


def test_ranks_meet_at_a_port_that_was_never_given_back():
    bound = socket()
    bound.bind(("", 0))
    as_ranks(2, meet, f"127.0.0.1:{bound.getsockname()[1]}", bound)


def test_but_who_cannot_reach_rank_0_does_not_try_for_hours(monkeypatch):
    def unreachable(*_, **named):
        raise dist.DistNetworkError(f"tried for {named.get('timeout', 'minutes')}")

    monkeypatch.setattr(dist, "TCPStore", unreachable)
    monkeypatch.setattr(dist, "is_initialized", lambda: False)
    with pytest.raises(dist.DistNetworkError, match="tried for minutes"):
        join("gloo", "elsewhere:1", 1, 2)


def test_so_is_the_group_that_deepspeed_makes_for_itself(build):
    pytest.importorskip("deepspeed")
    assert patience(build(zero_stage=2).engine.data_parallel_group) >= HOURS
