"""Trainer ranks are started again together, without Ray: how often it is tried, and what is told."""

from types import SimpleNamespace

import pytest

from rlvr.cluster import trainer
from rlvr.cluster.calls import WorkerLost
from rlvr.cluster.trainer import RayTrainer
from tests import toy
from tests.cluster.fakes import Method


class Rank:
    def __init__(self, fails: bool):
        self.address = Method(lambda: "host:1")
        self.build = Method(lambda cfg, address: WorkerLost("gone again") if fails else None)


@pytest.fixture
def dead(monkeypatch):
    """`dead(restarts, failing)`: two ranks, one of them dead; so many starts fail. And how long it slept."""
    slept = []

    def first_failure(refs):
        for ref in refs:
            if isinstance(ref, Exception):
                raise ref
        return refs

    monkeypatch.setattr(trainer, "sleep", slept.append)
    monkeypatch.setattr(trainer, "first_failure", first_failure)
    monkeypatch.setattr(trainer, "death", lambda ref: ref)
    ray = SimpleNamespace(wait=lambda refs, **_: (refs, []), kill=lambda actor: None)
    monkeypatch.setattr(trainer, "ray", ray)

    def make(restarts: int, failing: int):
        cfg = toy.recipe(1)
        cfg.trainer.ranks, cfg.cluster.restarts = 2, restarts
        starts = iter(range(99))
        ranks = RayTrainer(cfg, lambda n: Rank(next(starts) < 2 * failing))
        ranks.ranks = [SimpleNamespace(process=Method(lambda died=died: died)) for died in (None, "killed")]
        ranks.tell = (told := []).append
        return ranks, told, slept

    return make


def test_ranks_that_die_again_while_they_are_built_are_started_once_more(dead):
    ranks, told, slept = dead(restarts=5, failing=2)
    assert ranks.revive() == "trainer rank 1 died: all 2 were started again"
    assert len(told) == 3 and "died (gone again)" in told[2] and slept == [0.0, 1.0, 2.0]


def test_ranks_that_die_again_and_again_are_the_end_with_the_knob(dead):
    ranks, _, _ = dead(restarts=2, failing=9)
    with pytest.raises(WorkerLost, match=r"died \(gone again\); 2 deaths .* cluster\.restarts=2"):
        ranks.revive()
