"""Reward functions of TRL and verl judge here, and ours judge there."""

import psutil
import pytest

from rlvr.config import RecipeError
from rlvr.reward_config import PartConfig, RewardConfig
from rlvr.types import Completion, Group, Outcome, Prompt
from rlvr.verify import Judge, Sample
from rlvr.verify.adapters import Masked, close_pools, to_trl, to_verl
from rlvr.verify.discover import load
from rlvr.verify.plan import Plan

# shaped like those of TRL's documentation and verl's reward_score, and written for this test
FUNCTIONS = '''
import re

def accuracy(completions, solution, **kwargs):
    """Conversational: completions are lists of messages."""
    contents = [completion[0]["content"] for completion in completions]
    return [None if s is None or s == "?" else float(c.strip().endswith(s)) for c, s in zip(contents, solution)]

def long_enough(completion_ids, **kwargs):
    return [min(1.0, len(ids) / 4) for ids in completion_ids]

def by_difficulty(prompts, completions, answer, difficulty):
    return [d * (a in c) for c, a, d in zip(completions, answer, difficulty)]

def soft(completions, solution, ignore_case=False, **kwargs):
    return [float(c.lower() == s.lower() if ignore_case else c == s) for c, s in zip(completions, solution)]

def perhaps(completions, log_metric=None, solution=None, **kwargs):
    return [0.5 if solution is None else float(c == s) for c, s in zip(completions, solution or completions)]

def rest(completions, *rest, **kwargs):
    return [float(c == a) for c, a in zip(completions, kwargs["answer"])]

def weighted(completions, weight=1.0, **kwargs):
    return [weight * (c == a) for c, a in zip(completions, kwargs["answer"])]

def scaled(completions, weight=1.0, solution=None, **kwargs):
    return [weight * (c == s) for c, s in zip(completions, solution)]

def in_bounds(completions, least=2, most=5):
    return [float(least <= len(c) <= most) for c in completions]

def either(completions, answer=None, solution=None, **kwargs):
    return [float(c == a) for c, a in zip(completions, answer)]

def two(completions, solution, level, **kwargs):
    return [float(c == s) for c, s in zip(completions, solution)]

async def later(prompts, completions, answer, **kwargs):
    return [float(a in c) for c, a in zip(completions, answer)]

def raises(completions, **kwargs):
    raise RuntimeError("no luck")

def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    if data_source == "openai/gsm8k":
        found = re.findall("#### (-?[0-9.]+)", solution_str)
        return 1.0 if found and found[-1] == ground_truth else 0.0
    raise NotImplementedError(f"reward function is not implemented for {data_source}")

def with_extras(data_source, solution_str, ground_truth, extra_info=None, bonus=0.0):
    return {"score": bonus + (ground_truth in solution_str), "acc": ground_truth in solution_str, "pred": solution_str,
            "index": extra_info["index"]}
'''


@pytest.fixture(scope="module")
def at(tmp_path_factory):
    path = tmp_path_factory.mktemp("adapters") / "theirs.py"
    path.write_text(FUNCTIONS)
    return lambda kind, name: f"{kind}:{path}:{name}"


@pytest.fixture(autouse=True, scope="module")
def nothing_left():
    yield
    close_pools()
    assert [p for p in psutil.Process().children(recursive=True) if "rlvr.verify.worker" in " ".join(p.cmdline())] == []


def judged(part: PartConfig, *texts: str, answer="5", **row):
    prompt = Prompt("p", 0, ({"role": "user", "content": "q"},), (1,), answer, row=row)
    completions = tuple(Completion((1, 2), (True,) * 2, (0.0,) * 2, 0, text, "eos") for text in texts)
    judge = Judge(RewardConfig({"theirs": part}), 1)
    try:
        return judge.verify_group(Group(prompt, completions)).verdicts
    finally:
        judge.close()


def test_a_trl_function_gets_the_reference_in_the_column_that_it_names(at):
    part = PartConfig(at("trl", "accuracy"), {"conversational": True})
    assert [v.reward for v in judged(part, "it is 5", "it is 6")] == [1.0, 0.0]
    (masked,) = judged(part, "it is 5", answer="?")
    assert (masked.outcome, masked.reward) == (Outcome.ABSTAIN, None)


def test_a_trl_function_gets_columns_and_token_ids(at):
    assert [v.reward for v in judged(PartConfig(at("trl", "by_difficulty")), "5", "6", difficulty=0.5)] == [0.5, 0.0]
    assert [v.reward for v in judged(PartConfig(at("trl", "long_enough")), "5")] == [0.5]
    assert [v.reward for v in judged(PartConfig(at("trl", "later")), "5", "6")] == [1.0, 0.0]


def rewards(part: PartConfig, *texts: str, **more) -> list[float | None]:
    return [verdict.reward for verdict in judged(part, *texts, **more)]


def test_an_argument_of_a_trl_function_that_no_column_fills_keeps_its_default(at):
    soft = PartConfig(at("trl", "soft"))
    assert rewards(soft, "abc", "ABC", answer="abc") == [1.0, 0.0]
    assert rewards(soft, "ABC", answer="abc", ignore_case=True) == [1.0]  # as a column
    for name in ("perhaps", "rest", "weighted", "scaled"):
        assert rewards(PartConfig(at("trl", name)), "abc", "x", answer="abc") == [1.0, 0.0]
    assert rewards(PartConfig(at("trl", "in_bounds")), "abc", "x") == [1.0, 0.0]


def test_a_column_called_answer_is_not_the_reference_of_a_trl_function(at):
    asked = load(at("trl", "rest"))
    assert asked(Sample("", "5", "6", row={"answer": "5"})).reward == 1.0
    assert asked(Sample("", "5", "6", row={"answer": "5"}), answer_column="answer").reward == 0.0


@pytest.mark.parametrize(("name", "column"), [("either", "answer"), ("two", "solution")])
def test_where_the_reference_goes_is_asked_for_and_not_guessed(at, name, column):
    (verdict,) = judged(PartConfig(at("trl", name)), "5")
    assert verdict.reward is None and "params.answer_column" in verdict.detail
    level = {} if name == "either" else {"level": 3}
    assert rewards(PartConfig(at("trl", name), {"answer_column": column}), "5", "6", **level) == [1.0, 0.0]
    (verdict,) = judged(PartConfig(at("trl", "by_difficulty"), {"answer_column": "answr"}), "5", difficulty=1.0)
    assert verdict.reward is None and "answer_column=answr" in verdict.detail


def test_what_their_functions_raise_is_an_error_and_no_reward(at):
    for kind, name in (("trl", "raises"), ("verl", "compute_score")):
        (verdict,) = judged(PartConfig(at(kind, name)), "#### 5")
        assert (verdict.outcome, verdict.reward) == (Outcome.ERROR, None)


def test_a_verl_function_gets_its_source_and_ground_truth(at):
    part = PartConfig(at("verl", "compute_score"))
    assert [v.reward for v in judged(part, "#### 5", "#### 6", data_source="openai/gsm8k")] == [1.0, 0.0]
    nested = judged(part, "#### 5", data_source="openai/gsm8k", answer={"style": "rule", "ground_truth": "5"})
    assert nested[0].reward == 1.0
    named = PartConfig(at("verl", "compute_score"), {"data_source": "openai/gsm8k"})
    assert judged(named, "#### 5")[0].reward == 1.0


def test_a_verl_dict_keeps_its_extras(at):
    part = PartConfig(at("verl", "with_extras"), {"bonus": 0.5})
    (verdict,) = judged(part, "so 5", extra_info={"index": 3})
    assert (verdict.reward, verdict.answer) == (1.5, "so 5")
    assert verdict.provenance[0].parts == {"acc": 1.0, "index": 3.0}
    direct = load(at("verl", "with_extras"))(Sample("", "so 5", "5", row={"extra_info": {"index": 3}}))
    assert direct.parts == {"acc": 1.0, "index": 3.0}


def test_a_function_that_is_not_there_is_said_when_the_recipe_is_read(at):
    with pytest.raises(RecipeError, match="has no function 'nobody'"):
        Plan(RewardConfig({"x": PartConfig(at("trl", "nobody"))}))


def test_our_verifiers_are_trl_reward_functions():
    reward = to_trl("math", answer="solution", processes=1)
    assert reward.__name__ == "math"
    said = reward(
        prompts=["q"] * 3, completions=[r"\boxed{5}", r"\boxed{6}", r"\boxed{1}"], solution=["5", "5", ""],
        completion_ids=[[1], [2], [3]], trainer_state=None,
    )  # fmt: skip
    assert said == [1.0, 0.0, None]
    talk = [[{"role": "assistant", "content": r"\boxed{5}"}]]
    assert reward(prompts=[[{"role": "user", "content": "q"}]], completions=talk, solution=["5"]) == [1.0]


def test_a_group_verifier_sees_the_completions_of_one_prompt_at_a_time():
    reward = to_trl("majority", processes=1, unlabelled=True, least=1)
    said = reward(prompts=["a", "b", "a", "b"], completions=[rf"\boxed{{{n}}}" for n in (1, 2, 1, 2)], answer=[""] * 4)
    assert said == [1.0] * 4
    asked = [[{"role": "system", "content": s}, {"role": "user", "content": "q"}] for s in ("x", "x", "y", "y")]
    said = reward(prompts=asked, completions=[rf"\boxed{{{n}}}" for n in (1, 1, 2, 2)], answer=[""] * 4)
    assert said == [1.0] * 4  # the same last message is not the same prompt


def test_our_verifiers_are_verl_scores_and_never_make_a_number_of_an_error():
    score = to_verl("math")
    assert score("any", r"\boxed{5}", "5", {"split": "test"})["score"] == 1.0
    assert score("any", r"\boxed{6}", "5")["acc"] is False
    with pytest.raises(Masked, match="gold_unparsed"):
        score("any", r"\boxed{6}", "")
    assert to_verl("math", masked=0.0)("any", r"\boxed{6}", "")["outcome"] == "abstain"
