"""Trainer ranks are started again together, without Ray: how often it is tried, and what is told."""

from types import SimpleNamespace

import pytest

from rlvr.cluster import trainer
from rlvr.cluster.calls import WorkerLost
from rlvr.cluster.trainer import RayTrainer
from tests import toy
from tests.cluster.fakes import Method


class Rank:
    """`built` is what building it says, an error as well; `died` what it died of meanwhile."""

    def __init__(self, built: Exception | None = None, died: str | None = None):
        self.address, self.build = Method(lambda: "host:1"), Method(lambda cfg, address: built)
        self.process = Method(lambda: died)


GONE, BROKEN = Rank(WorkerLost("gone again"), "gone again"), Rank(RuntimeError("gloo: connection closed by peer"))


@pytest.fixture
def dead(monkeypatch):
    """`dead(restarts, *starts)`: two ranks, one of them dead; what is there after each start, in the end two that live.
    And how long it slept."""
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

    def make(restarts: int, *starts: tuple[Rank, Rank]):
        cfg = toy.recipe(1)
        cfg.trainer.ranks, cfg.cluster.restarts = 2, restarts
        started = iter([rank for ranks in starts for rank in ranks])
        ranks = RayTrainer(cfg, lambda n: next(started, Rank()))
        ranks.ranks = [Rank(), Rank(died="killed")]
        ranks.tell = (told := []).append
        return ranks, told, slept

    return make


def test_ranks_that_die_again_while_they_are_built_are_started_once_more(dead):
    ranks, told, slept = dead(5, (Rank(), GONE), (GONE, Rank()))
    assert ranks.revive() == "trainer rank 0 died: all 2 were started again"
    assert len(told) == 3 and "rank 0 died (gone again)" in told[2] and slept == [0.0, 1.0, 2.0]


def test_ranks_that_die_again_and_again_are_the_end_with_the_knob(dead):
    ranks, _, _ = dead(2, *[(Rank(), GONE)] * 9)
    with pytest.raises(WorkerLost, match=r"died \(gone again\); 2 deaths .* cluster\.restarts=2"):
        ranks.revive()


def test_a_death_is_looked_for_where_another_rank_shows_it_first(dead):
    ranks, told, _ = dead(5, (BROKEN, GONE))
    assert ranks.revive() == "trainer rank 1 died: all 2 were started again"
    assert len(told) == 2 and "rank 1 died (gone again)" in told[1]


def test_what_none_of_them_died_of_is_no_death_and_ends_the_run(dead):
    ranks, told, _ = dead(5, (Rank(), BROKEN))
    with pytest.raises(RuntimeError, match="connection closed"):
        ranks.revive()
    assert len(told) == 1
