"""The whole protocol: lists, groups, batches, async; who is asked again, and whose fault is what."""

import os
import time

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlvr.reward_config import PartConfig, RewardConfig
from rlvr.types import Completion, Ended, Group, Outcome, Prompt, Verdict
from rlvr.verify import Judge, Sample
from rlvr.verify.assembly import Assembly
from rlvr.verify.plan import Plan
from rlvr.verify.plugin import PluginError, as_verdict, verifier

PLUGIN = """
import asyncio, os, time
from pathlib import Path
from rlvr.verify import Outcome, Verdict, verifier

HERE = Path(__file__).parent

def note(name):
    with open(HERE / name, "a") as file:
        file.write(f"{os.getpid()}\\n")

@verifier("lists", batch=8, timeout_s=1.0)
def lists(samples):
    note("calls")
    if any(s.completion == "raise" for s in samples):
        raise ValueError("one of them")
    if any(s.completion == "die" for s in samples):
        os._exit(1)
    if any(s.completion == "spin" for s in samples):
        while True: pass
    return [float(s.completion) for s in samples]

@verifier("short", batch=8)
def short(samples):
    return [1.0] * (len(samples) - 1)

@verifier("texts", batch=8)
def texts(samples):
    return "1" * len(samples)

@verifier("slow", timeout_s=0.5, concurrency=32)
async def slow(sample):
    if sample.completion == "hang":
        await asyncio.sleep(60)
    if sample.completion == "raise":
        raise ConnectionError("no judge today")
    if sample.completion == "spin":
        while True: pass
    await asyncio.sleep(0.3)
    return float(sample.completion)

@verifier("sleepy", timeout_s=0.1)
def sleepy(sample):
    time.sleep(60)

@verifier("best", scope="group")
def best(samples):
    assert len({s.group for s in samples}) == 1
    top = max(float(s.completion) for s in samples)
    return [float(s.completion) == top for s in samples]

@verifier("place", scope="batch")
async def place(samples):
    return [sorted(float(s.completion) for s in samples).index(float(sample.completion)) for sample in samples]

@verifier("broken", scope="group")
def broken(samples):
    raise RuntimeError("broken for everybody")

@verifier("beside", isolation="inline")
def beside(sample):
    return os.getpid()

def prepare(level: int):
    note(f"setup-{level}")

def finish():
    note("closed")

@verifier("prepared", setup=prepare, close=finish)
def prepared(sample, level: int = 0, other: str = ""):
    return len((HERE / f"setup-{level}").read_text().splitlines())

@verifier("once")
def once(sample):
    first = not (HERE / "once").exists()
    note("once")
    if first:
        raise OSError("out of order")
    return True

@verifier("unwell")
def unwell(sample):
    note("unwell")
    return Verdict(None, Outcome.ERROR, reason="endpoint_gone")
"""


@pytest.fixture
def judge(tmp_path):
    (tmp_path / "p.py").write_text(PLUGIN)
    judges: list[Judge] = []

    def made(*names: str, processes: int = 1, params: dict | None = None, **options) -> Judge:
        parts = {name: PartConfig(f"{tmp_path}/p.py:{name}", params or {}) for name in names}
        judges.append(Judge(RewardConfig(parts), processes, **options))
        return judges[-1]

    yield made
    for one in judges:
        one.close()


def group(*texts: str, n: int = 0) -> Group:
    prompt = Prompt(f"p{n}", n, ({"role": "user", "content": "q"},), (1,), "5")
    return Group(prompt, tuple(Completion((1,), (True,), (0.0,), 0, text, "eos") for text in texts))


def lines(path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def test_a_list_function_sees_many_at_a_time(judge, tmp_path):
    said = judge("lists").verify_group(group(*map(str, range(16)))).verdicts
    assert [v.reward for v in said] == list(range(16))
    assert len(lines(tmp_path / "calls")) < 16
    assert said[0].provenance[0].verifier == "lists"


def test_one_bad_sample_of_a_list_does_not_spoil_the_others(judge):
    said = judge("lists", processes=2).verify_group(group("1", "raise", "2", "die", "3", "spin", "4")).verdicts
    assert [v.reward for v in said] == [1.0, None, 2.0, None, 3.0, 0.0, 4.0]
    assert [v.outcome.value for v in said] == ["ok", "error", "ok", "error", "ok", "rejected", "ok"]
    assert said[5].reason == "timeout"


@pytest.mark.parametrize(("name", "why"), [("short", "answers for"), ("texts", "expected a list")])
def test_a_list_function_owes_one_answer_a_sample(judge, name, why):
    for verdict in judge(name).verify_group(group("1", "2")).verdicts:
        assert verdict.outcome == Outcome.ERROR and why in verdict.detail


def test_a_list_that_failed_as_a_list_is_told_once_with_the_reason(judge, capsys):
    asked = judge("short")
    for _ in range(2):
        asked.verify_group(group("1", "2"))
    told = [line for line in capsys.readouterr().err.splitlines() if "at once" in line]
    assert told == [
        "rlvr: verifier 'short' failed on 2 samples at once, each of which is asked about alone now: "
        "TypeError: verifier 'short' returned 1 answers for 2 samples"
    ]


def test_a_list_that_takes_too_long_is_told_too_and_one_that_is_answered_is_not(judge, capsys):
    asked = judge("lists")
    asked.verify_group(group("1", "2"))
    assert "at once" not in capsys.readouterr().err
    asked.verify_group(group("1", "spin"))
    assert "'lists' failed on 2 samples at once" in capsys.readouterr().err


def test_async_samples_are_awaited_together(judge):
    asked = judge("slow")
    started = time.monotonic()
    said = asked.verify_group(group(*["1"] * 24)).verdicts
    assert [v.reward for v in said] == [1.0] * 24
    assert time.monotonic() - started < 24 * 0.3 / 2


def test_waiting_for_others_in_vain_is_an_error_and_computing_for_too_long_is_not(judge):
    said = judge("slow", processes=2).verify_group(group("1", "hang", "raise", "spin")).verdicts
    assert [v.outcome.value for v in said] == ["ok", "error", "error", "rejected"]
    assert [v.reason for v in said[1:]] == ["slow_no_answer_in_time", "slow_verifier_failed", "timeout"]
    assert said[2].provenance[0].attempts == 2


def test_the_recipes_limit_is_that_of_waiting_too(tmp_path):
    """And parts that differ in nothing but their limits do not share a call."""
    (tmp_path / "p.py").write_text(PLUGIN)
    at = f"{tmp_path}/p.py:slow"
    parts = {"short": PartConfig(at, timeout_s=0.1), "own": PartConfig(at), "long": PartConfig(at, timeout_s=5.0)}
    judge = Judge(RewardConfig(parts), 1)
    try:
        (said,) = judge.verify_group(group("1")).verdicts
    finally:
        judge.close()
    by_part = {p.part: (p.outcome, p.reason) for p in said.provenance}
    assert by_part["short"] == ("error", "no_answer_in_time")
    assert by_part["own"][0] == by_part["long"][0] == "ok"


@pytest.mark.parametrize("isolation", ["process", "inline"])
def test_a_longer_limit_lets_a_verifier_wait_longer(tmp_path, isolation):
    (tmp_path / "w.py").write_text(
        "import asyncio\nfrom rlvr.verify import verifier\n"
        f"@verifier('w', timeout_s=0.1, isolation={isolation!r})\n"
        "async def w(sample):\n    await asyncio.sleep(0.5)\n    return True\n"
    )
    judge = Judge(RewardConfig({"w": PartConfig(f"{tmp_path}/w.py:w", timeout_s=20.0)}), 1)
    try:
        assert judge.verify_group(group("1")).verdicts[0].reward == 1.0
    finally:
        judge.close()


@pytest.mark.parametrize("isolation", ["process", "inline"])
@pytest.mark.parametrize("kind", ["def w(s): ", "async def w(s): ", "def w(samples): s = samples[0]; "])
def test_tokens_are_the_verifiers_own_and_cannot_be_changed(tmp_path, isolation, kind):
    """What is trained on must be what was sampled, whatever a verifier does."""
    scope = ", scope='group'" if "samples" in kind else ""
    answer = "[own]" if scope else "own"
    (tmp_path / "w.py").write_text(
        f"from rlvr.verify import verifier\n@verifier('w', isolation={isolation!r}{scope})\n"
        f"{kind}own = s.token_ids == (1,) and type(s.token_ids) is tuple; return {answer}\n"
    )
    judge = Judge(RewardConfig({"w": PartConfig(f"{tmp_path}/w.py:w")}), 1)
    try:
        assert judge.verify_group(group("1")).verdicts[0].reward == 1.0
    finally:
        judge.close()


def test_a_plain_verifier_that_never_answers_is_asked_twice_and_then_it_is_the_completions_doing(judge):
    """A program that sleeps must not be masked: the policy would learn to sleep."""
    (said,) = judge("sleepy", processes=2).verify_group(group("1")).verdicts
    assert (said.outcome, said.reward, said.reason) == (Outcome.REJECTED, 0.0, "timeout")
    assert said.provenance[0].attempts == 2


def test_group_scope_sees_its_group_and_batch_scope_all(judge):
    done = judge("best", "place").verify_groups([group("1", "4"), group("3", "2", n=1)])
    assert [[v.parts["best"] for v in g.verdicts] for g in done] == [[0.0, 1.0], [1.0, 0.0]]
    assert [[v.parts["place"] for v in g.verdicts] for g in done] == [[0, 3], [2, 1]]


def test_a_broken_group_verifier_masks_the_whole_group(judge):
    said = judge("broken").verify_group(group("1", "2")).verdicts
    assert [v.outcome for v in said] == [Outcome.ERROR] * 2 and "for everybody" in said[0].detail


def test_inline_runs_here(judge):
    assert judge("beside").verify_group(group("1")).verdicts[0].reward == os.getpid()


INLINE = """
import sqlite3, sys
from rlvr.verify import verifier

def refuse():
    raise OSError("no model")

@verifier("unready", isolation="inline", setup=refuse)
def unready(sample):
    return True

def connect():
    global connection
    connection = sqlite3.connect(":memory:")

@verifier("asks_a_table", isolation="inline", setup=connect)
def asks_a_table(sample):
    return connection.execute("select 1").fetchone()[0]

@verifier("unclosed", isolation="inline", close=refuse)
def unclosed(sample):
    return True

@verifier("leaves", isolation="inline")
def leaves(sample):
    sys.exit("gone")

@verifier("leaves_later", isolation="inline")
async def leaves_later(sample):
    sys.exit("gone")

@verifier("leaves_process")
def leaves_process(sample):
    sys.exit("gone")

@verifier("leaves_process_later")
async def leaves_process_later(sample):
    sys.exit("gone")
"""


@pytest.fixture
def inline(tmp_path):
    (tmp_path / "inline.py").write_text(INLINE)
    return lambda name: RewardConfig({name: PartConfig(f"{tmp_path}/inline.py:{name}")})


def test_what_cannot_be_set_up_beside_the_caller_is_said_at_the_start(inline):
    with pytest.raises(PluginError, match=r"unready' could not be set up: OSError: no model"):
        Judge(inline("unready"), 2)


def test_what_is_set_up_beside_the_caller_may_belong_to_the_thread_that_asks(inline):
    asked = Judge(inline("asks_a_table"), 1)
    try:
        assert [v.reward for v in asked.verify_group(group("1", "2")).verdicts] == [1.0, 1.0]
    finally:
        asked.close()


def test_an_error_of_close_comes_too_late_to_fail_anything(inline, capsys):
    asked = Judge(inline("unclosed"), 1)
    assert asked.verify_group(group("1")).verdicts[0].reward == 1.0
    asked.close()
    assert "unclosed': OSError: no model" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["leaves", "leaves_later", "leaves_process", "leaves_process_later"])
def test_a_verifier_that_exits_is_an_error_and_ends_nobody_else(inline, name):
    asked = Judge(inline(name), 1)
    try:
        for verdict in asked.verify_group(group("1", "2")).verdicts:
            assert verdict.outcome == Outcome.ERROR and "SystemExit: gone" in verdict.detail
    finally:
        asked.close()


def test_setup_gets_the_options_it_names_once_in_each_process_and_close_ends_it(judge, tmp_path):
    asked = judge("prepared", params={"level": 3, "other": "x"})
    assert [v.reward for v in asked.verify_group(group("1", "2")).verdicts] == [1, 1]
    asked.close()
    assert lines(tmp_path / "closed") == lines(tmp_path / "setup-3")


def test_a_verifier_that_is_set_up_in_two_ways_is_set_up_twice(tmp_path):
    (tmp_path / "p.py").write_text(PLUGIN)
    at = f"{tmp_path}/p.py:prepared"
    judge = Judge(RewardConfig({f"level {n}": PartConfig(at, {"level": n}) for n in (1, 2)}), 1)
    try:
        (said,) = judge.verify_group(group("1")).verdicts
    finally:
        judge.close()
    assert said.parts == {"level 1": 1.0, "level 2": 1.0}


def test_what_fails_once_is_asked_again_in_another_process(judge, tmp_path):
    for processes in (1, 2):
        (tmp_path / "once").unlink(missing_ok=True)
        (said,) = judge("once", processes=processes).verify_group(group("1")).verdicts
        assert said.reward == 1.0 and said.provenance[0].attempts == 2
        assert len(set(lines(tmp_path / "once"))) == 2


def test_a_verifiers_own_error_is_asked_again_too_and_keeps_its_reason(judge, tmp_path):
    (said,) = judge("unwell", processes=2).verify_group(group("1")).verdicts
    assert (said.outcome, said.reason) == (Outcome.ERROR, "unwell_endpoint_gone")
    assert len(set(lines(tmp_path / "unwell"))) == 2


def test_too_many_waiting_completions_hold_up_the_engine(judge, tmp_path):
    (tmp_path / "nap.py").write_text("import time\ndef nap(sample):\n    time.sleep(0.05)\n    return 1.0\n")
    asked = Judge(RewardConfig({"nap": PartConfig(f"{tmp_path}/nap.py:nap")}), 1, max_waiting=3)
    made = 0

    def engine():
        nonlocal made
        for i in range(20):
            made += 1
            yield [Ended(i, 0, Completion((1,), (True,), (0.0,), 0, "x", "eos"))]

    prompts = [Prompt(str(n), n, (), (1,), "") for n in range(20)]
    try:
        stream = asked.verify(prompts, 1, engine())
        next(stream)
        assert made <= 5
        assert len(list(stream)) == 19
    finally:
        asked.close()


def test_a_question_is_asked_the_moment_its_completion_ends(tmp_path):
    (tmp_path / "p.py").write_text(PLUGIN)
    parts = {name: PartConfig(f"{tmp_path}/p.py:{name}") for name in ("once", "best", "place")}
    prompts = [group("", n=n).prompt for n in range(2)]
    assembly = Assembly(Plan(RewardConfig(parts)), prompts, 2)

    def asked(n: int, i: int) -> list[tuple[str, tuple]]:
        ended = Ended(n, i, Completion((1,), (True,), (0.0,), 0, "1", "eos"))
        return [(q.assignment.part, q.places) for q in assembly.ended([ended])]

    assert asked(1, 1) == [("once", ((1, 1),))]
    assert asked(1, 0) == [("once", ((1, 0),)), ("best", ((1, 0), (1, 1)))]
    assert asked(0, 0) == [("once", ((0, 0),))]
    assert [part for part, _ in asked(0, 1)] == ["once", "best", "place"]


@pytest.mark.parametrize("wrong", [{"scope": "world"}, {"isolation": "none"}, {"batch": 0}, {"timeout_s": 0.0}])
def test_a_protocol_that_does_not_exist_is_refused(wrong):
    with pytest.raises(PluginError):
        verifier("x", **wrong)(lambda sample: True)


@pytest.mark.parametrize("answer", [numpy.float32(1.0), numpy.bool_(True), numpy.int64(1), torch.tensor(1.0)])
def test_a_scalar_of_an_array_library_is_the_number_that_it_holds(answer):
    said = as_verdict(answer, "x")
    assert (said.reward, type(said.reward), said.reason) == (1.0, float, "right")
    own = as_verdict(Verdict(answer.item() if isinstance(answer, torch.Tensor) else answer, Outcome.OK), "x")
    assert (own.reward, type(own.reward)) == (1.0, float)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_reward_has_a_size_that_can_be_trained_on(reward):
    for answer in (reward, Verdict(reward, Outcome.OK)):
        if abs(reward) <= 1e6:
            assert as_verdict(answer, "x").reward == reward
        else:
            with pytest.raises(ValueError, match=r"verifier 'x': a reward of .*: at most 1e\+06 in magnitude"):
                as_verdict(answer, "x")


def test_a_verifier_can_be_called_as_the_function_it_is():
    @verifier("double", batch=4)
    def double(samples, by: float = 2.0):
        return [float(s.completion) * by for s in samples]

    @verifier("later")
    async def later(sample):
        return True

    assert double(Sample("", "3", ""), by=3.0).reward == 9.0
    assert later(Sample("", "3", "")).reward == 1.0
