"""What the rollouts remember goes through a checkpoint."""

import json
from types import SimpleNamespace

from rlvr.rollout.rollouts import SampledRollouts
from tests import builders, toy
from tests.verify.test_health import group


def rollouts() -> SampledRollouts:
    pipeline = SimpleNamespace(verify=lambda groups: groups)
    return SampledRollouts(toy.recipe(3), toy.GRPO, pipeline, None, (), ([1, 2], 1e-3), lambda text: None)


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


def test_an_evaluation_says_of_how_many_problems_it_is():
    one = rollouts()
    one.heldout = [builders.prompt(position) for position in range(5)]
    one.pipeline.groups = lambda prompts, _: [builders.group([float(p.position % 2)], of=p) for p in prompts]
    assert one.evaluate() == {"eval/problems": 5, "eval/accuracy_greedy": 0.4, "eval/accuracy_sampled": 0.4}
