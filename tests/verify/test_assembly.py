"""Who is asked next, and who is asked together. What is asked when is in test_protocol.py."""

import pytest

from rlvr.reward_config import PartConfig, RewardConfig, VerifierChoice
from rlvr.types import Completion, Ended, Outcome, Prompt, Provenance, Verdict
from rlvr.verify.assembly import Assembly, Question
from rlvr.verify.plan import Plan

PLUGIN = """
from rlvr.verify import verifier

@verifier("first")
def first(sample):
    return True

@verifier("then")
def then(sample):
    return True

@verifier("whole", scope="batch")
def whole(samples, level: int = 0):
    return [float(level)] * len(samples)
"""


@pytest.fixture
def at(tmp_path):
    (tmp_path / "p.py").write_text(PLUGIN)
    return lambda name: f"{tmp_path}/p.py:{name}"


def ended(prompt: int) -> Ended:
    return Ended(prompt, 0, Completion((1,), (True,), (0.0,), 0, "1", "eos"))


@pytest.fixture
def in_turn(at) -> tuple[Assembly, Question]:
    """Of one completion, and the question that it begins with."""
    part = PartConfig(at("first"), first_decided=[VerifierChoice(at("then"))])
    assembly = Assembly(Plan(RewardConfig({"x": part})), [Prompt("p", 0, (), (1,), "")], 1)
    (question,) = assembly.ended([ended(0)])
    return assembly, question


@pytest.mark.parametrize("outcome", [Outcome.ERROR, Outcome.ABSTAIN])
def test_whoever_cannot_say_is_followed_by_the_next_in_turn(in_turn, at, outcome):
    assembly, question = in_turn
    silent = Verdict(None, outcome, reason="gone", provenance=(Provenance("first"),))
    (further,), whole = assembly.answered(question, [silent])
    assert (further.assignment.reference, further.turn, further.places) == (at("then"), 1, ((0, 0),)) and not whole
    right = Verdict(1.0, Outcome.OK, reason="right", provenance=(Provenance("then"),))
    further, (done,) = assembly.answered(further, [right])
    assert (done.verdicts[0].reward, further) == (1.0, [])
    assert [p.outcome for p in done.verdicts[0].provenance] == [outcome.value, "ok"]


def test_a_verdict_is_not_asked_about_again(in_turn):
    assembly, question = in_turn
    wrong = Verdict(0.0, Outcome.REJECTED, reason="wrong", provenance=(Provenance("first"),))
    further, (done,) = assembly.answered(question, [wrong])
    assert further == [] and done.verdicts[0].reward == 0.0


def test_prompts_that_want_other_options_are_no_batch(at):
    part = PartConfig(at("whole"), column="verifier", choices={"whole": at("whole")})
    rows = [{"verifier": "whole", "verifier_params": {"level": level}} for level in (1, 2, 1)]
    prompts = [Prompt(f"p{n}", n, (), (1,), "", row=row) for n, row in enumerate(rows)]
    assembly = Assembly(Plan(RewardConfig({"x": part})), prompts, 1)
    asked = assembly.ended([ended(n) for n in range(3)])
    assert [(q.assignment.params["level"], q.places) for q in asked] == [(1, ((0, 0), (2, 0))), (2, ((1, 0),))]


def test_a_group_is_held_only_until_it_is_whole(at):
    """Also where others wait for a batch, of which it is no part."""
    part = PartConfig(at("first"), column="verifier", choices={"whole": at("whole")})
    rows = [{}, {"verifier": "whole"}, {}, {"verifier": "whole"}]
    prompts = [Prompt(f"p{n}", n, (), (1,), "", row=row) for n, row in enumerate(rows)]
    assembly = Assembly(Plan(RewardConfig({"x": part})), prompts, 1)
    right = Verdict(1.0, Outcome.OK, provenance=(Provenance("x"),))
    held, done = [], []
    for n in (0, 1, 3, 2):
        for question in assembly.ended([ended(n)]):
            done += assembly.answered(question, [right] * len(question.samples))[1]
        held.append(list(assembly.forming))
    assert held == [[1, 2, 3], [1, 2, 3], [1, 2, 3], []]
    assert [group.prompt.id for group in done] == ["p0", "p2", "p1", "p3"]
