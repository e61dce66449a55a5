"""A judge of the judge: faults count when they are confirmed."""

import pytest
from rlvr_verifiers import chat
from rlvr_verifiers.meta import meta, prepare_both

from rlvr.types import Outcome
from rlvr.verify import Sample
from tests.verifiers.endpoint import Said, serving, text_in, unreachable, verdict
from tests.verifiers.hostile import HOSTILE


@pytest.fixture(autouse=True)
def nothing_remembered():
    chat.forget()


def judged(scores: list[int], sound=lambda analysis, seed: 1, completion: str = "A proof.", **options):
    """Analysis i gives scores[i]; `sound(analysis, seed)` is what the meta-judge says of it."""

    def answer(request, number):
        prompt = request["messages"][0]["content"]
        if "<<<ANALYSIS" in prompt:
            return Said(verdict(prompt, sound(text_in(prompt, "ANALYSIS"), request["seed"])))
        return Said(verdict(prompt, scores[request["seed"]], before=f"Analysis {request['seed']}."))

    with serving(answer) as server:
        endpoint = {**server.options, "temperature": 1.0}
        said = meta(Sample("Prove it.", completion, None), endpoint=endpoint, analyses=len(scores), **options)
    return said, server


@pytest.mark.parametrize(
    ("scores", "believed", "needed", "reward", "reason"),
    [
        ([2, 2, 2, 2], "", 1, 1.0, "no_fault"),
        ([2, 0, 2, 1], "", 1, 1.0, "no_fault_confirmed"),  # the judge invented them
        ([2, 0, 2, 1], "1", 1, 0.0, "fault_confirmed"),
        ([2, 1, 2, 1], "13", 1, 0.5, "fault_confirmed"),
        ([0, 1, 2, 1], "1", 1, None, "disputed"),  # only the milder analysis is sound
        ([0, 0, 2, 2], "0", 2, None, "disputed"),
        ([0, 0, 2, 2], "01", 2, 0.0, "fault_confirmed"),
    ],
)
def test_the_lowest_score_that_enough_sound_analyses_give(scores, believed, needed, reward, reason):
    sound = lambda analysis, seed: int(any(f"Analysis {i}." in analysis for i in believed))  # noqa: E731
    said, _ = judged(scores, sound, needed=needed)
    assert (said.reward, said.reason) == (reward, reason)
    assert said.outcome == (Outcome.ABSTAIN if reward is None else Outcome.OK)


def test_most_checks_must_confirm_a_fault():
    assert judged([0], lambda analysis, seed: int(seed < 2), checks=3)[0].reward == 0.0
    assert judged([0], lambda analysis, seed: int(seed < 1), checks=3)[0].reward == 1.0
    assert judged([0], lambda analysis, seed: int(seed < 1), checks=2)[0].reward == 1.0  # a tie confirms nothing


def test_analyses_without_fault_are_not_checked():
    _, server = judged([2, 2, 0], checks=2)
    assert len(server.requests) == 3 + 2


def test_the_meta_judge_is_shown_the_analysis_and_its_score():
    _, server = judged([0], checks=1)
    shown = text_in(server.prompts[1], "ANALYSIS")
    assert shown.startswith("Analysis 0.") and shown.endswith("(score given: 0)")


def test_both_judges_are_in_the_provenance():
    said, _ = judged([0, 2], checks=3)
    first, second = (record.judge.split() for record in said.provenance)
    assert first[0] == second[0] == "tiny-judge" and first[1] != second[1]
    assert (first[-1], second[-1]) == ("votes=2", "votes=3")


def test_silence_of_either_judge_is_an_error():
    said, _ = judged([7, 7])
    assert (said.outcome, said.reason) == (Outcome.ERROR, "no_verdict")
    said, _ = judged([0, 2], lambda analysis, seed: 9)
    assert (said.outcome, said.reason) == (Outcome.ERROR, "no_meta_verdict")
    said = meta(Sample("q", "a", None), endpoint=unreachable())
    assert (said.outcome, said.reason) == (Outcome.ERROR, "no_verdict")


@pytest.mark.parametrize("kind", sorted(HOSTILE))
def test_a_hostile_completion_earns_nothing_where_its_faults_are_confirmed(kind):
    said, _ = judged([0], checks=1, completion=HOSTILE[kind])
    assert (said.reward, said.outcome in (Outcome.OK, Outcome.REJECTED)) == (0.0, True)


def test_options_that_make_no_sense_are_said():
    with pytest.raises(ValueError, match="needed 3"):
        judged([2, 2], needed=3)
    with pytest.raises(ValueError, match="did you mean model"):
        prepare_both({"url": "http://x", "model": "m"}, {"url": "http://x", "modle": "m"})


def test_one_fault_that_nobody_could_check_is_an_error():
    """It may be the fatal one: the other checks do not speak for it."""
    said, _ = judged([0, 1], lambda analysis, seed: 9 if analysis.startswith("Analysis 0.") else 0)
    assert (said.outcome, said.reward, said.reason) == (Outcome.ERROR, None, "no_meta_verdict")
