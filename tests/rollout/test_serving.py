"""More requests and other weights reach an engine while it decodes."""

import threading
import time
from contextlib import contextmanager
from dataclasses import replace

import pytest

from rlvr.rollout import serving
from rlvr.rollout.engine import Request, generate
from rlvr.rollout.serving import Server
from rlvr.types import Prompt, Sampling
from tests.rollout.fakes import FakeEngine

SAMPLING = Sampling(completions=2, temperature=1.0, max_tokens=8)


def prompt(position: int) -> Prompt:
    return Prompt(str(position), position, (), (1,), "")


def requests(*positions: int) -> list[Request]:
    return [Request((p, i), prompt(p), i, SAMPLING) for p in positions for i in range(SAMPLING.completions)]


@contextmanager
def reading(server: Server):
    """What `serve` yields, read by a thread."""
    read: list = []

    def drain():
        for done in server.serve():
            read.extend(done)

    thread = threading.Thread(target=drain)
    thread.start()
    yield read
    thread.join(timeout=20)
    assert not thread.is_alive()


def test_every_request_is_answered_once_and_no_more_run_than_there_is_room_for():
    server = Server(FakeEngine(max_num_seqs=3))
    server.add(requests(*range(5)))
    with reading(server) as read:
        server.add(requests(5, 6))
    assert sorted(key for key, _ in read) == [(p, i) for p in range(7) for i in range(2)]
    assert server.engine.most == 3


def test_what_ends_makes_room_at_once():
    """A slow completion is decoded beside all the others: it holds nobody back."""
    server = Server(FakeEngine(lambda request: 30 if request.prompt.position == 0 else 3, max_num_seqs=4))
    server.add(requests(*range(8)))
    with reading(server) as read:
        pass
    assert {key[0] for key, _ in read[-2:]} == {0}
    assert server.engine.steps == 30  # 14 short ones of 3 steps, two at a time, fit beside it


def messages(monkeypatch, lengths: list[int]) -> list[tuple[int, int]]:
    """Of completions of these lengths in one engine: how many each holds, and the step it comes after, 0.01 s each."""
    engine = FakeEngine(lambda request: lengths[request.index], max_num_seqs=len(lengths))
    monkeypatch.setattr(serving, "monotonic", lambda: engine.steps * 0.01)
    server, sampling = Server(engine), replace(SAMPLING, completions=len(lengths))
    server.add([Request((0, i), prompt(0), i, sampling) for i in range(len(lengths))])
    return [(len(done), engine.steps) for done in server.serve()]


def test_what_ends_within_a_while_is_one_message_and_nobody_waits_for_longer(monkeypatch):
    """Eight end in steps 3 to 10; the others have 40 yet, and keep none of them back."""
    told = messages(monkeypatch, [*range(3, 11), *[50] * serving.MOST])
    assert told == [(3, 5), (5, 10), (serving.MOST, 50)]


def test_the_last_ones_are_told_of_at_once(monkeypatch):
    assert messages(monkeypatch, [2, 2, 3, 7]) == [(2, 2), (1, 3), (1, 7)]


def test_a_message_holds_no_more_than_many(monkeypatch):
    """All end within a while: as many as may, those before the last ones, and these."""
    monkeypatch.setattr(serving, "WHILE_S", 100.0)
    told = [count for count, _ in messages(monkeypatch, list(range(2, 42)))]
    assert told == [serving.MOST, 40 - 2 * serving.MOST + 1, *[1] * (serving.MOST - 1)]


def test_weights_reach_completions_in_the_middle_of_them():
    server = Server(FakeEngine(lambda request: 40, nap=0.01))
    server.engine.policy_version = 3
    server.add(requests(0))
    with reading(server) as read:
        while server.engine.steps < 5:
            pass
        server.begin_update(in_flight=True)
        server.engine.loading = True
        server.load({}, 4)
        server.engine.loading = False
        server.end_update()
        server.add(requests(1))
    for _, completion in read[:2]:
        ((token, version),) = completion.updates
        assert (completion.policy_version, version) == (3, 4) and 5 <= token < 40
    assert [(c.policy_version, c.updates) for _, c in read[2:]] == [(4, ())] * 2


def test_or_what_runs_is_decoded_first_and_what_waits_has_the_new_ones():
    server = Server(FakeEngine(lambda request: 20, nap=0.01, max_num_seqs=2))
    server.engine.policy_version = 3
    server.add(requests(0, 1))
    with reading(server) as read:
        while server.engine.steps < 5:
            pass
        server.begin_update(in_flight=False)
        assert server.engine.running == 0
        server.load({}, 4)
        server.end_update()
    assert [(key[0], c.policy_version, c.updates) for key, c in read] == [(0, 3, ())] * 2 + [(1, 4, ())] * 2


@pytest.mark.parametrize("waits", [True, False], ids=["before the error", "after it"])
def test_nobody_waits_for_the_end_of_what_failed(waits):
    class Failing(FakeEngine):
        def step(self):
            if self.steps == 5:
                raise RuntimeError("out of memory")
            return super().step()

    server = Server(Failing(lambda request: 20, nap=0.05))
    server.add(requests(0))
    said: list = []

    def noted(what):
        def call():
            with pytest.raises(RuntimeError, match="out of memory") as caught:
                what()
            said.append(caught.value)

        return threading.Thread(target=call, daemon=True)

    serving = noted(lambda: list(server.serve()))
    updating = noted(lambda: server.begin_update(in_flight=False))
    serving.start()
    if not waits:
        serving.join(timeout=20)
    while not server.engine.steps:  # else there would be nothing to wait for
        time.sleep(0.001)
    updating.start()
    updating.join(timeout=20)
    serving.join(timeout=20)
    assert len(said) == 2


def test_a_probe_is_scored_between_two_steps():
    server = Server(FakeEngine(lambda request: 50, nap=0.01))
    server.add(requests(0))
    with reading(server) as read:
        while server.engine.steps < 3:
            pass
        assert server.score([1, 2, 3]) == [-1.0, -1.0]
        assert server.engine.steps < 50
    assert len(read) == 2


def test_aborted_requests_are_never_answered_and_others_are():
    server = Server(FakeEngine(lambda request: 50, nap=0.01))
    server.add(requests(0, 1, 2))
    with reading(server) as read:
        while server.engine.steps < 3:
            pass
        server.abort()
        server.add(requests(7))
    assert sorted(key for key, _ in read) == [(7, 0), (7, 1)]


def test_what_does_not_fit_is_refused_in_words():
    with pytest.raises(ValueError, match="do not fit into"):
        Server(FakeEngine()).add([Request(0, Prompt("0", 0, (), (1,) * 95, ""), 0, SAMPLING)])


def test_one_caller_alone_reads_what_it_asked_for_and_leaves_nothing_behind():
    engine = FakeEngine(lambda request: 2 + request.index)
    arriving = generate(engine, [prompt(0), prompt(1)], SAMPLING)
    assert sorted((e.prompt, e.index) for e in next(arriving)) == [(0, 0), (1, 0)]
    arriving.close()
    assert engine.running == 0


def test_an_engine_is_awake_before_weights_are_brought_to_it():
    server = Server(FakeEngine())
    server.engine.sleep()
    server.begin_update(in_flight=True)
    assert not server.engine.asleep


def test_who_wants_the_engine_between_two_steps_has_it_after_this_one(monkeypatch):
    monkeypatch.setattr(serving, "IDLE_S", 0.01)

    class Visited(FakeEngine):
        def step(self):
            if self.steps == 3:
                visitor.start()
                while not server._guests:  # it waits for its turn now
                    time.sleep(0.0001)
            return super().step()

    server = Server(Visited(lambda request: 200))
    seen: list[int] = []

    def visit():
        with server._between_steps():
            seen.append(server.engine.steps)

    visitor = threading.Thread(target=visit)
    server.add(requests(0))
    assert sum(map(len, server.serve())) == 2
    visitor.join(timeout=20)
    assert seen == [4]


def test_what_ended_and_was_not_told_yet_is_aborted_too(monkeypatch):
    """Two end with the second step, and the third one fails before anybody is told."""
    monkeypatch.setattr(serving, "WHILE_S", 100.0)
    monkeypatch.setattr(serving, "IDLE_S", 0.01)

    class Failing(FakeEngine):
        def step(self):
            if self.steps == 2:
                self.steps += 1
                raise RuntimeError("out of memory")
            return super().step()

    count = serving.MOST + 4
    server = Server(Failing(lambda request: 2 if request.index < 2 else 9, max_num_seqs=count))
    server.add([Request((0, i), prompt(0), i, replace(SAMPLING, completions=count)) for i in range(count)])
    with pytest.raises(RuntimeError):
        list(server.serve())
    server.abort()
    server.add(requests(7))
    assert sorted(key for done in server.serve() for key, _ in done) == [(7, 0), (7, 1)]
