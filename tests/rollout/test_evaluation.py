"""What an evaluation says of a policy, and keeps of what it wrote."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from rlvr.reward_config import PartConfig
from rlvr.rollout.evaluation import SAMPLED, Evaluation
from rlvr.types import Outcome
from rlvr.verify.health import VerifiersFailed
from tests import builders, toy

WRITTEN = {"eval/truncated": 0.0, "eval/length_mean": 3.0}


def evaluation() -> Evaluation:
    cfg = toy.recipe(3)
    cfg.reward.parts["math"] = PartConfig("math")
    return Evaluation(cfg, SimpleNamespace(), (), lambda text: None)


def test_an_evaluation_says_of_how_many_problems_it_is():
    one = evaluation()
    one.problems = [builders.prompt(position) for position in range(5)]
    one.pipeline.groups = lambda prompts, _: [builders.group([float(p.position % 2)], of=p) for p in prompts]
    accuracies = {"eval/accuracy_greedy": 0.4, "eval/accuracy_sampled": 0.4}
    said = one.run().metrics
    assert said.pop("eval/seconds") > 0
    assert said == {"eval/problems": 5, "eval/masked": 0, **accuracies, **WRITTEN}


def test_several_samples_of_a_problem_say_how_often_one_of_k_solves_it():
    one = evaluation()
    one.cfg.evaluation.samples = 4
    one.problems = [builders.prompt(position) for position in range(2)]
    of = {1: [[1.0], [0.0]], 4: [[1.0, 0.0, 0.0, 0.0], [None, 0.0, 1.0, 1.0]]}

    def groups(prompts, sampling):
        return [builders.group(rewards, of=p) for p, rewards in zip(prompts, of[sampling.completions], strict=True)]

    one.pipeline.groups = groups
    one.warn = lambda text: None
    said = one.run().metrics
    assert (said["eval/accuracy_greedy"], said["eval/accuracy_sampled"]) == (0.5, 3 / 7)
    assert said["eval/pass_at_2"] == pytest.approx((1 / 2 + 1) / 2)  # 3 of 6 pairs of the first; all 3 of the second
    assert said["eval/pass_at_4"] == 1.0, "only the first has four that were judged"
    assert "eval/pass_at_8" not in said


def evaluated(problems: int, masked: int) -> tuple[dict[str, float], list[str]]:
    """Every other problem is solved, of those that are judged; what it said, and what it warned of."""
    one, told = evaluation(), []
    one.warn = told.append
    one.problems = [builders.prompt(position) for position in range(problems)]

    def groups(prompts, _):
        for n, prompt in enumerate(prompts):
            yield builders.group([None if n < masked else float(n % 2)], of=prompt)

    one.pipeline.groups = groups
    return one.run().metrics, told


def test_what_could_not_be_judged_is_no_wrong_answer():
    said, told = evaluated(problems=40, masked=20)
    assert said["eval/accuracy_greedy"] == said["eval/accuracy_sampled"] == 0.5 and said["eval/masked"] == 0.5
    assert told == ["50.0% of the 80 verdicts of an evaluation are masked > verify.mask_warn 2%: its accuracy is of "
                    "the others"]  # fmt: skip
    nothing, _ = evaluated(problems=40, masked=40)
    assert nothing | {"eval/seconds": 0} == {"eval/problems": 40, "eval/masked": 1.0, "eval/seconds": 0, **WRITTEN}
    assert evaluated(problems=100, masked=1)[1] == []


def compared(samples: int, alone: Outcome, verifier: str = "majority") -> dict[str, float]:
    """An evaluation whose main part says `alone` of one completion, and has rewards for a group of four."""
    one = evaluation()
    one.cfg.reward.parts["math"] = PartConfig(verifier)
    one.cfg.evaluation.samples = samples
    one.problems = [builders.prompt(position) for position in range(100)]
    unsaid = replace(builders.verdict(None), outcome=alone)

    def groups(prompts, sampling):
        for prompt in prompts:
            if sampling.completions == 4:
                yield builders.group([1.0, 1.0, 1.0, 0.0], of=prompt)
            else:
                yield replace(builders.group([None], of=prompt), verdicts=(unsaid,))

    one.pipeline.groups = groups
    return one.run().metrics


def test_one_completion_of_a_problem_is_no_group_to_compare_and_no_fault_of_its_verifier():
    said = compared(4, Outcome.ABSTAIN)
    assert (said["eval/accuracy_sampled"], said["eval/masked"]) == (0.75, 0.0) and "eval/accuracy_greedy" not in said
    assert compared(1, Outcome.ABSTAIN).keys() == {"eval/problems", "eval/seconds", *WRITTEN}


@pytest.mark.parametrize(("alone", "verifier"), [(Outcome.ERROR, "majority"), (Outcome.ABSTAIN, "format")])
def test_a_verifier_that_fails_or_compares_nothing_has_no_such_excuse(alone, verifier):
    with pytest.raises(VerifiersFailed, match="of an evaluation are masked"):
        compared(1, alone, verifier)


def test_an_evaluation_whose_verifiers_fail_is_an_error():
    with pytest.raises(VerifiersFailed, match=r"of an evaluation are masked > verify.mask_stop"):
        evaluated(problems=100, masked=90)


def test_what_ran_into_the_limit_and_how_much_was_written_is_said_of_the_sampled_ones():
    """With a tool only what the policy wrote itself."""
    one = evaluation()
    one.cfg.evaluation.samples = 2
    one.problems = [builders.prompt(position) for position in range(2)]
    short = builders.completion((7, 8), (True, False))
    long = builders.completion((7,) * 6, stop_reason="length")
    of = {1: [long], 2: [short, long]}

    def groups(prompts, sampling):
        some = of[sampling.completions]
        return [builders.group([1.0] * len(some), some, of=prompt) for prompt in prompts]

    one.pipeline.groups = groups
    said = one.run().metrics
    assert (said["eval/truncated"], said["eval/length_mean"]) == (0.5, 3.5)


def test_groups_are_kept_in_the_order_of_the_problems_and_with_their_own_positions():
    one = evaluation()
    one.problems = [builders.prompt(position) for position in (3, 0, 8)]
    one.pipeline.groups = lambda prompts, _: [
        builders.group([float(p.position == SAMPLED + 8)], of=p) for p in reversed(prompts)
    ]
    groups = one.run().groups
    assert list(groups) == ["greedy", "sampled"]
    for some in groups.values():
        assert [group.prompt for group in some] == one.problems
        assert [group.verdicts[0].reward for group in some] == [0.0, 0.0, 1.0]


def test_the_tokens_left_to_choose_from_are_not_held():
    one = evaluation()
    one.problems = [builders.prompt()]
    made = replace(builders.completion((7, 8)), kept_ids=((7,), (8, 9)))
    one.pipeline.groups = lambda prompts, _: [builders.group([1.0], [made], of=prompt) for prompt in prompts]
    for (group,) in one.run().groups.values():
        assert group.completions == (replace(made, kept_ids=None),)


def test_what_could_not_be_judged_is_handed_on_before_it_is_an_error():
    one, left = evaluation(), []
    one.problems = [builders.prompt(position) for position in range(100)]
    one.pipeline.groups = lambda prompts, _: [builders.group([None], of=prompt) for prompt in prompts]
    one.failed = left.append
    with pytest.raises(VerifiersFailed):
        one.run()
    assert {decoding: len(groups) for decoding, groups in left[0].items()} == {"greedy": 100, "sampled": 100}
