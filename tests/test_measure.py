"""What a step's numbers are measured with: which changes of a recipe make other numbers, and which do not."""

from dataclasses import asdict

import pytest

from rlvr.compose import compose_recipe, measured_otherwise, saved_recipe, to_yaml, typed
from rlvr.config import Recipe
from rlvr.measure import MEASURED_BY, changed, mark, value
from tests.test_recipes import NAMES


def quickstart(*overrides: str) -> Recipe:
    return typed(compose_recipe("quickstart", list(overrides)))[0]


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
     "checkpoint.every=7", "sentinel.max_rollbacks=2", "cluster.restarts=9", "verify.processes=4", "log.wandb=true"],
)  # fmt: skip
def test_what_does_not_leaves_the_mark_as_it_is(override):
    before, now = quickstart(), quickstart(override)
    assert before != now and mark(before) == mark(now) and changed(asdict(before), asdict(now)) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_run_that_goes_on_has_the_mark_that_it_began_with(name):
    composed = compose_recipe(name, [])
    saved = saved_recipe(to_yaml(composed))
    assert mark(typed(saved)[0]) == mark(typed(composed)[0]) and measured_otherwise(saved, composed) == []


def test_the_mark_is_exact_as_a_float_and_its_keys_exist():
    assert int(float(mark(quickstart()))) == mark(quickstart()) < 2**53
    assert all(value(asdict(quickstart()), key) is not ... for key in MEASURED_BY)
