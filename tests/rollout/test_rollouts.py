"""What the rollouts remember goes through a checkpoint."""

import json
from dataclasses import replace
from types import SimpleNamespace

from rlvr.reward_config import PartConfig
from rlvr.rollout.rollouts import SampledRollouts
from rlvr.types import Provenance
from tests import builders, toy
from tests.verify.test_health import group


def rollouts() -> SampledRollouts:
    pipeline, cfg = SimpleNamespace(verify=lambda groups: groups), toy.recipe(3)
    cfg.reward.parts["math"] = PartConfig("math")
    return SampledRollouts(cfg, toy.GRPO, pipeline, None, (), ([1, 2], 1e-3), lambda text: None)


def test_a_resumed_run_knows_what_the_verifiers_have_said(tmp_path):
    one, two = rollouts(), rollouts()
    assert one.memory() == two.memory()
    one.health.step([group([1.0, 0.0])])
    assert one.memory() != two.memory()
    two.remember(json.loads(json.dumps(one.memory())))
    assert two.memory() == one.memory()


def test_a_new_run_has_nothing_to_remember():
    one = rollouts()
    one.remember({})
    assert one.memory() == rollouts().memory()


def test_a_part_that_judged_nothing_has_no_reward_rather_than_a_bad_one():
    one, said = rollouts(), builders.verdict(1.0, {"math": 1.0})
    one.cfg.reward.parts["style"] = PartConfig("style", weight=0.0)
    judged = replace(builders.group([1.0]), verdicts=(said,))
    row = one._metrics([judged], 1)
    assert row["reward/math"] == 1.0 and "reward/style" not in row
    both = replace(judged, verdicts=(replace(said, parts={"math": 1.0, "style": 0.5}),))
    assert one._metrics([judged, both], 2)["reward/style"] == 0.5  # of the one that it judged


def test_a_right_answer_behind_a_closed_gate_is_right_and_not_rewarded():
    said = builders.verdict(1.0, {"math": 1.0})
    own = Provenance("math", part="math", outcome="ok", reward=1.0)
    gated = replace(said, reward=0.0, parts={"math": 0.0}, provenance=(own,))
    unsaid = replace(builders.verdict(None), provenance=gated.provenance)  # masked by another part
    one = replace(builders.group([1.0] * 4), verdicts=(said, gated, gated, unsaid))
    row = rollouts()._metrics([one], 1)
    assert (row["accuracy"], row["accuracy_rewarded"]) == (1.0, 1 / 3)
