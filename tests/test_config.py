"""What no type can say of a recipe is refused with key, value and limit; the limit itself is not."""

import math
from typing import Any

import pytest

from rlvr.config import PartConfig, Recipe, RecipeError, check
from tests import toy

AT_LEAST = {
    "steps": 1,
    "rollout.group_size": 2,
    "rollout.groups_per_step": 1,
    "rollout.max_tokens": 1,
    "rollout.workers": 1,
    "rollout.max_sequences": 1,
    "rollout.threads": 1,
    "rollout.tensor_parallel": 1,
    "rollout.refill_rounds": 0,
    "rollout.top_k": 0,
    "rollout.max_staleness": 0,
    "verify.workers": 1,
    "verify.processes": 1,
    "verify.max_waiting": 1,
    "verify.window": 20,
    "checkpoint.every": 1,
    "checkpoint.keep": 1,
    "checkpoint.keep_every": 0,
    "checkpoint.probation": 1,
    "evaluation.samples": 1,
    "evaluation.every": 0,
    "evaluation.limit": 1,
    "log.completions_every": 0,
    "cluster.restarts": 0,
    "cluster.restart_hours": 0,
    "cluster.restart_wait_s": 1,
}
ONE_OF = {
    "cluster.kind": ("local", "ray", "inline"),
    "cluster.placement": ("disaggregated", "colocated"),
    "rollout.engine": ("vllm", "transformers"),
    "rollout.dtype": ("auto", "float32", "bfloat16"),
    "model.dtype": ("auto", "float32", "bfloat16"),
    "model.attention": ("auto", "sdpa", "varlen", "eager", "flash_attention_2", "flash_attention_3"),
    "reward.combine": ("sum", "product", "min"),
    "verify.sudden": ("stop", "warn"),
}


def recipe(**settings: Any) -> Recipe:
    """A key of a section with two underscores in place of its dot."""
    cfg = toy.recipe(9)
    for key, value in settings.items():
        section, _, name = key.rpartition("__")
        setattr(getattr(cfg, section) if section else cfg, name, value)
    return cfg


def refused(cfg: Recipe) -> str:
    with pytest.raises(RecipeError) as error:
        check(cfg)
    return str(error.value)


def test_a_recipe_that_says_little_is_fine():
    check(recipe())


@pytest.mark.parametrize(("key", "limit"), AT_LEAST.items(), ids=AT_LEAST)
def test_a_number_has_a_lower_limit(key, limit):
    name = key.replace(".", "__")
    for value in (limit - 1, math.nan):
        assert refused(recipe(**{name: value})) == f"{key}={value}: at least {limit}"
    check(recipe(**{name: limit}))


@pytest.mark.parametrize(("key", "allowed"), ONE_OF.items(), ids=ONE_OF)
def test_a_choice_is_one_of_those_that_there_are(key, allowed):
    name = key.replace(".", "__")
    assert refused(recipe(**{name: "none"})) == f"{key}=none: one of {', '.join(allowed)}"
    for choice in allowed:
        check(recipe(**{name: choice}))


def test_a_reward_needs_a_part_and_a_weight():
    assert refused(recipe(reward__parts={})) == "reward.parts is empty: a run needs at least one verifier"
    parts = {"math": PartConfig("toy", weight=0.0), "format": PartConfig("toy", weight=0.0)}
    assert refused(recipe(reward__parts=parts)) == "reward.parts: every weight is 0, so every reward would be"
    parts["format"].weight = -0.1
    check(recipe(reward__parts=parts))


def test_beside_the_longest_completion_there_is_room_for_a_prompt():
    assert refused(recipe(model__max_context=500, rollout__max_tokens=500)) == (
        "model.max_context=500 leaves no room for a prompt beside rollout.max_tokens=500"
    )
    check(recipe(model__max_context=501, rollout__max_tokens=500))
