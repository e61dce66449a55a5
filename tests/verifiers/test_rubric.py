"""Weighted criteria over a judge, patterns and other verifiers."""

import json
import threading
from dataclasses import replace

import pytest
from rlvr_verifiers import chat
from rlvr_verifiers.rubric import prepare_rubric, rubric

from rlvr.types import Outcome
from rlvr.verify import PluginError, Sample
from tests.verifiers.endpoint import Said, serving, text_in, unreachable, verdict
from tests.verifiers.hostile import HOSTILE


@pytest.fixture(autouse=True)
def nothing_remembered():
    chat.forget()


def by_letter(prompt: str) -> str:
    """Finds that a text meets `It has an x.` when it holds an x."""
    letter = prompt.partition("It has an ")[2][0]
    return verdict(prompt, int(letter in text_in(prompt, "ANSWER")))


def judged(completion: str, criteria: object, answer=by_letter, **options):
    with serving(answer) as server:
        row = {"rubric": criteria}
        sample = Sample("q", completion, None, row=row)
        return rubric(sample, endpoint=server.options, **{"controls": 0.0, **options}), server


CRITERIA = [
    {"name": "has_x", "weight": 3, "judge": "It has an x."},
    {"name": "number", "weight": 1, "regex": r"\d"},
    {"name": "short", "weight": 1, "verifier": "instructions", "params": {"checks": [{"check": "words", "most": 3}]}},
    {"name": "shouts", "weight": -2, "regex": "!"},
]


def test_a_pattern_that_is_none_is_found_when_the_data_is_read():
    row = {"rubric": [{"name": "greets", "regex": "(hello"}]}
    assert "greets: '(hello': " in rubric.unusable(None, {}, row)
    row = {"rubric": [{"name": "greets", "regex": "(?i)hello"}]}
    assert rubric.unusable(None, {}, row) is None


def test_what_the_criteria_see_holds_no_thoughts_any_more():
    criteria = [{"name": "bird", "verifier": "regex", "params": {"pattern": "crane"}}]
    for thoughts in (False, True):
        sample = Sample("q", "hm</think>crane", None, row={"rubric": criteria}, thinking=True)
        assert rubric(sample, thoughts=thoughts).reward == 1.0
    assert rubric(replace(sample, completion="crane")).reason == "no_answer"


@pytest.mark.parametrize(
    ("completion", "reward", "reason"),
    [  # of 3 + 1 + 1 points
        ("x 1", 1.0, "met"),
        ("x", 0.8, "partly_met"),
        ("a 1", 0.4, "partly_met"),
        ("x 1 !", 0.6, "partly_met"),
        ("a !", 0.0, "not_met"),
        ("<think>x 1</think>a b c d", 0.0, "not_met"),
    ],
)
def test_the_reward_is_the_weighted_share_less_the_faults(completion, reward, reason):
    said, _ = judged(completion, CRITERIA)
    assert said.reward == pytest.approx(reward)
    assert said.reason == reason


def test_a_fault_that_a_text_does_not_let_be_ruled_out_counts():
    criteria = [
        {"name": "number", "weight": 2, "regex": r"\d"},
        {"name": "seven", "weight": -1, "regex": "^7$", "params": {"where": "box"}},
    ]
    for completion, reward in (("\\boxed{5}", 1.0), ("\\boxed{7}", 0.5), ("5, without a box", 0.5)):
        assert judged(completion, criteria)[0].reward == reward, completion


def test_the_detail_says_what_each_criterion_said_and_the_provenance_who_decided():
    said, server = judged("x 12 b c d", CRITERIA)
    assert said.detail == "has_x 1, number 1, short 0, shouts 0"
    assert [record.verifier for record in said.provenance] == ["rubric", "regex", "instructions", "regex"]
    assert said.provenance[0].judge.startswith("tiny-judge prompt=")
    assert len(server.requests) == 1


def test_without_an_essential_criterion_nothing_counts():
    criteria = [{"name": "a", "regex": "a"}, {"name": "b", "regex": "b", "essential": True}]
    assert (judged("a", criteria)[0].reward, judged("a", criteria)[0].reason) == (0.0, "without_b")
    assert judged("b", criteria)[0].reward == 0.5


def test_a_criterion_that_cannot_be_decided_masks_the_completion():
    said, _ = judged("x 1", CRITERIA, answer=lambda prompt: "Well done!")
    assert (said.outcome, said.reward, said.reason) == (Outcome.ERROR, None, "has_x_no_verdict")
    said, _ = judged("x 1", [{"name": "a", "regex": "("}, {"name": "b", "regex": "x"}])
    assert (said.outcome, said.reason) == (Outcome.ABSTAIN, "a_pattern_invalid")
    said = rubric(Sample("q", "x 1", None, row={"rubric": CRITERIA}), endpoint=unreachable())
    assert said.outcome == Outcome.ERROR


def test_a_verifier_that_raises_is_an_error_of_the_rubric(tmp_path):
    (tmp_path / "broken.py").write_text("def broken(sample):\n    raise ZeroDivisionError\n")
    with pytest.raises(ZeroDivisionError):
        judged("x", [{"verifier": f"{tmp_path}/broken.py:broken"}])


def test_a_judge_that_gives_an_answer_worth_nothing_half_the_rubric_is_not_believed():
    said, _ = judged("x 1", CRITERIA, answer=lambda prompt: verdict(prompt, 1), controls=1.0)
    assert (said.outcome, said.reason) == (Outcome.ERROR, "control_passed")


def test_a_rubric_may_be_json_text_with_empty_fields():
    text = json.dumps([{"name": "a", "weight": 1, "regex": "x", "judge": None, "params": None}])
    assert judged("x", text)[0].reward == 1.0


@pytest.mark.parametrize(
    ("criteria", "said"),
    [
        (None, "neither"),
        ([], "neither"),
        ("{", "Expecting"),
        (["a"], "no object"),
        ([{"name": "a"}], "exactly one of"),
        ([{"name": "a", "regex": "a", "judge": "b"}], "exactly one of"),
        ([{"name": "a", "regexp": "a"}], "regexp"),
        ([{"name": "a", "regex": "a", "weight": -1}], "no criterion has a weight above 0"),
        ([{"name": "a", "regex": "a"}, {"name": "a", "regex": "b"}], "same name"),
    ],
)
def test_a_rubric_that_makes_no_sense_abstains_and_says_why(criteria, said):
    verdict, _ = judged("x", criteria)
    assert (verdict.outcome, verdict.reason) == (Outcome.ABSTAIN, "rubric_invalid")
    assert said in verdict.detail


def test_a_judge_needs_an_endpoint():
    with pytest.raises(ValueError, match="endpoint"):
        rubric(Sample("q", "x", None, row={"rubric": CRITERIA}))
    assert rubric(Sample("q", "x", None, row={"rubric": [{"regex": "x"}]})).reward == 1.0


def test_what_cannot_work_is_said_at_the_start():
    with pytest.raises(PluginError, match="whole group"):
        prepare_rubric(criteria=[{"verifier": "majority"}])
    with pytest.raises(PluginError, match="did you mean"):
        prepare_rubric(criteria=[{"verifier": "regexx"}])
    with pytest.raises(ValueError, match="did you mean model"):
        prepare_rubric(criteria=[{"verifier": "judge", "params": {"endpoint": {"url": "http://x", "modle": "m"}}}])
    with pytest.raises(PluginError, match="did you mean where"):
        prepare_rubric(criteria=[{"verifier": "regex", "params": {"were": "box"}}])


@pytest.mark.parametrize("kind", sorted(set(HOSTILE) - {"binary"}))
def test_a_hostile_completion_earns_nothing(kind):
    criteria = [{"judge": "It has an q."}, {"regex": "^crane$"}]
    said, _ = judged(HOSTILE[kind], criteria)
    assert (said.reward, said.outcome in (Outcome.OK, Outcome.REJECTED)) == (0.0, True)


def test_a_slow_judge_does_not_make_the_others_wait_in_turn():
    slow = [{"name": f"c{i}", "judge": f"It has an x. {i}"} for i in range(8)]
    together = threading.Barrier(len(slow))

    def answer(request, number):
        together.wait(20)  # nobody is answered before all have been asked
        return Said(verdict(request["messages"][0]["content"], 1))

    said, _ = judged("x", slow, answer=answer)
    assert said.reward == 1.0
