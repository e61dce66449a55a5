"""What the workers do besides passing on what they are asked."""

import socket

import pytest
import torch

from rlvr.cluster.actors import TrainerRank
from rlvr.cluster.batches import send
from rlvr.cluster.home import Home
from rlvr.objective import Batch
from tests import toy


class Trainer:
    """Says what it was asked."""

    def __init__(self, asked: list[str]):
        self.asked = asked

    def __getattr__(self, name):
        return lambda *_, **__: self.asked.append(name) or {}


def test_nobody_else_gets_the_port_that_ranks_will_meet_at():
    rank = TrainerRank(0, Home.here())
    host, _, port = rank.address().rpartition(":")
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind((host, int(port)))


@pytest.mark.parametrize(
    ("placement", "gpu", "gives_back"),
    [("colocated", True, True), ("colocated", False, False), ("disaggregated", True, False)],
)
def test_memory_that_a_rank_has_freed_is_there_for_the_engine_that_wakes_beside_it(
    monkeypatch, placement, gpu, gives_back
):
    pytest.importorskip("deepspeed")
    asked: list[str] = []
    monkeypatch.setattr("rlvr.train.deepspeed.DeepSpeedTrainer", lambda *_: asked.append("build") or Trainer(asked))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: asked.append("given back"))
    cfg = toy.recipe(1)
    cfg.cluster.placement = placement
    rank = TrainerRank(0, Home.here())
    rank.build(cfg, "")
    rank.load("folder")
    assert rank.step(send(Batch.of_tokens(torch.ones(1, 2, dtype=torch.int64))), None, 1e-3) == {}
    rank.export("folder")
    done = ["build", "load", "step", "export"]
    assert asked == [what for name in done for what in ([name, "given back"] if gives_back else [name])]
