"""Another actor in the place of one that died, without Ray: how often it is tried, and what is told."""

import asyncio
from concurrent.futures import Future
from types import SimpleNamespace

import pytest

from rlvr.cluster import seats
from rlvr.cluster.calls import WorkerLost
from rlvr.cluster.seats import Seats
from rlvr.config import ClusterConfig
from tests.cluster.fakes import Method, Said

DIED = seats.ray.exceptions.ActorDiedError


class Never:
    def future(self) -> Future:
        return Future()


@pytest.fixture
def seated(monkeypatch):
    """`seated(ready, ...)`: one seat, and how long it slept; each `ready` is what an actor after another answers."""
    monkeypatch.setattr(seats.ray, "kill", lambda actor: None)
    slept = []

    async def sleep(seconds):
        slept.append(seconds)

    monkeypatch.setattr(seats.asyncio, "sleep", sleep)

    def make(*ready, **cfg):
        left = list(ready)
        found = Seats("engine", ClusterConfig(**cfg), lambda n: SimpleNamespace(ready=Method(lambda: left.pop(0))), 1)
        found.begin()
        return found, slept

    return make


def test_a_successor_that_dies_at_its_start_is_replaced_too_and_waited_for_longer(seated):
    found, slept = seated(Said(True), Said(DIED()), Said(DIED()), Said(True))
    (seat,), told = found.all, []
    seat.fell(0)
    asyncio.run(found.replace(seat, told.append, "killed"))
    assert (seat.up, seat.ready, seat.lives, slept) == (True, False, 1, [0.0, 1.0, 2.0])
    assert len(told) == 3 and told[0] == "engine 0 died (killed): it is replaced" and told[2].endswith("again in 2 s")


def test_a_node_with_more_workers_than_deaths_are_made_good_is_one_death(seated):
    found, slept = seated(Said(True), restarts=1)
    all_of_it = [seats.Seat(f"engine {n}", found.all[0].actor, up=False) for n in range(4)]
    found.all, found.start = all_of_it, lambda n: SimpleNamespace(ready=Method(lambda: Said(True)))

    async def lose():
        await asyncio.gather(*(found.replace(seat, lambda text: None, "node gone") for seat in all_of_it))

    asyncio.run(lose())
    assert [(seat.up, seat.lives) for seat in all_of_it] == [(True, 1)] * 4 and slept == [0.0] * 4


def test_a_successor_that_finds_no_place_is_the_end_with_the_knob(seated):
    found, _ = seated(Said(True), Never(), restart_wait_s=0.01)
    found.all[0].fell(0)
    said = r"engine 0 died and could not be placed anew within cluster\.restart_wait_s=0\.01: is there a node"
    with pytest.raises(WorkerLost, match=said):
        asyncio.run(found.replace(found.all[0], lambda text: None, "killed"))
