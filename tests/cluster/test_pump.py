"""What goes on between engines and verifiers, with actors that are no processes: what is kept, and who listens."""

import gc
import threading
import time

import pytest

from rlvr.cluster import seats
from rlvr.rollout.ahead import Ahead
from rlvr.types import Completion, Sampling, Verdict
from rlvr.verify.assembly import Assembly
from tests.cluster.fakes import made, prompts

SAMPLING = Sampling(4, 1.0, 8)


@pytest.fixture
def pipeline(tmp_path, monkeypatch):
    monkeypatch.setattr(seats.ray, "kill", lambda actor: None)
    pipes = []

    def make(**settings):
        pipes.append(made(tmp_path, **settings))
        return pipes[-1]

    yield make
    for pipe in pipes:
        pipe.close()


def read(arriving) -> list:
    """All groups; the error, where there is one, comes last."""
    groups: list = []

    def drain():
        try:
            groups.extend(arriving)
        except Exception as error:
            groups.append(error)

    reading = threading.Thread(target=drain, daemon=True)
    reading.start()
    reading.join(timeout=10)
    assert not reading.is_alive(), f"{len(groups)} groups have come, and then none"
    return groups


def until(reached) -> None:
    deadline = time.monotonic() + 10
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_nothing_is_held_of_groups_that_were_handed_over(pipeline):
    pipe = pipeline(engines=2)

    def held() -> dict[str, int]:
        gc.collect()
        counts = dict.fromkeys(("Assembly", "Completion", "Verdict"), 0)
        for one in gc.get_objects():
            if type(one) in (Assembly, Completion, Verdict):
                counts[type(one).__name__] += 1
        return counts

    before = held()  # of whatever was tested in this process
    for _ in range(3):
        groups = list(pipe.groups(prompts(4), SAMPLING))  # as an evaluation
        assert len(pipe.verify(groups)) == 4
    ahead = Ahead(lambda start, count: pipe.groups(prompts(start + count)[start:], SAMPLING), 4)
    for _ in range(3):
        groups = ahead.take(4)
    assert len(groups) == 4 and list(pipe.groups([], SAMPLING)) == []
    del groups
    until(lambda: not pipe.pump._tasks and not pipe.pump._orders)
    assert held() == before


def test_a_new_engine_is_heard_though_someone_still_waits_with_what_the_dead_one_said(pipeline):
    """Verifiers cannot keep up, so that the loop waits with a message in its hand; then a publication finds the
    engine dead."""
    pipe = pipeline(max_waiting=2)
    pipe.verifier.held = True
    arriving = pipe.groups(prompts(8), SAMPLING)
    (seat,) = pipe.seats.all
    until(lambda: pipe.pump._asking.waiting > 2)
    seat.actor.dead = seats.ray.exceptions.ActorDiedError()
    pipe.pump.died(seat, seat.lives, "found by a publication")
    until(lambda: seat.up)
    threading.Timer(0.5, lambda: setattr(pipe.verifier, "held", False)).start()  # the new one is at work by then
    assert len(read(arriving)) == 8


def test_an_engine_that_refuses_its_work_is_the_end_and_not_asked_for_ever(pipeline):
    pipe = pipeline()
    pipe.seats.all[0].actor.refuses = seats.ray.exceptions.RayTaskError("add", "...", ValueError("does not fit"))
    (error,) = read(pipe.groups(prompts(1), SAMPLING))
    assert error is pipe.seats.all[0].actor.refuses


def test_an_engine_that_ray_kills_for_its_memory_is_replaced_as_any_other(pipeline):
    said = (
        "1 worker(s) were killed due to the node running low on memory. 1.66GB used / 23.54GB limit\n"
        "OOM kill reason: Memory usage exceeded threshold\n- bytes evicted: 0\n\nRefer to the documentation on ..."
    )
    pipe = pipeline()
    pipe.tell = (told := []).append
    (seat,) = pipe.seats.all
    seat.actor.dead = seats.ray.exceptions.OutOfMemoryError(said)
    assert len(read(pipe.groups(prompts(2), SAMPLING))) == 2 and seat.lives == 1
    reason = " ".join(said.splitlines()[:2])
    assert told == [f"engine 0 died ({reason}): it is replaced"]
