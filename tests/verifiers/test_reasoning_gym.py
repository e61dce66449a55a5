"""The adapter against a stand-in with the same interface, and against the real package where it is installed."""

import sys
from types import SimpleNamespace

import pytest
from rlvr_verifiers.reasoning_gym import load_library, reasoning_gym, scorer

from rlvr.types import Outcome
from rlvr.verify import Sample, kit

ABSENT = "reasoning-gym is not installed: none of the project's extras brings it, `pip install reasoning-gym` does"


def score_answer(answer, entry):
    if answer == "crash":
        raise ZeroDivisionError("on the answer")
    if entry["metadata"].get("broken"):
        raise KeyError("board")
    return 1.0 if answer == entry["answer"] else 0.5 if entry["answer"] in answer else 0.01


def get_score_answer_fn(name):
    if name != "sums":
        raise ValueError(f"Dataset '{name}' not registered")
    return score_answer


@pytest.fixture
def stand_in(monkeypatch):
    monkeypatch.setitem(sys.modules, "reasoning_gym", SimpleNamespace(get_score_answer_fn=get_score_answer_fn))
    scorer.cache_clear()
    yield
    scorer.cache_clear()


def judged(completion: str, task: object = "sums", answer: str = "12", **options):
    metadata = {"source_dataset": task, **options.pop("metadata", {})}
    return reasoning_gym(Sample("5+7=?", completion, answer, row={"metadata": metadata}), **options)


@pytest.mark.parametrize(
    ("completion", "reward", "reason"),
    [
        ("<think>5+7</think>12", 1.0, "right"),
        ("<think>5+7</think><answer> 12 </answer>", 1.0, "right"),
        ("so \\boxed{12}", 1.0, "right"),
        ("10 11 12 13", 0.0, "wrong"),
        ("11", 0.0, "wrong"),
        ("", 0.0, "no_answer"),
        ("<think>12", 0.0, "no_answer"),
        ("x" * 20_001, 0.0, "too_long"),
        ("().__class__", 0.0, "not_allowed"),
        ("crash", 0.0, "unscorable"),
    ],
)
def test_a_full_score_is_right_and_anything_less_is_not(stand_in, completion, reward, reason):
    verdict = judged(completion)
    assert (verdict.reward, verdict.reason) == (reward, reason)


def test_the_score_itself_has_to_be_asked_for(stand_in):
    assert judged("10 11 12 13", partial=True).reward == 0.5


def test_a_scorer_that_fails_on_its_own_answer_is_an_error_not_a_reward(stand_in):
    with pytest.raises(KeyError):
        judged("11", metadata={"broken": True})


@pytest.mark.parametrize("task", ["nonsense", None])
def test_a_task_that_is_not_known_abstains(stand_in, task):
    verdict = judged("12", task=task)
    assert (verdict.outcome, verdict.reason) == (Outcome.ABSTAIN, "task_unknown")


def test_without_the_package_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(ImportError, match="pip install reasoning-gym"):
        load_library()


def test_the_real_package_scores_its_own_answers():
    package = pytest.importorskip("reasoning_gym", reason=ABSENT)
    scorer.cache_clear()
    for task in ("leg_counting", "countdown", "basic_arithmetic"):
        entry = package.create_dataset(task, size=1, seed=1)[0]
        row = {"metadata": entry["metadata"], "question": entry["question"]}
        for said, reward in ((entry["answer"], 1.0), ("no idea", 0.0)):
            sample = Sample(entry["question"], f"<answer>{said}</answer>", entry["answer"], row=row)
            assert reasoning_gym(sample).reward == reward


def test_the_kit_finds_nothing():
    package = pytest.importorskip("reasoning_gym", reason=ABSENT)
    cases = []
    for task in ("leg_counting", "basic_arithmetic"):
        entry = package.create_dataset(task, size=1, seed=1)[0]
        cases.append(kit.Case(entry["question"], entry["answer"], row=entry))
    kit.assert_sound("reasoning_gym", cases)
