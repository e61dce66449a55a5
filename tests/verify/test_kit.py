"""The kit passes what is sound, and says what is wrong with what is not. Every verifier of ours passes it."""

import os
from concurrent.futures import Future
from itertools import islice
from types import SimpleNamespace

import pytest

from rlvr.types import Outcome, Verdict
from rlvr.verify import kit
from rlvr.verify.plugin import Sample

PLUGIN = """
import itertools, random, re, time
from rlvr.verify import Outcome, Verdict, verifier

def boxed(text):
    found = re.findall(r"\\\\boxed\\{([^{}]{0,100})\\}", text[-10_000:])
    return found[-1] if found else None

@verifier("sound", check_answer=lambda answer: None if answer else "empty")
def sound(sample):
    return boxed(sample.completion) == str(sample.answer)

@verifier("moody")
def moody(sample):
    return random.random()

counter = itertools.count()

@verifier("counts")
def counts(sample):
    return next(counter) % 7 / 7

@verifier("mixes", batch=8)
def mixes(samples):
    return [len(samples) / 8 for _ in samples]

@verifier("first", batch=32)
def first(samples):
    return [sound.function(sample) for sample in samples[:1]]

@verifier("many", batch=32)
def many(samples):
    return [sound.function(sample) for sample in samples]

@verifier("firsts", scope="group")
def firsts(samples):
    return [1.0]

@verifier("lenient")
def lenient(sample):
    return str(sample.answer) in sample.completion

@verifier("trusting")
def trusting(sample):
    return 1.0

@verifier("strict")
def strict(sample):
    return 0.0

@verifier("crashes")
def crashes(sample):
    return bool(sample.completion[0]) and boxed(sample.completion) == str(sample.answer)

@verifier("maskable")
def maskable(sample):
    answer = boxed(sample.completion)
    if len(sample.completion) > 100_000:
        return None
    return answer == str(sample.answer)

@verifier("hangs", timeout_s=0.3)
def hangs(sample):
    if "9^{9" in sample.completion:
        while True: pass
    return boxed(sample.completion) == str(sample.answer)

@verifier("hungry", memory_gib=1.0)
def hungry(sample):
    return len(bytearray(3 * 2**30)) > 0

@verifier("slow", timeout_s=0.1)
def slow(sample):
    while True: pass

@verifier("crowded", batch=32, timeout_s=0.5)
def crowded(samples):
    while len(samples) > 16: pass
    return [sound.function(sample) for sample in samples]

@verifier("endless")
def endless(sample):
    return endless.function(sample)

@verifier("silent")
def silent(sample):
    return None

@verifier("best", scope="group")
def best(samples):
    longest = max(len(s.completion) for s in samples)
    return [len(s.completion) == longest for s in samples]
"""


@pytest.fixture(scope="module")
def at(tmp_path_factory):
    path = tmp_path_factory.mktemp("kit") / "authors.py"
    path.write_text(PLUGIN)
    return lambda name: f"{path}:{name}"


def failed(reference: str, **options) -> set[str]:
    return {finding.check for finding in kit.check(reference, **options) if finding.passed is False}


def test_a_sound_verifier_passes_every_check(at):
    found = kit.check(at("sound"), [kit.Case("2+2=?", "4"), kit.Case("2+3=?", "5")])
    assert [str(f) for f in found if f.passed is False] == []
    assert {f.check for f in found if f.passed} >= {
        "two runs agree", "the order does not matter", "alone or together", "no errors", "accepts its gold",
        "refuses other answers", "references parse", "throughput",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "checks"),
    [
        ("moody", {"two runs agree", "the order does not matter"}),
        ("counts", {"two runs agree"}),
        ("mixes", {"alone or together"}),
        ("first", {"one verdict a sample"}),
        ("firsts", {"one verdict a sample"}),
        ("lenient", {"refuses other answers"}),
        ("trusting", {"refuses other answers"}),
        ("strict", {"accepts its gold"}),
        ("crashes", {"hostile: empty"}),
        ("maskable", {"hostile: 1 MB of letters", "hostile: 1 MB of words"}),
        ("hangs", {"hostile: tower"}),
        ("hungry", {"judges ordinary completions"}),
        ("endless", {"judges ordinary completions"}),
        ("silent", {"judges ordinary completions"}),
    ],
)
def test_what_is_wrong_with_a_verifier_is_found(at, name, checks):
    assert checks <= failed(at(name))


@pytest.mark.parametrize(
    ("name", "passed", "said"),
    [("many", True, "32 at once"), ("best", True, "9 at once"), ("sound", None, "one at a"),
     ("crowded", False, "of 32 at once timeout")],
)
def test_a_list_function_is_asked_about_as_many_as_it_takes(at, name, passed, said):
    asked = kit.Assignment("kit", at(name))
    pool = kit.Pool([asked], 1)
    try:
        found = kit.Kit(asked, pool, [kit.Case("2+2=?", "4"), kit.Case("2+3=?", "5")]).together()
    finally:
        pool.close()
    assert (found.passed, found.check) == (passed, "one verdict a sample") and said in found.said


def test_who_runs_out_of_time_or_memory_on_anything_is_not_sound(at):
    asked = kit.Assignment("kit", at("slow"))
    pool = kit.Pool([asked], 2)
    try:
        found = kit.Kit(asked, pool, [kit.Case("2+2=?", "4")]).deterministic()
    finally:
        pool.close()
    assert [f.check for f in found if f.passed is False] == ["judges ordinary completions"]
    assert "timeout: more than 0.1 s of CPU time" in found[-1].said


def test_a_completion_that_exhausts_it_may_be_worth_0_by_its_authors_word(at):
    right, tower = kit.Case("q", "4", r"\boxed{4}", 1.0), r"\boxed{9^{9^9}}"
    pool = kit.Pool([asked := kit.Assignment("kit", at("hangs"))], 2)

    def wrong(reward: float | None) -> list[str]:
        cases = [right, kit.Case("q", "4", tower, reward)]
        made = kit.Kit(asked, pool, cases)
        return [f.check for f in [*made.deterministic(), made.expected()] if f.passed is False]

    try:
        assert wrong(0.0) == []
        assert wrong(1.0) == ["expected rewards"]
        assert wrong(None) == ["judges ordinary completions"]
    finally:
        pool.close()


def test_no_reward_is_the_one_of_a_case_that_names_none(at):
    case = kit.Case("q", "4", r"\boxed{4}", float("nan"))
    assert "expected rewards" in failed(at("sound"), cases=[case])


def test_a_group_verifier_is_asked_about_groups(at):
    found = kit.check(at("best"))
    assert [str(f) for f in found if f.passed is False] == []


def test_cases_may_say_what_is_right_and_references_that_do_not_parse_are_found(at):
    right = [kit.Case("q", "4", r"so \boxed{4}", 1.0), kit.Case("q", "4", r"\boxed{5}", 0.0)]
    assert failed(at("sound"), cases=right) == set()
    assert "expected rewards" in failed(at("sound"), cases=[kit.Case("q", "4", r"\boxed{5}", 1.0)])
    assert "references parse" in failed(at("sound"), cases=[*right, kit.Case("q", "")])


def test_assert_sound_says_what_fails(at):
    with pytest.raises(AssertionError, match=r"FAIL refuses other answers: passed: .*many answers"):
        kit.assert_sound(at("lenient"))


SCHEMA = {"schema": {"type": "object", "required": ["a"]}}
JSON_CASE = kit.Case("Give JSON.", "", '{"a": 1}', 1.0, SCHEMA)
DEEP_CASE = kit.Case("Give JSON.", "", "[" * 2000 + "]" * 2000, 0.0, SCHEMA)
WORDS = [{"check": "words", "least": 2, "most": 5}]
OURS = {
    "math": ([kit.Case("2+3=?", "5"), kit.Case("Solve.", "\\frac{1}{2}")], {}, False),
    "format": ([], {}, True),
    "length": ([], {"limit": 100}, True),
    "repetition": ([], {}, True),
    "language": ([], {"language": "en"}, True),
    "instructions": ([kit.Case("q", "", "three short words", 1.0, {"instructions": WORDS})], {}, True),
    "json_schema": ([JSON_CASE, DEEP_CASE], {}, True),
    "regex": ([kit.Case("q", "", "a crane", 1.0)], {"pattern": "a crane"}, True),
    "citation": ([kit.Case("q", "", row={"documents": {"a": "The crane is a bird of the marsh."}})], {}, True),
    "majority": ([kit.Case("2+3=?", "5")], {"unlabelled": True, "least": 1}, True),
}


@pytest.mark.parametrize("name", sorted(OURS))
def test_our_own_verifiers_pass(name):
    cases, params, form = OURS[name]
    kit.assert_sound(name, cases, params, form)


@pytest.mark.parametrize("tolerance", ["digits", 0.01])
def test_our_math_verifier_passes_with_a_tolerance(tolerance):
    cases, _, form = OURS["math"]
    kit.assert_sound("math", cases, {"tolerance": tolerance}, form)


TESTS = {"tests": "assert add(1, 2) == 3", "entry_point": "add"}
CODE = [
    kit.Case("Define add.", TESTS, "```python\ndef add(a, b):\n    return a + b\n```", 1.0),
    kit.Case("Define add.", TESTS, "```python\ndef add(a, b):\n    return 3.5\n```", 0.0),
]


@pytest.mark.skipif(os.name != "posix", reason="the sandbox is a POSIX one")
def test_our_code_verifier_passes():
    kit.assert_sound("code", CODE)


class Answering:
    """A pool that says of each sample its completion, and knows what it has been asked."""

    def __init__(self):
        self.calls: list[list[Sample]] = []

    def submit(self, assignment, samples):
        self.calls.append(list(samples))
        future: Future = Future()
        future.set_result([Verdict(float(sample.completion), Outcome.OK) for sample in samples])
        return future


def kit_of(scope: str) -> kit.Kit:
    return kit.Kit(SimpleNamespace(verifier=SimpleNamespace(scope=scope)), Answering(), [])


@pytest.mark.parametrize("scope", ["sample", "group", "batch"])
@pytest.mark.parametrize("count", [0, 1, kit.SHARE, kit.SHARE * kit.AHEAD + 1])
def test_there_is_a_verdict_a_sample_in_order(scope, count):
    samples = [Sample("q", str(n), "5", group=str(n * n % 7)) for n in range(count)]
    asking = kit_of(scope)
    assert [verdict.reward for verdict in asking.asked(samples)] == list(range(count))
    if scope == "group":
        members: dict = {}
        for sample in samples:
            members.setdefault(sample.group, []).append(sample)
        assert asking.pool.calls == list(members.values())
    elif scope == "batch":
        assert asking.pool.calls == [samples]


def test_what_is_judged_can_be_read_before_the_rest_is_asked_about():
    """A whole file would be queued, and nothing of it printed before its end."""
    samples, asking = [Sample("q", str(n), "5") for n in range(100_000)], kit_of("sample")
    assert [verdict.reward for verdict in islice(asking.verdicts(samples), 100)] == list(range(100))
    assert sum(map(len, asking.pool.calls)) <= (kit.AHEAD + 1) * kit.SHARE
