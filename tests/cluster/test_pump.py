"""What goes on between engines and verifiers, with actors that are no processes: what is kept, and who listens."""

import asyncio
import gc
import threading
import time
from types import SimpleNamespace

import pytest

from rlvr.cluster import pipeline as whole
from rlvr.cluster import pump, seats
from rlvr.cluster.asking import Asking
from rlvr.cluster.pump import Order
from rlvr.cluster.seats import Seat, Seats
from rlvr.config import ClusterConfig
from rlvr.rollout.ahead import Ahead
from rlvr.types import Completion, Sampling, Verdict
from rlvr.verify.assembly import Assembly, Question
from tests.cluster.conftest import NOTHING
from tests.cluster.fakes import Method, Said, made, prompts

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


def full(requests):
    raise seats.ray.exceptions.OutOfDiskError("disk full")


@pytest.mark.parametrize("at", ["order", "joined", "died"])
def test_work_that_cannot_be_handed_over_is_the_end_and_not_waited_for(pipeline, at):
    """Ray raises it at once, where it is sent: in whatever the loop was asked to do at that moment."""
    pipe = pipeline(engines=2, max_sequences=4)
    first, second = pipe.seats.all
    first.ready = second.ready = at == "order"
    second.actor.add = Method(full)
    if at == "order":
        arriving = pipe.groups(prompts(2), SAMPLING)
    elif at == "joined":
        arriving = pipe.groups(prompts(2), SAMPLING)
        pipe.pump.joined(second, 0)
    else:
        first.actor.held = True
        pipe.pump.joined(first, 0)
        arriving = pipe.groups(prompts(1), SAMPLING)
        until(lambda: first.owed)
        second.ready = True
        pipe.pump.died(first, 0, "gone")
        until(lambda: first.lives == 1)  # the dead one is replaced all the same
    assert isinstance(read(arriving)[-1], seats.ray.exceptions.OutOfDiskError)


def test_what_goes_wrong_where_completions_are_judged_again_is_the_end_too(pipeline, monkeypatch):
    pipe = pipeline()
    groups = read(pipe.groups(prompts(1), SAMPLING))
    monkeypatch.setattr(Assembly, "ended", lambda self, completions: completions.no_such_thing)

    def judged():
        yield from pipe.verify(groups)

    assert [type(error) for error in read(judged())] == [AttributeError]


def test_the_end_stays_the_end_for_who_goes_on_after_a_death_that_was_mended(pipeline):
    """An engine is given up while a trainer rank is dead: the ranks are revived, and that engine never comes."""
    pipe = pipeline()
    pipe.tell = lambda text: None
    pipe.pump.engines.budget.limit = 0
    pipe.seats.all[0].actor.dead = seats.ray.exceptions.ActorDiedError()
    errors = []
    for _ in range(3):
        errors += read(pipe.groups(prompts(2), SAMPLING))
        pipe.flush()
    assert len(errors) == 3 and all("cluster.restarts=0" in str(error) for error in errors)


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


def settled(pipe) -> None:
    """The loop has done whatever it could."""

    async def turns() -> None:
        for _ in range(50):
            await asyncio.sleep(0)

    asyncio.run_coroutine_threadsafe(turns(), pipe.pump._loop).result(timeout=10)


def test_the_death_of_an_actor_that_was_replaced_since_is_no_news():
    seat = Seat("engine 0", None, lives=1)
    assert not seat.fell(0) and seat.up and seat.ready
    assert seat.fell(1) and not seat.up and not seat.ready
    assert not seat.fell(1)


def test_a_seat_is_found_without_a_look_at_what_others_owe():
    class Owed(dict):
        def __eq__(self, other):
            raise AssertionError("compared")

    all_alike = [Seat("engine", None, owed=Owed()) for _ in range(3)]
    assert [all_alike.index(seat) for seat in all_alike] == [0, 1, 2]


def test_only_the_engine_that_got_the_weights_is_given_work(pipeline):
    pipe = pipeline()
    (seat,) = pipe.seats.all
    seat.ready, seat.lives = False, 1
    pipe.pump.joined(seat, 0)  # they went to the one that sat here before
    settled(pipe)
    assert not seat.ready
    seat.up = False
    pipe.pump.joined(seat, 1)
    settled(pipe)
    assert not seat.ready
    seat.up = True
    pipe.pump.joined(seat, 1)
    settled(pipe)
    assert seat.ready


def waiting(pipe) -> list[int]:
    return [share[0].prompt.position for share in pipe.pump._waiting]


def test_an_engine_is_given_what_it_has_room_for_and_the_rest_waits(pipeline):
    pipe = pipeline(engines=2, max_sequences=4)
    for seat in pipe.seats.all:
        seat.actor.held = True
    arriving = pipe.groups(prompts(7), SAMPLING)
    settled(pipe)
    assert [len(seat.owed) for seat in pipe.seats.all] == [8, 8]  # one prompt more than is decoded: no gap
    assert waiting(pipe) == [4, 5, 6]
    pipe.seats.all[1].actor.held = False  # whoever is done first
    until(lambda: not waiting(pipe))
    pipe.seats.all[0].actor.held = False
    assert sorted(group.prompt.position for group in read(arriving)) == list(range(7))


@pytest.mark.parametrize(
    ("held", "owed"), [("engine", "engine 0 owes 4 completions"), ("verifier", "verifier worker 0 owes 1 messages")]
)
def test_who_owes_something_and_is_silent_is_told_of_once(pipeline, monkeypatch, held, owed):
    monkeypatch.setattr(pump, "SILENCE_S", 0.1)
    pipe = pipeline(engines=2, verifiers=2)
    pipe.tell = (told := []).append
    actor = pipe.seats.all[0].actor if held == "engine" else pipe.verifier
    actor.held = True
    arriving = pipe.groups(prompts(2), SAMPLING)
    release = threading.Thread(target=lambda: (until(lambda: told), setattr(actor, "held", False)))
    release.start()
    assert len(read(arriving)) == 2
    release.join()
    assert len(told) == 1 and told[0].startswith(owed)
    (late,) = [seat for seat in (*pipe.seats.all, *pipe.verifiers) if told[0].startswith(seat.name)]
    assert not late.silent(0.0) and not late.owed
    late.owed, late.heard = {"more": 1}, -1e9
    pipe.pump._soon(pipe.pump._tell_of_silence)
    settled(pipe)
    assert late.silent(9.0) and pipe.pump.events.empty()
    late.owed = {}


def test_engines_that_nobody_listens_to_are_not_called_silent(pipeline, monkeypatch):
    """A verifier hangs, and so many questions wait for it that no engine is heard until there is room again."""
    monkeypatch.setattr(pump, "SILENCE_S", 0.1)
    pipe = pipeline(engines=2, verifiers=1, max_waiting=1)
    pipe.tell = (told := []).append
    pipe.verifier.held = True
    arriving = pipe.groups(prompts(6), SAMPLING)
    release = threading.Thread(target=lambda: (until(lambda: told), setattr(pipe.verifier, "held", False)))
    release.start()
    assert len(read(arriving)) == 6
    release.join()
    assert all(line.startswith("verifier worker 0 owes") for line in told)


def test_what_a_dead_engine_owes_comes_first(pipeline):
    pipe = pipeline(max_sequences=4)
    pipe.bring = None
    (seat,) = pipe.seats.all
    seat.actor.held = True
    pipe.groups(prompts(5), SAMPLING)
    settled(pipe)
    assert waiting(pipe) == [2, 3, 4]
    pipe.pump.died(seat, 0, "gone")
    settled(pipe)
    assert waiting(pipe) == [0, 1, 2, 3, 4] and not seat.owed


def test_weights_are_brought_only_to_who_has_none(pipeline):
    pipe = pipeline(engines=2)
    brought: list = []
    pipe.bring = lambda engines: brought.append([seat.name for seat in engines.seats])
    first, second = pipe.seats.all
    first.ready = False
    pipe._welcome(first), pipe._welcome(second)
    assert brought == [["engine 0"]]


def test_whoever_is_to_rest_is_not_woken_by_weights(pipeline, monkeypatch):
    """Colocated: two engines have died. The successor of one is there, and nobody has read that, when all are to sleep;
    while that of the other is waited for it is read."""
    monkeypatch.setattr(whole, "get", lambda said: said.value)
    pipe = pipeline(engines=2)
    pipe.cfg.cluster.placement = "colocated"
    first, second = pipe.seats.all
    brought: list = []
    pipe.bring = lambda engines: brought.append([seat.name for seat in engines.seats])
    pipe.pump.died(first, 0, "gone")
    until(lambda: first.lives == 1)
    settled(pipe)
    second.up = False
    pipe.pump.events.put(lambda: setattr(second, "up", True))
    pipe.rest()
    assert second.up and not brought
    pipe._welcome(first)  # later, where someone waits for groups
    assert brought == [["engine 0"]]


def test_where_nothing_is_published_a_new_engine_samples_with_what_it_starts_with(pipeline):
    """Of a model that is evaluated, and not trained."""
    pipe = pipeline()
    pipe.bring = None
    (seat,) = pipe.seats.all
    seat.actor.dead = seats.ray.exceptions.ActorDiedError()
    assert len(read(pipe.groups(prompts(3), SAMPLING))) == 3
    assert (seat.lives, seat.ready) == (1, True)


@pytest.mark.parametrize(
    ("asked_at", "sampled_at", "seconds"),
    [(10.0, 20.0, 3.0), (21.0, 20.0, 2.0), (10.0, float("inf"), 0.0)],
    ids=["sampling ended while it was waited for", "before", "others are still sampled"],
)
def test_only_what_is_waited_for_after_sampling_is_verification(pipeline, monkeypatch, asked_at, sampled_at, seconds):
    pipe, order = pipeline(), Order(0, None, 1)
    clock = [asked_at]
    monkeypatch.setattr(whole, "perf_counter", lambda: clock[0])

    def arrive() -> None:
        clock[0], order.sampled = 23.0, sampled_at
        order.arrived.append("a group")

    pipe.pump.events.put(arrive)
    assert list(pipe._arriving(order)) == ["a group"]
    assert pipe.verifying_s == seconds


def test_the_last_completion_ends_the_sampling(pipeline):
    pipe = pipeline(max_sequences=4)
    pipe.seats.all[0].actor.held = True
    order = pipe.pump.order(Assembly(pipe.plan, prompts(1), 4), prompts(1), SAMPLING)
    settled(pipe)
    assert order.sampled == float("inf")
    began = time.perf_counter()
    pipe.seats.all[0].actor.held = False
    until(lambda: order.sampled < float("inf"))
    assert began <= order.sampled <= time.perf_counter()


def test_questions_go_to_who_has_the_least_to_do(pipeline):
    pipe = pipeline(verifiers=2)
    for seat in pipe.verifiers:
        seat.actor.held = True
    arriving = pipe.groups(prompts(2), SAMPLING)
    until(lambda: pipe.pump._asking.waiting == 8)
    assert [sum(seat.owed.values()) for seat in pipe.verifiers] == [4, 4]
    pipe.verifiers[0].actor.held = False
    until(lambda: not pipe.verifiers[0].owed)
    again = pipe.groups(prompts(1), SAMPLING)
    pipe.verifiers[1].actor.held = False
    assert (len(read(arriving)), len(read(again))) == (2, 1)


def test_no_completion_is_masked_because_verifiers_with_nothing_to_do_were_dead_already(pipeline):
    """They owe nothing, so they would be asked first, one after the other."""
    pipe = pipeline(verifiers=8)
    for seat in pipe.verifiers[:5]:
        seat.actor.dead = seats.ray.exceptions.ActorDiedError()
    (group,) = read(pipe.groups(prompts(1), SAMPLING))
    assert [verdict.reward for verdict in group.verdicts] == [1.0] * 4


def test_a_question_that_is_there_when_three_that_were_alive_die_is_masked(pipeline):
    pipe, asked = pipeline(verifiers=5), []
    for seat in pipe.verifiers:

        def die(questions, seat=seat):
            asked.append(seat.name)
            return Said(seats.ray.exceptions.ActorDiedError())

        seat.actor.answer = Method(die)
    (group,) = read(pipe.groups(prompts(1), Sampling(1, 1.0, 8)))
    assert [verdict.reason for verdict in group.verdicts] == ["look_verifier_lost"]
    assert len(asked) == 3


def test_no_message_has_so_many_questions_that_all_would_wait_for_a_slow_one(pipeline):
    pipe, asked = pipeline(verifiers=2), []
    for seat in pipe.verifiers:
        answer = seat.actor.answer.called
        note = lambda questions, answer=answer: asked.append(len(questions[0].samples)) or answer(questions)  # noqa: E731
        seat.actor.answer = Method(note)
    whole = read(pipe.groups(prompts(50), SAMPLING))
    assert len(pipe.verify(whole)) == 50  # 200 completions at once
    assert asked[-4:] == [50] * 4


def test_engines_wait_for_verifiers_and_go_on_with_them(pipeline):
    """`max_waiting` and a few more: what has been read is counted a moment later than it is asked about."""
    pipe = pipeline(max_waiting=2)
    pipe.verifier.held = True
    arriving = pipe.groups(prompts(6), SAMPLING)
    until(lambda: pipe.pump._asking.waiting > 2)
    settled(pipe)
    asked = pipe.pump._asking.waiting
    assert asked <= 2 + 3 and len(pipe.seats.all[0].owed) == 6 * 4 - asked
    pipe.verifier.held = False
    assert len(read(arriving)) == 6 and pipe.pump._asking.waiting == 0


def test_whoever_waits_for_room_is_woken_once_and_not_by_each_answer():
    """With as many engines as a large cluster has, to wake them all for each answer was all that the loop did."""
    asked: list[asyncio.Future] = []

    def answer(questions):
        asked.append(asyncio.get_running_loop().create_future())
        return asked[-1]

    async def turns() -> None:
        for _ in range(300):
            await asyncio.sleep(0)

    async def go() -> None:
        sizes, woken, passed = [1, 2, 3, 1, 4] * 4, [], []
        asking = Asking(judges, 8, print, None)
        wake = asking.changed.notify_all
        asking.changed.notify_all = lambda: (woken.append(asking.waiting), wake())

        async def engine() -> None:
            await asking.room()
            passed.append(asking.waiting)

        tasks = [asyncio.create_task(asking.answers([Question(None, 0, (), (None,) * size)])) for size in sizes]
        await turns()
        tasks += [asyncio.create_task(engine()) for _ in range(50)]
        for n in range(len(sizes)):
            await turns()
            assert asking.waiting == sum(sum(seat.owed.values()) for seat in judges.all) == sum(sizes[n:])
            asked[n].set_result([])
        await asyncio.gather(*tasks)
        assert woken == [8] and passed == [8] * 50

    judges = Seats("verifier worker", ClusterConfig(), None, 3)
    judges.all = [Seat(f"verifier worker {n}", SimpleNamespace(answer=Method(answer))) for n in range(3)]
    asyncio.run(go())


@pytest.mark.parametrize("held", ["engine", "verifier"])
def test_what_was_flushed_never_comes_whoever_had_it(pipeline, held):
    pipe = pipeline(max_sequences=4, max_waiting=2)
    (seat,) = pipe.seats.all
    actor = seat.actor if held == "engine" else pipe.verifier
    actor.held = True
    old = pipe.pump.order(Assembly(pipe.plan, prompts(4), 4), prompts(4), SAMPLING)
    if held == "verifier":
        until(lambda: pipe.pump._asking.waiting > 2)
    settled(pipe)
    assert seat.owed and seat.actor.todo and waiting(pipe)
    pipe.flush()
    assert not seat.owed and not seat.actor.todo and not waiting(pipe) and not pipe.pump._orders
    actor.held = False
    assert [group.prompt.id for group in read(pipe.groups(prompts(1), SAMPLING))] == ["0"]
    settled(pipe)
    assert (len(old.arrived), pipe.pump.events.qsize()) == (0, 0)


@pytest.mark.parametrize("in_flight", [True, False])
def test_engines_are_told_whether_new_weights_may_come_in_the_middle(pipeline, monkeypatch, in_flight):
    monkeypatch.setattr(whole, "get", lambda said: said.value)
    pipe = pipeline(engines=2)
    pipe.cfg.rollout.update_in_flight = in_flight
    asked = []
    for seat in pipe.seats.all:
        seat.actor.begin_update = Method(lambda value: asked.append(value) or Said(None))
        seat.actor.load_weights, seat.actor.end_update = Method(lambda *_: Said(3)), Method(lambda: Said(None))
        seat.actor.score = Method(lambda probe: Said([0.0]))
    loaded = pipe.load_weights(NOTHING, 7, [1, 2])
    assert asked == [in_flight] * 2
    assert loaded.nbytes == 6 and loaded.scores() == {"engine 0": [0.0], "engine 1": [0.0]}


def test_what_ends_in_one_round_of_the_loop_is_asked_about_together(pipeline):
    """A loop that is behind has many messages to read at once: with a question for each it would stay behind."""
    pipe, asked = pipeline(engines=3), []
    answer = pipe.verifier.answer.called
    pipe.verifier.answer = Method(lambda questions: asked.append(len(questions[0].samples)) or answer(questions))
    held = [seat.actor for seat in pipe.seats.all]
    for engine in held:
        engine.held = True
    groups = pipe.groups(prompts(6), SAMPLING)
    until(lambda: sum(len(engine.todo) for engine in held) == 24)

    def burst():  # in the loop: nothing else gets a turn meanwhile
        for engine, seat in zip(held, pipe.seats.all, strict=True):
            for request in engine.todo:
                pipe.pump._ended(seat, [(request.key, Completion((1,), (True,), (0.0,), 0, "x", "eos"))])
            engine.todo.clear()

    pipe.pump._loop.call_soon_threadsafe(burst)
    assert len(read(groups)) == 6 and asked == [24]
