"""Accuracy is what the main verifier says, whatever becomes of it in the reward."""

import pytest

from rlvr.evaluate import accuracy, correct, judged
from rlvr.reward_config import PartConfig, RewardConfig
from rlvr.types import Outcome, Provenance, Verdict
from rlvr.verify.compose import attributed, combine
from tests import builders


def verdict(cfg_math: dict, cfg_form: dict, **said: float | None) -> Verdict:
    """As an assembly makes it of what two parts say, with these options; None is what a part cannot say."""
    cfg = RewardConfig({"math": PartConfig("math", **cfg_math), "form": PartConfig("form", **cfg_form)})
    one = {
        part: Verdict(reward, Outcome.ERROR if reward is None else Outcome.OK, provenance=(Provenance(part),))
        for part, reward in said.items()
    }
    return combine({part: attributed(part, [each]) for part, each in one.items()}, cfg)


@pytest.mark.parametrize(
    ("math", "form"), [({}, {"gate": True}), ({"requires": {"form": 1.0}}, {}), ({"weight": 0.0}, {"gate": True})]
)
def test_a_gate_or_a_requirement_takes_a_reward_and_makes_no_answer_wrong(math, form):
    closed = verdict(math, form, math=1.0, form=0.0)
    assert closed.parts["math"] == 0.0 and correct(closed, "math")
    assert not correct(verdict(math, form, math=0.0, form=1.0), "math")


def test_what_a_main_verifier_without_weight_cannot_say_counts_neither_way():
    free = {"weight": 0.0}
    unsaid, right, wrong = (verdict(free, {}, math=x, form=1.0) for x in (None, 1.0, 0.0))
    assert unsaid.trainable and not judged(unsaid, "math") and not correct(unsaid, "math")
    assert accuracy([unsaid, right, right, wrong], "math") == pytest.approx(2 / 3)
    assert accuracy([unsaid], "math") == 0.0


def test_an_answer_is_as_right_when_another_part_fails():
    masked = verdict({}, {}, math=1.0, form=None)
    assert not masked.trainable and judged(masked, "math") and correct(masked, "math")


def test_of_several_that_were_asked_the_last_one_decides():
    rule = Verdict(None, Outcome.ABSTAIN, provenance=(Provenance("rule"),))
    judge = Verdict(1.0, Outcome.OK, provenance=(Provenance("judge"), Provenance("asked")))
    cfg = RewardConfig({"math": PartConfig("rule")})
    assert correct(combine({"math": attributed("math", [rule, judge])}, cfg), "math")


def test_a_verdict_that_names_no_part_is_read_by_its_parts():
    assert correct(builders.verdict(1.0), "math") and not correct(builders.verdict(0.5), "math")
    assert not judged(builders.verdict(None), "math")
