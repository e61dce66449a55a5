"""A data set's rows are looked at before a run, and however hostile they are, the driver lives."""

from dataclasses import replace

import pytest

from rlvr.config import RecipeError
from rlvr.reward_config import AuditConfig, PartConfig, RewardConfig, VerifierChoice
from rlvr.types import Outcome, Prompt
from rlvr.verify.plan import Plan
from rlvr.verify.plugin import Sample
from rlvr.verify.pool import Pool
from rlvr.verify.process import Assignment
from rlvr.verify.rows import leave_out, unusable

FILE = """
import os, time
from rlvr.verify import verifier

def check(answer, row):
    if answer == "loop":
        while True: pass
    if answer == "memory":
        return str([0] * 10**9)
    if answer == "deep":
        return eval("[" * 50 + "]" * 50) and check(answer, row)
    if answer == "raise":
        raise KeyError("x")
    if answer == "die":
        os._exit(0)
    return "even" if int(answer) % 2 == 0 else None

@verifier("mine", check_answer=check)
def mine(sample, mode="a"):
    if mode not in "abc":
        raise ValueError(f"mode={mode!r}: one of a, b, c")
    return True
"""


@pytest.fixture
def mine(tmp_path):
    (tmp_path / "mine.py").write_text(FILE)
    return f"{tmp_path}/mine.py:mine"


def prompt(n, answer="1", **row):
    return Prompt(f"p{n}", n, (), (1,), answer, row=row)


def test_a_reference_that_takes_for_ever_is_left_out_and_the_others_are_judged(mine):
    plan = Plan(RewardConfig({"task": PartConfig(mine)}))
    rows = [prompt(n, answer) for n, answer in enumerate(["1", "loop", "2", "memory", "deep", "3"])]
    (found,) = unusable(plan, [rows])
    assert list(found) == [1, 2, 3, 4]
    assert "more than 5 s of CPU time" in found[1] and found[2] == "mine: even"
    assert "GiB" in found[3] and "too deeply" in found[4]


@pytest.mark.parametrize(("answer", "said"), [("raise", "KeyError"), ("die", "ended with code 0")])
def test_a_check_that_breaks_is_said_and_no_row_is_dropped_for_it(mine, answer, said):
    plan = Plan(RewardConfig({"task": PartConfig(mine)}))
    with pytest.raises(RecipeError, match=rf"p1: mine cannot check its reference.*{said}"):
        leave_out(plan, {"data.train=x": [prompt(0), prompt(1, answer)]})


def test_two_data_sets_are_asked_about_by_the_same_processes_and_may_have_the_same_ids(mine, monkeypatch):
    plan, started = Plan(RewardConfig({"task": PartConfig(mine)})), []

    def counted(*arguments):
        started.append(Pool(*arguments))
        return started[-1]

    monkeypatch.setattr("rlvr.verify.rows.Pool", counted)
    train, heldout = [prompt(0, "1"), prompt(1, "2")], [prompt(0, "4"), prompt(1, "5")]
    left, said = leave_out(plan, {"data.train=a": train, "data.heldout=b": heldout})
    assert left == [[train[0]], [heldout[1]]] and len(started) == 1
    assert [line.partition(":")[0] for line in said] == ["data.train=a", "data.heldout=b"]


def test_a_bad_row_takes_no_other_of_the_same_id_with_it(mine):
    plan = Plan(RewardConfig({"task": PartConfig(mine)}))
    rows = [replace(prompt(n, answer), id="same") for n, answer in enumerate(["1", "2", "3", "4"])]
    ((left,), said) = leave_out(plan, {"data.train=a": rows})
    assert left == [rows[0], rows[2]]
    assert said == [
        "data.train=a: 2 of 4 rows are left out, as their reference cannot be used; the first is same: mine: even"
    ]


def test_no_process_is_started_where_there_is_nothing_to_ask(monkeypatch):
    monkeypatch.setattr("rlvr.verify.rows.Pool", None)
    assert unusable(Plan(RewardConfig({"form": PartConfig("format")})), [[prompt(0)]]) == [{}]


HOSTILE = (
    "9^{9^{9^{9^9}}}", "2" * 2_000_000, "{" * 1_000_000, "\\frac{" * 400_000 + "1", "\\sqrt{" * 1000 + "2" + "}" * 1000,
    "100000!!!!!!", "10^{10^{10^{10}}}+1", "(" * 49 + "1" + ")" * 49, "\\boxed{" * 100_000 + "1", "(x+1)^{100000}",
    "\\prod_{i=1}^{10^9} i", "\ud800", "1" + ",1" * 1_000_000, "\\begin{pmatrix}" * 1000, "x^{10^{10}}-1",
)  # fmt: skip


def test_hostile_references_of_the_math_verifier_are_decided_and_the_others_kept():
    rows = [prompt(n, reference) for n, reference in enumerate(HOSTILE)]
    (found,) = unusable(Plan(RewardConfig({"math": PartConfig("math")})), [[*rows, prompt(99, "4")]])
    assert 99 not in found and {1, 2, 3, 12} <= set(found)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("mine", {"mode": "z"}, "mode='z': one of a, b, c"),
        ("mine", '{"mode": 7}', "TypeError"),
        ("math", {"percent": "maybe"}, "maybe"),
        ("math", {"tolerance": "loose"}, "loose"),
        ("mine", [1, 2], "holds a list, not options"),
        ("mine", "[" * 100_000, "is not JSON"),
        (["math"], {}, "rows may name"),
    ],
)
def test_options_that_a_verifier_does_not_take_are_refused_when_the_data_is_read(mine, name, options, said):
    part = PartConfig(mine, column="verifier", choices={"mine": mine})
    plan = Plan(RewardConfig({"task": part}))
    good = [prompt(n, verifier="mine", verifier_params={"mode": "abc"[n]}) for n in range(3)]
    assert unusable(plan, [good]) == [{}]
    with pytest.raises(RecipeError, match=said):
        unusable(plan, [[*good, prompt(3, verifier=name, verifier_params=options)]])


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (PartConfig("math", {"percent": "maybe"}), r"reward\.parts\.task: math does not take the options .*maybe"),
        (PartConfig("math", audit=AuditConfig("math", {"percent": "maybe"})), r"reward\.parts\.task\.audit: math does"),
        (PartConfig("math", first_decided=[VerifierChoice("math", {"tolerance": "loose"})]), r"parts\.task: .*loose"),
        (PartConfig("code", {"cpu_s": 0}), r"reward\.parts\.task: code does not take the options .*cpu_s=0"),
    ],
)
def test_options_of_the_recipe_are_tried_before_a_run_too(part, said):
    plan = Plan(RewardConfig({"task": part}))
    with pytest.raises(RecipeError, match=said) as refused:
        unusable(plan, [[prompt(0)]])
    assert "\n" not in str(refused.value)


OWN = """
from rlvr.verify import verifier

@verifier("close", check_answer=lambda answer: None if answer.isdigit() else "no number")
def close(sample, slack=0):
    return abs(int(sample.completion) - int(sample.answer)) <= slack

@verifier("asks")
async def asks(sample, url=""):
    raise ConnectionRefusedError(url)

@verifier("compares", scope="group")
def compares(samples, least=2):
    return [samples[least - 1].completion == sample.completion for sample in samples]

def set_up(mode="a"):
    if mode != "a":
        raise ValueError("a is all there is")

@verifier("picky", setup=set_up)
def picky(sample, mode="a"):
    return True

@verifier("raises", check_answer=lambda answer: int(answer) and None)
def raises(sample):
    return True
"""


@pytest.fixture
def own(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    return lambda name: f"{tmp_path}/own.py:{name}"


@pytest.mark.parametrize(
    ("name", "params", "left_out"),
    [("close", {"slack": 1}, {0}), ("asks", {"url": "x"}, set()), ("compares", {"least": 2}, set())],
)
def test_ones_own_verifier_is_only_set_up(own, name, params, left_out):
    """It may raise about an empty completion, wait for a server that comes later, or want a whole group."""
    plan = Plan(RewardConfig({"task": PartConfig(own(name), params)}))
    (bad,) = unusable(plan, [[prompt(0, "n/a"), prompt(1, "5")]])
    assert set(bad) == left_out


def test_ones_own_set_up_may_refuse(own):
    with pytest.raises(RecipeError, match=r"parts\.task: picky does not take the options .*a is all there is"):
        unusable(Plan(RewardConfig({"task": PartConfig(own("picky"), {"mode": "z"})})), [[prompt(0)]])


def test_an_option_that_only_a_call_refuses_is_tried_with_a_row_that_is_asked_about(mine):
    refused = Plan(RewardConfig({"task": PartConfig("length", {"limit": 5, "shape": "round"})}))
    with pytest.raises(RecipeError, match=r"length does not take the options .*shape=round"):
        unusable(refused, [[prompt(0)]])
    part = PartConfig("length", {"limit": 5, "shape": "round"}, column="verifier", choices={"mine": mine})
    never = Plan(RewardConfig({"task": part}))
    assert unusable(never, [[prompt(0, verifier="mine")]]) == [{}]


def test_a_row_that_the_first_in_turn_can_use_stays_whatever_the_next_one_says(own):
    chain = PartConfig(own("close"), {"slack": 0}, first_decided=[VerifierChoice(own("raises"))])
    assert unusable(Plan(RewardConfig({"task": chain})), [[prompt(0, "0")]]) == [{}]


def test_no_model_is_loaded_to_try_options(tmp_path, monkeypatch):
    (tmp_path / "large.py").write_text(
        "from rlvr.verify import verifier\n"
        "@verifier('large', memory_gib=None)\n"
        "def large(sample, path=''): return True\n"
    )
    monkeypatch.setattr("rlvr.verify.rows.Pool", None)
    plan = Plan(RewardConfig({"task": PartConfig(f"{tmp_path}/large.py:large", {"path": "x"})}))
    assert unusable(plan, [[prompt(0)]]) == [{}]


def test_a_sample_that_cannot_be_sent_is_masked_and_the_others_are_judged(mine):
    """Nested so deeply that it cannot be pickled; the pool that is asked about it goes on."""
    deep: list = []
    for _ in range(5_000):
        deep = [deep]
    asked = Assignment("task", mine)
    samples = [Sample("", "", "1", row={"n": n} if n != 3 else {"deep": deep}) for n in range(6)]
    pool = Pool([asked], 1)
    try:
        verdicts = pool.submit(asked, samples).result()
        assert [v.outcome for v in verdicts] == [*[Outcome.OK] * 3, Outcome.ERROR, *[Outcome.OK] * 2]
        assert "cannot be sent" in verdicts[3].detail
    finally:
        pool.close()
