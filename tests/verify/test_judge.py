"""Verifiers run in processes that are killed; what goes wrong is an outcome, never a number."""

import sys
import textwrap
from concurrent.futures import CancelledError
from time import sleep
from types import SimpleNamespace

import psutil
import pytest

from rlvr.config import RecipeError
from rlvr.reward_config import PartConfig, RewardConfig
from rlvr.types import Completion, Ended, Group, Outcome, Prompt
from rlvr.verify import Judge, process
from rlvr.verify.plan import assignment
from rlvr.verify.plugin import sample_of

PLUGIN = """
import os, time
from rlvr.verify import verifier

@verifier("act", timeout_s=1.0)
def act(sample, bonus: float = 0.0):
    if sample.completion == "raise":
        raise ValueError("broken on purpose")
    if sample.completion == "die":
        os._exit(3)
    if sample.completion == "spin":
        9 ** 9 ** 9 ** 9
    if sample.completion == "abstain":
        return None
    if sample.completion == "eat":
        return len(bytearray(2**33)) > 0
    if sample.completion == "nan":
        return float("nan")
    return float(sample.completion) + bonus
"""


@pytest.fixture
def plugin(tmp_path):
    path = tmp_path / "act.py"
    path.write_text(textwrap.dedent(PLUGIN))
    return f"{path}:act"


def group(*texts: str) -> Group:
    prompt = Prompt("p", 0, ({"role": "user", "content": "q"},), (1,), "5")
    return Group(prompt, tuple(Completion((1,), (True,), (0.0,), 0, text, "eos") for text in texts))


def test_each_way_to_fail_has_its_outcome_and_the_others_keep_their_verdicts(plugin):
    judge = Judge(RewardConfig({"act": PartConfig(plugin)}), 2)
    try:
        done = judge.verify_group(group("1", "raise", "0.5", "die", "spin", "abstain", "eat", "nan", "1"))
        outcomes = [verdict.outcome for verdict in done.verdicts]
        assert outcomes == [
            Outcome.OK, Outcome.ERROR, Outcome.OK, Outcome.ERROR, Outcome.REJECTED, Outcome.ABSTAIN, Outcome.REJECTED,
            Outcome.ERROR, Outcome.OK,
        ]  # fmt: skip
        assert [v.reward for v in done.verdicts] == [1.0, None, 0.5, None, 0.0, None, 0.0, None, 1.0]
        assert "broken on purpose" in done.verdicts[1].detail
        assert done.verdicts[4].reason == "timeout"
        assert [p.reason for v in done.verdicts for p in v.provenance if p.outcome == "rejected"] == [
            "timeout", "too_much_memory",
        ]  # fmt: skip
    finally:
        judge.close()
    assert [p for p in psutil.Process().children(recursive=True) if "rlvr.verify.worker" in " ".join(p.cmdline())] == []


def test_ones_own_file_may_be_called_as_one_of_the_library(tmp_path, monkeypatch):
    for name in ("random", "json", "asyncio", "typing"):
        (tmp_path / f"{name}.py").write_text(f"raise ImportError('the {name} of the current folder')\n")
    (tmp_path / "helper_of_mine.py").write_text("import json, random\ndef act(sample):\n    return json.loads('0.5')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])  # last, as the command line does
    judge = Judge(RewardConfig({"act": PartConfig("helper_of_mine:act")}), 1)
    try:
        assert judge.verify_group(group("1")).verdicts[0].reward == 0.5
    finally:
        judge.close()
        sys.modules.pop("helper_of_mine", None)


def test_what_a_process_says_before_it_dies_is_its_own(tmp_path):
    (tmp_path / "dies.py").write_text(
        "import os\ndef act(sample):\n    os.write(2, sample.completion.encode())\n    os._exit(3)\n"
    )
    judge = Judge(RewardConfig({"act": PartConfig(f"{tmp_path}/dies.py:act")}), 1)
    try:
        said = [verdict.detail for verdict in judge.verify_group(group("", "alas")).verdicts]
    finally:
        judge.close()
    assert [detail.partition("code 3: ")[2] for detail in said] == ["it said nothing", "alas"]


def test_parts_add_up_gates_close_and_a_part_without_weight_masks_nothing(plugin):
    parts = {
        "main": PartConfig(plugin, weight=2.0),
        "gate": PartConfig("format", weight=0.5, gate=True),
        "watched": PartConfig(plugin, weight=0.0, params={"bonus": 1.0}),
    }
    judge = Judge(RewardConfig(parts), 1)
    try:
        (closed,) = judge.verify_group(group("1")).verdicts
    finally:
        judge.close()
    assert (closed.reward, closed.reason) == (0.0, "gate_gate")


def test_a_process_that_has_seen_much_works_on_until_its_successor_has_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "RECYCLE", 4)
    monkeypatch.setattr(process, "CLOSE_S", 60.0)
    path, may_leave = tmp_path / "slow.py", tmp_path / "may_leave"
    path.write_text(
        "import os, time\nfrom rlvr.verify import verifier\n"
        "def leave():\n"
        f"    while not os.path.exists({str(may_leave)!r}):\n"
        "        time.sleep(0.01)\n"
        "act = verifier('act', close=leave)(lambda sample: float(sample.completion))\n"
    )
    judge = Judge(RewardConfig({"act": PartConfig(f"{path}:act")}), 1)
    (worker,) = judge.pool.processes
    first = worker._child._process
    try:
        judge.verify_group(group("1", "1", "1", "1"))
        assert judge.verify_group(group("0.25")).verdicts[0].reward == 0.25
        assert worker._child._process is first and worker._successor is not None  # nobody waited for it
        assert worker._successor.pipe.poll(60)
        assert judge.verify_group(group("0.5")).verdicts[0].reward == 0.5
        assert worker._child._process is not first and first.poll() is None  # nor for the exit of the other
    finally:
        may_leave.touch()
        judge.close()
    assert first.returncode == 0


def test_whoever_waits_when_it_is_closed_hears_of_it(plugin):
    """About what is being computed, and about what has not begun."""
    judge = Judge(RewardConfig({"act": PartConfig(plugin, timeout_s=600.0)}), 1)
    asked = judge.plan.assignments()[0]
    sample = sample_of(group("").prompt, group("spin").completions[0])
    computed, waiting = judge.pool.submit(asked, [sample]), judge.pool.submit(asked, [sample])
    while not judge.pool._busy:
        sleep(0.01)
    judge.close()
    for future in (computed, waiting):
        with pytest.raises(CancelledError):
            future.result(timeout=60)


def test_an_answer_that_is_no_verdict_is_an_error_of_the_verifier(tmp_path):
    path = tmp_path / "forger.py"
    path.write_text(
        "import gc\nfrom multiprocessing.connection import Connection\n"
        "def forge(sample):\n"
        "    pipe = next(x for x in gc.get_objects() if isinstance(x, Connection))\n"
        "    pipe.send_bytes(sample.completion.encode())\n"
    )
    judge = Judge(RewardConfig({"forge": PartConfig(f"{path}:forge")}), 1)
    try:
        said = judge.verify_group(group("no json", '{"verdict": {"reward": 9}}', "[]")).verdicts
    finally:
        judge.close()
    assert [(v.outcome, v.reward) for v in said] == [(Outcome.ERROR, None)] * 3
    assert all("garbled" in v.detail for v in said)


def test_completions_stream_through_and_no_group_is_lost(plugin):
    prompts = [Prompt(str(n), n, ({"role": "user", "content": "q"},), (1,), "5") for n in range(20)]
    places = [(n, i) for i in (1, 0) for n in range(20)]
    ended = [Ended(n, i, Completion((1,), (True,), (0.0,), 0, str(n + i / 2), "eos")) for n, i in places]
    judge = Judge(RewardConfig({"act": PartConfig(plugin)}), 2)
    try:
        done = list(judge.verify(prompts, 2, ([one] for one in ended)))
    finally:
        judge.close()
    assert sorted([v.reward for v in g.verdicts] for g in done) == [[n, n + 0.5] for n in range(20)]


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (PartConfig("mahts"), "did you mean math"),
        (PartConfig("no_such_file.py:f"), "no such file"),
        (PartConfig("no.such.module:f"), "cannot be imported"),
        (PartConfig("format", params={"boxd": True}), "did you mean boxed"),
    ],
)
def test_what_cannot_be_loaded_is_said_when_the_recipe_is_read(part, said):
    with pytest.raises(RecipeError, match=said):
        assignment("x", part, "reward.parts.x")


WAITING = """
from rlvr.verify import verifier

@verifier("plain", timeout_s=2.0)
def plain(sample): return True

@verifier("waits", timeout_s=2.0, concurrency=4)
async def waits(sample): return True

@verifier("list", timeout_s=2.0, batch=8)
async def many(samples): return [True] * len(samples)
"""


@pytest.mark.parametrize(("name", "rounds"), [("plain", 0), ("waits", 3), ("many", 1)])
def test_what_waits_for_others_has_the_time_to_wait_besides(tmp_path, name, rounds):
    """Nine samples, four at a time: three times the limit."""
    (tmp_path / "w.py").write_text(WAITING)
    allowed = []

    def receive(cpu_s, wall_s):
        allowed.append((cpu_s, wall_s))
        raise process.TimedOut("", computing=False)

    child = SimpleNamespace(receive=receive, calls=0, samples=0)
    with pytest.raises(process.TimedOut):
        process.Child.entries(child, process.Assignment("x", f"{tmp_path}/w.py:{name}"), 9)
    assert allowed == [(2.0, process.PATIENCE * 2.0 + rounds * 2.0)]
