"""A verifier process that cannot be started or set up just now, or does with its pipe what it likes."""

import gc
import os
import subprocess
import tempfile
import threading
import time
from collections import deque
from multiprocessing import Pipe
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr.types import Outcome, Verdict
from rlvr.verify import messages, process
from rlvr.verify.messages import CHUNK, LARGEST, Closed, Garbled, Messages
from rlvr.verify.plugin import PluginError, Sample, verifier
from rlvr.verify.pool import PACES, WORTH_S, Answers, Job, Pool
from rlvr.verify.process import Assignment

PLUGIN = """
import gc, os, signal, struct, threading, time
from multiprocessing.connection import Connection
from pathlib import Path
from rlvr.verify import verifier

HERE = Path(__file__).parent

def setup():
    if (HERE / "down").exists():
        raise RuntimeError("the server is restarting")

@verifier("served", timeout_s=0.3, setup=setup)
def served(sample):
    while sample.completion == "spin": pass
    return 1.0

def pipe():
    return next(x for x in gc.get_objects() if isinstance(x, Connection)).fileno()

@verifier("hostile", timeout_s=0.5)
def hostile(sample):
    said = sample.completion
    if said == "half a head":
        os.write(pipe(), b"\\0\\0\\0")
    if said == "half a body":
        os.write(pipe(), struct.pack("!i", 1000) + b"x" * 999)
    if said == "drop by drop":
        os.write(pipe(), struct.pack("!i", 1 << 27))
        while True: os.write(pipe(), b"x")
    if said in ("half a head", "half a body"):
        while True: pass
    if said == "gigabytes":
        os.write(pipe(), struct.pack("!iQ", -1, 1 << 31))
    if said == "deep":
        os.write(pipe(), struct.pack("!i", 1 << 20) + b"[" * (1 << 20))
    if said == "closes":
        os.close(pipe())
        while True: pass
    if said == "dies in the middle":
        os.write(pipe(), struct.pack("!i", 1000) + b"x" * 500)
        os.kill(os.getpid(), signal.SIGKILL)
    return 1.0
"""


@pytest.fixture
def asked(tmp_path):
    """asked("name", processes)(*texts) -> verdicts."""
    (tmp_path / "p.py").write_text(PLUGIN)
    pools: list[Pool] = []

    def made(name: str, processes: int = 1):
        assignment = Assignment("part", f"{tmp_path}/p.py:{name}")
        pool = Pool([assignment], processes)
        pools.append(pool)

        def ask(*texts: str) -> list[Verdict]:
            return pool.submit(assignment, [Sample("q", text, "a") for text in texts]).result(timeout=60)

        return ask

    yield made
    for pool in pools:
        for one in pool.processes:
            one.interrupt()  # whatever a failed test left hanging
        pool.close()


def outcomes(said: list[Verdict]) -> list[str]:
    return [verdict.outcome.value for verdict in said]


def test_a_process_that_cannot_be_set_up_for_a_while_costs_the_questions_of_that_while_alone(asked, tmp_path):
    ask = asked("served")
    assert outcomes(ask("spin")) == ["rejected"]  # and its process is gone
    (tmp_path / "down").touch()
    said = ask("y", "z", "w")
    assert {v.outcome for v in said} == {Outcome.ERROR} and "the server is restarting" in said[0].detail
    (tmp_path / "down").unlink()
    assert outcomes(ask("y", "z")) == ["ok", "ok"]


def test_a_successor_that_cannot_be_set_up_costs_nobody_anything_and_is_told(asked, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(process, "RECYCLE", 3)
    ask = asked("served")
    ask("a", "b", "c")
    (tmp_path / "down").touch()
    said = ask("d")
    time.sleep(2)  # the successor has tried, and failed
    said += ask("e")
    told = capsys.readouterr().err
    assert "p.py:served" in told and "after 4 samples" in told and "the server is restarting" in told
    (tmp_path / "down").unlink()
    for text in "fghijk":
        said += ask(text)
        time.sleep(0.5)
    assert outcomes(said) == ["ok"] * 8
    assert {v.provenance[0].attempts for v in said} == {1}


def test_a_successor_that_dies_costs_nobody_anything(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "RECYCLE", 1)
    (tmp_path / "p.py").write_text(PLUGIN)
    assignment = Assignment("part", f"{tmp_path}/p.py:served")
    one = process.VerifierProcess([assignment])
    try:
        for _ in range(3):
            ((said,),) = one.verify(assignment, [[Sample("q", "x", "a")]])
            assert said.reward == 1.0
            if one._successor is not None:
                one._successor.interrupt()
                one._successor._process.wait()
    finally:
        one.close()


@pytest.mark.parametrize(("module", "name"), [(tempfile, "TemporaryFile"), (subprocess, "Popen")])
def test_a_machine_without_room_for_a_process_costs_the_questions_of_that_while_alone(
    asked, monkeypatch, module, name
):
    ask = asked("served")
    assert outcomes(ask("spin")) == ["rejected"]

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(module, name, full)
        said = ask("a", "b")
    assert outcomes(said) == ["error", "error"] and "No space left on device" in said[0].detail
    assert outcomes(ask("c")) == ["ok"]


def test_a_machine_without_room_for_the_first_process_costs_a_line(asked, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(subprocess, "Popen", full)
    with pytest.raises(PluginError, match=r"process could not be started: .*No space left on device"):
        asked("served", 2)


def test_a_process_that_cannot_be_started_leaves_no_descriptor_open(monkeypatch):
    def full(*_, **__):
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", full)
    gc.collect()  # what earlier tests left may be closed in between
    before = os.listdir("/proc/self/fd")
    with pytest.raises(process.Failed, match=r"could not be started: .*temporarily unavailable"):
        process.VerifierProcess([]).start()
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_a_start_that_fails_leaves_no_process(asked, tmp_path):
    (tmp_path / "p.py").write_text(PLUGIN)
    (tmp_path / "down").touch()
    one = process.VerifierProcess([Assignment("part", f"{tmp_path}/p.py:served")])
    with pytest.raises(PluginError, match="the server is restarting"):
        one.start()
    assert one._child is None
    (tmp_path / "down").unlink()
    one.start()
    one.close()


@pytest.mark.parametrize("text", ["half a head", "half a body", "drop by drop"])
def test_half_an_answer_does_not_stop_the_clock(asked, text):
    ask = asked("hostile")
    started = time.monotonic()
    (said,) = ask(text)
    assert (said.outcome, said.reason) == (Outcome.REJECTED, "timeout")
    assert time.monotonic() - started < 20
    assert outcomes(ask("x")) == ["ok"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("gigabytes", "garbled"),
        ("deep", "garbled"),
        ("closes", "has closed its pipe"),
        ("dies in the middle", "ended with code -9"),
    ],
)
def test_what_is_no_answer_is_an_error_and_the_next_is_asked(asked, text, why):
    ask = asked("hostile")
    (said,) = ask(text)
    assert said.outcome == Outcome.ERROR and why in said.detail
    assert outcomes(ask("x")) == ["ok"]


@pytest.mark.parametrize("size", [0, 1, CHUNK - 4, CHUNK, 3 * CHUNK + 1, 1 << 21])
def test_messages_are_those_of_a_connection(size):
    ours, theirs = Pipe()
    line, content = Messages(ours), os.urandom(size)
    reader = threading.Thread(target=lambda: theirs.send_bytes(theirs.recv_bytes()))
    reader.start()
    assert line.send(content, 10)
    assert line.arrived(10) and line.take() == content
    assert not line.arrived(0)
    reader.join()


@given(st.lists(st.binary(max_size=50), max_size=6), st.lists(st.integers(1, 60), min_size=1), st.integers(0, 100))
def test_messages_are_the_same_however_they_are_cut(said, cuts, missing):
    """And what ends in the middle of one is Closed once those before it are taken."""
    ours, theirs = Pipe()
    whole = b"".join(messages.HEAD.pack(len(one)) + one for one in said)
    sent = whole[: len(whole) - missing] if missing < len(whole) else b""
    line, taken, at, n = Messages(ours), [], 0, 0
    while at < len(sent):
        at += os.write(theirs.fileno(), sent[at : at + cuts[n % len(cuts)]])
        n += 1
        while line.arrived(0):
            taken.append(line.take())
    theirs.close()
    assert taken == said[: len(taken)]
    assert sum(4 + len(one) for one in taken) <= len(sent)
    assert len(taken) == len(said) or sum(4 + len(one) for one in said[: len(taken) + 1]) > len(sent)
    with pytest.raises(Closed):
        line.arrived(0)
    ours.close()


@pytest.mark.parametrize("head", [-1, LARGEST + 1, (1 << 31) - 1, -(1 << 31)])
def test_a_message_that_is_too_large_is_refused_by_its_head(head):
    ours, theirs = Pipe()
    os.write(theirs.fileno(), messages.HEAD.pack(head))
    with pytest.raises(Garbled, match=str(LARGEST)):
        Messages(ours).arrived(1)


def test_nobody_waits_for_ever_for_a_reader():
    ours, theirs = Pipe()
    assert not Messages(ours).send(bytes(1 << 22), 0.05)
    theirs.close()
    with pytest.raises(Closed):
        Messages(ours).send(b"x", 0.05)


SHARED = {
    asked.name: SimpleNamespace(verifier=asked, key=(asked.name, ""))
    for asked in (
        verifier("each")(lambda sample: 1.0),
        verifier("list", batch=3)(lambda samples: [1.0] * len(samples)),
        verifier("group", scope="group")(lambda samples: [1.0] * len(samples)),
    )
}


def chosen(waiting: list[Job], slot: int, workers: int, pace_s: dict) -> list[Job]:
    """What may share a call, by a look at all that waits."""
    mine = [job for job in waiting if job.avoid != slot]
    if not mine:
        return []
    first, count = mine[0], 1
    asked = first.assignment.verifier
    if asked.scope == "sample" and not first.alone:
        fair = asked.at_once if asked.takes_list else -(-len(waiting) // workers)
        count = min(asked.at_once, max(fair, int(WORTH_S / pace_s.get(first.assignment.key, WORTH_S))))
    alike = [job for job in mine if job.assignment.key == first.assignment.key and not job.alone]
    return [first, *[job for job in alike if job is not first][: count - 1]]


jobs_that_wait = st.lists(
    st.tuples(st.sampled_from(sorted(SHARED)), st.booleans(), st.sampled_from([None, None, 0, 1])), max_size=30
)


@given(kinds=jobs_that_wait, workers=st.integers(2, 4), slots=st.lists(st.integers(0, 1)), pace_s=st.floats(1e-4, 1.0))
def test_the_next_call_is_what_a_look_at_all_that_waits_would_choose(kinds, workers, slots, pace_s):
    pool = Pool([], 0)
    pool.workers = workers
    pool._pace_s[SHARED["each"].key] = pace_s
    jobs = [Job(SHARED[name], [], Answers(1), 0, alone=alone, avoid=avoid) for name, alone, avoid in kinds]
    pool._waiting.extend(jobs)
    for slot in slots:
        expected = chosen(jobs, slot, workers, pool._pace_s)
        assert pool._next(slot) == expected
        jobs = [job for job in jobs if job not in expected]
        assert list(pool._waiting) == jobs


def test_of_a_long_queue_only_the_head_is_looked_at():
    class Counting(deque):
        looked = 0

        def popleft(self):
            Counting.looked += 1
            return super().popleft()

    pool = Pool([], 0)
    pool.workers = 4
    pool._waiting = Counting(Job(SHARED["list"], [], Answers(1), 0) for _ in range(3000))
    while pool._next(0):
        pass
    assert Counting.looked == 3000


def test_what_nobody_waits_for_any_more_is_not_asked():
    pool = Pool([], 0)
    pool.workers = 2
    given_up, waited_for = (Job(SHARED["each"], [], Answers(1), 0) for _ in range(2))
    pool._waiting.extend([given_up, waited_for])
    assert given_up.answers.future.cancel()
    assert pool._next(0) == [waited_for] and not pool._waiting


def test_the_pace_of_what_was_not_asked_of_late_is_forgotten():
    pool = Pool([], 0)
    for n in range(PACES + 10):
        pool._note_pace(("each", str(n)), 1.0)
        pool._note_pace(("each", "often"), 2.0)
    assert len(pool._pace_s) == PACES and ("each", "0") not in pool._pace_s
    assert pool._pace_s["each", "often"] == 2.0 and pool._pace_s["each", str(PACES + 9)] == 1.0
