"""What a step's numbers are measured with: which changes of a recipe make other numbers, and which do not."""

import math
from copy import deepcopy
from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr.compose import compose_recipe, measured_otherwise, saved_recipe, to_yaml, typed
from rlvr.config import Recipe
from rlvr.measure import MEASURED_BY, changed, mark, value
from rlvr.reward_config import AuditConfig, VerifierChoice
from tests.test_recipes import NAMES


def quickstart(*overrides: str) -> Recipe:
    return typed(compose_recipe("quickstart", list(overrides)))[0]


QUICKSTART = quickstart()


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("reward.parts.math.weight=0.5", "reward"), ("data.train=others.jsonl", "data"),
        ("rollout.temperature=0.7", "rollout.temperature"), ("rollout.max_tokens=77", "rollout.max_tokens"),
        ("algorithm=dr_grpo", "algorithm"), ("model.chat_template=plain", "model.chat_template"),
    ],
)  # fmt: skip
def test_what_decides_a_number_changes_the_mark(override, key):
    before, now = quickstart(), quickstart(override)
    assert mark(before) != mark(now)
    assert key in changed(asdict(before), asdict(now))


@pytest.mark.parametrize(
    "override",
    ["steps=900", "rollout.workers=3", "trainer.learning_rate=1e-7", "evaluation.every=5", "evaluation.limit=3",
     "reward.parts.math.timeout_s=9", "checkpoint.every=7", "sentinel.max_rollbacks=2",
     "cluster.restarts=9", "verify.processes=4", "log.wandb=true"],
)  # fmt: skip
def test_what_does_not_leaves_the_mark_as_it_is(override):
    before, now = quickstart(), quickstart(override)
    assert before != now and mark(before) == mark(now) and changed(asdict(before), asdict(now)) == []


def changed_part(**fields) -> Recipe:
    now = deepcopy(QUICKSTART)
    now.reward.parts["math"] = replace(now.reward.parts["math"], **fields)
    return now


@pytest.mark.parametrize(
    ("before", "now", "alike"),
    [
        ({}, {"audit": AuditConfig("code")}, True),  # reported, and rewards nobody
        ({"first_decided": [VerifierChoice("code")]}, {"first_decided": [VerifierChoice("code", timeout_s=9)]}, True),
        ({"first_decided": [VerifierChoice("code")]}, {"first_decided": [VerifierChoice("judge")]}, False),
        ({}, {"params": {"timeout_s": 9}}, False),  # what a verifier makes of its own options only it knows
    ],
)
def test_of_a_part_what_decides_its_reward_is_in_the_mark(before, now, alike):
    one, other = changed_part(**before), changed_part(**now)
    assert one != other and (mark(one) == mark(other)) is alike
    assert (changed(asdict(one), asdict(other)) == []) is alike


NUMBERS = st.sampled_from([0, 0.0, -0.0, 1, 1.0, True, False, None, "1", math.inf, math.nan])


@given(NUMBERS, NUMBERS)
def test_the_mark_and_the_warning_of_a_resume_agree(a, b):
    before, now = changed_part(params={"x": a}), changed_part(params={"x": b})
    assert (mark(before) == mark(now)) is (changed(asdict(before), asdict(now)) == [])


@pytest.mark.parametrize("name", NAMES)
def test_a_run_that_goes_on_has_the_mark_that_it_began_with(name):
    composed = compose_recipe(name, [])
    saved = saved_recipe(to_yaml(composed))
    assert mark(typed(saved)[0]) == mark(typed(composed)[0]) and measured_otherwise(saved, composed) == []


def test_the_mark_is_exact_as_a_float_and_its_keys_exist():
    assert int(float(mark(quickstart()))) == mark(quickstart()) < 2**53
    assert all(value(asdict(quickstart()), key) is not ... for key in MEASURED_BY)


def test_a_recipe_without_a_tool_has_the_mark_that_it_had_before_there_were_tools():
    calls = "rollout.tool.name=mine.py:calculator"
    assert mark(quickstart("rollout.tool.processes=9", "rollout.tool.max_calls=7")) == mark(QUICKSTART)
    assert mark(quickstart(calls)) != mark(QUICKSTART)
    assert mark(quickstart(calls, "rollout.tool.processes=9")) == mark(quickstart(calls))
    assert mark(quickstart(calls, "rollout.tool.max_calls=7")) != mark(quickstart(calls))
