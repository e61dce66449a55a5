"""Ranks that die, seen by the driver; without a model."""

import os
import time
from types import SimpleNamespace

import pytest

from tests import toy

pytestmark = pytest.mark.slow


@pytest.fixture
def rank(ray):
    @ray.remote(num_cpus=0)
    class Rank:
        def address(self):
            return "host:1"

        def build(self, cfg, address):
            return None

        def process(self):
            return os.getpid()

        def weights(self, buckets, then):
            yield from (bucket for bucket in range(buckets))
            if then == "die":
                time.sleep(0.3)
                os._exit(9)
            if then == "raise":
                raise ValueError("no weights")
            if then == "wait":
                time.sleep(600)

    return Rank


def trainer(make, **knobs):
    from rlvr.cluster.trainer import RayTrainer

    cfg = toy.recipe(1)
    cfg.trainer.ranks = 2
    for name, value in knobs.items():
        setattr(cfg.cluster, name, value)
    ranks = RayTrainer(cfg, make)
    ranks.tell = (told := []).append
    return ranks, told


def kill(ray, actor) -> None:
    """Until it is seen by whoever asks it next."""
    ray.kill(actor)
    with pytest.raises(ray.exceptions.RayActorError):
        while True:
            ray.get(actor.process.remote())


def test_what_is_done_about_a_dead_rank_is_told_before_it_is_waited_for(ray, rank):
    ranks, told = trainer(lambda n: rank.remote())
    ray.get(ranks.begin())
    assert ranks.revive() is None and told == []
    kill(ray, ranks.ranks[1])
    assert ranks.revive() == "trainer rank 1 died: all 2 were started again"
    (said,) = told
    assert said.startswith("trainer rank 1 died (") and said.endswith("): all 2 are replaced")
    ranks.kill()


@pytest.mark.parametrize("homeless", [0, 1])
def test_a_rank_without_a_place_is_the_end_after_a_while_in_words(ray, rank, homeless):
    from rlvr.cluster.calls import WorkerLost

    room = {0: 0, 1: 0}
    ranks, told = trainer(lambda n: rank.options(num_cpus=room[n]).remote(), restart_wait_s=10)
    ray.get(ranks.begin())
    room[homeless] = 999
    kill(ray, ranks.ranks[homeless])
    words = f"rank {homeless} died and could not be placed anew within cluster.restart_wait_s=10: is there a node"
    with pytest.raises(WorkerLost, match=words):
        ranks.revive()
    assert len(told) == 1
    ranks.kill()


def shipped(rank, *streams):
    """What comes of rank 0's weights, when the ranks end like this."""
    from rlvr.cluster.trainer import Weights

    def asked(buckets, then):
        actor = rank.remote()
        options = lambda **told: SimpleNamespace(  # noqa: E731
            remote=lambda: actor.weights.options(**told).remote(buckets, then)
        )
        return SimpleNamespace(weights=SimpleNamespace(options=options))

    return Weights([asked(*stream) for stream in streams], colocated=False).to([0, 1])


def test_every_engine_gets_every_bucket(ray, rank):
    assert [ray.get(refs) for refs in shipped(rank, (3, ""), (0, ""))] == [[0, 0], [1, 1], [2, 2]]


@pytest.mark.parametrize("streams", [((1, "wait"), (0, "die")), ((1, "die"), (0, "wait"))], ids=["1 dies", "0 dies"])
def test_a_rank_that_dies_is_not_waited_for_by_those_that_would_wait_for_it(ray, rank, streams):
    from rlvr.cluster.calls import WorkerLost

    began = time.monotonic()
    with pytest.raises(WorkerLost):
        list(shipped(rank, *streams))
    assert time.monotonic() - began < 60


def test_an_error_of_another_rank_is_raised(ray, rank):
    """Before or behind the bucket of rank 0, which then waits for ever."""
    with pytest.raises(ray.exceptions.RayTaskError, match="no weights"):
        list(shipped(rank, (1, "wait"), (0, "raise")))
