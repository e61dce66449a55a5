"""What the rollouts remember goes through a checkpoint."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from rlvr.reward_config import PartConfig
from rlvr.rollout.rollouts import SampledRollouts
from rlvr.types import Outcome, Provenance
from rlvr.verify.health import VerifiersFailed
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


def test_an_evaluation_says_of_how_many_problems_it_is():
    one = rollouts()
    one.heldout = [builders.prompt(position) for position in range(5)]
    one.pipeline.groups = lambda prompts, _: [builders.group([float(p.position % 2)], of=p) for p in prompts]
    accuracies = {"eval/accuracy_greedy": 0.4, "eval/accuracy_sampled": 0.4}
    said = one.evaluate()
    assert said.pop("eval/seconds") > 0
    assert said == {"eval/problems": 5, "eval/masked": 0, **accuracies}


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


def test_several_samples_of_a_problem_say_how_often_one_of_k_solves_it():
    one = rollouts()
    one.cfg.evaluation.samples = 4
    one.heldout = [builders.prompt(position) for position in range(2)]
    of = {1: [[1.0], [0.0]], 4: [[1.0, 0.0, 0.0, 0.0], [None, 0.0, 1.0, 1.0]]}

    def groups(prompts, sampling):
        return [builders.group(rewards, of=p) for p, rewards in zip(prompts, of[sampling.completions], strict=True)]

    one.pipeline.groups = groups
    one.warn = lambda text: None
    said = one.evaluate()
    assert (said["eval/accuracy_greedy"], said["eval/accuracy_sampled"]) == (0.5, 3 / 7)
    assert said["eval/pass_at_2"] == pytest.approx((1 / 2 + 1) / 2)  # 3 of 6 pairs of the first; all 3 of the second
    assert said["eval/pass_at_4"] == 1.0, "only the first has four that were judged"
    assert "eval/pass_at_8" not in said


def evaluated(problems: int, masked: int) -> tuple[dict[str, float], list[str]]:
    """Every other problem is solved, of those that are judged; what it said, and what it warned of."""
    one, told = rollouts(), []
    one.warn = told.append
    one.heldout = [builders.prompt(position) for position in range(problems)]

    def groups(prompts, _):
        for n, prompt in enumerate(prompts):
            yield builders.group([None if n < masked else float(n % 2)], of=prompt)

    one.pipeline.groups = groups
    return one.evaluate(), told


def test_what_could_not_be_judged_is_no_wrong_answer():
    said, told = evaluated(problems=40, masked=20)
    assert said["eval/accuracy_greedy"] == said["eval/accuracy_sampled"] == 0.5 and said["eval/masked"] == 0.5
    assert told == ["50.0% of the 80 verdicts of an evaluation are masked > verify.mask_warn 2%: its accuracy is of "
                    "the others"]  # fmt: skip
    nothing, _ = evaluated(problems=40, masked=40)
    assert nothing | {"eval/seconds": 0} == {"eval/problems": 40, "eval/masked": 1.0, "eval/seconds": 0}
    assert evaluated(problems=100, masked=1)[1] == []


def compared(samples: int, alone: Outcome, verifier: str = "majority") -> dict[str, float]:
    """An evaluation whose main part says `alone` of one completion, and has rewards for a group of four."""
    one = rollouts()
    one.cfg.reward.parts["math"] = PartConfig(verifier)
    one.cfg.evaluation.samples = samples
    one.heldout = [builders.prompt(position) for position in range(100)]
    unsaid = replace(builders.verdict(None), outcome=alone)

    def groups(prompts, sampling):
        for prompt in prompts:
            if sampling.completions == 4:
                yield builders.group([1.0, 1.0, 1.0, 0.0], of=prompt)
            else:
                yield replace(builders.group([None], of=prompt), verdicts=(unsaid,))

    one.pipeline.groups = groups
    return one.evaluate()


def test_one_completion_of_a_problem_is_no_group_to_compare_and_no_fault_of_its_verifier():
    said = compared(4, Outcome.ABSTAIN)
    assert (said["eval/accuracy_sampled"], said["eval/masked"]) == (0.75, 0.0) and "eval/accuracy_greedy" not in said
    assert compared(1, Outcome.ABSTAIN).keys() == {"eval/problems", "eval/seconds"}


@pytest.mark.parametrize(("alone", "verifier"), [(Outcome.ERROR, "majority"), (Outcome.ABSTAIN, "format")])
def test_a_verifier_that_fails_or_compares_nothing_has_no_such_excuse(alone, verifier):
    with pytest.raises(VerifiersFailed, match="of an evaluation are masked"):
        compared(1, alone, verifier)


def test_an_evaluation_whose_verifiers_fail_is_an_error():
    with pytest.raises(VerifiersFailed, match=r"of an evaluation are masked > verify.mask_stop"):
        evaluated(problems=100, masked=90)
