"""Every recipe we ship can be run as it is, with every algorithm."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from rlvr import config
from rlvr.compose import compose_recipe, typed
from rlvr.objective import Objective
from rlvr.reward_config import AuditConfig, PartConfig, RewardConfig, VerifierChoice

RECIPES = Path(__file__).resolve().parents[1] / "recipes"
NAMES = sorted(path.stem for path in RECIPES.glob("*.yaml"))
ALGORITHMS = sorted(path.stem for path in (RECIPES / "algorithm").glob("*.yaml"))
KINDS = {
    "inline": ("inline", "disaggregated"),
    "local": ("local", "disaggregated"),
    "one_gpu": ("local", "colocated"),
    "one_node": ("local", "disaggregated"),
    "ray": ("ray", "disaggregated"),
}
CLUSTERS = sorted(path.stem for path in (RECIPES / "cluster").glob("*.yaml"))


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_composes_and_its_values_can_work(name):
    recipe, objective = typed(compose_recipe(name, []))
    config.check(recipe)
    assert recipe.name == name
    assert isinstance(objective, Objective)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_is_one_word_away_and_leaves_the_rest_of_the_recipe_alone(algorithm):
    ours, _ = typed(compose_recipe("quickstart", []))
    recipe, objective = typed(compose_recipe("quickstart", [f"algorithm={algorithm}"]))
    assert recipe.algorithm["_target_"] == "rlvr.objective.Objective"
    recipe.algorithm = ours.algorithm
    assert recipe == ours
    assert objective.needs_reference == (algorithm in {"grpo", "reinforce_pp", "deepseek_v32"})


def test_the_algorithms_differ_in_their_slots():
    slots = {}
    for algorithm in ALGORITHMS:
        _, objective = typed(compose_recipe("quickstart", [f"algorithm={algorithm}", "rollout.max_tokens=77"]))
        slots[algorithm] = (objective.advantage.func.__name__, objective.weighting.func.__name__, objective.no_signal)
        if algorithm == "dr_grpo":
            assert objective.weighting.keywords == {"max_tokens": 77}  # it follows the recipe's other values
    assert slots["grpo"] == ("standardize", "sequence_mean", "drop")
    assert slots["dr_grpo"] == ("center", "constant", "drop")
    assert slots["dapo"] == ("standardize", "token_mean", "refill")


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_every_cluster_is_one_word_away(cluster):
    chosen = typed(compose_recipe("quickstart", [f"cluster={cluster}"]))[0].cluster
    assert (chosen.kind, chosen.placement) == KINDS[cluster]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["cluster=inline", "rollout.max_staleness=1"], "take turns with cluster=inline"),
        (["cluster=one_gpu", "rollout.max_staleness=1"], "take turns with cluster=colocated"),
        (["cluster=one_gpu", "rollout.workers=2"], "workers=2 of rollout.tensor_parallel=1 and trainer.ranks=1"),
        (["rollout.tensor_parallel=2", "rollout.engine=transformers"], "=2 is for rollout.engine=vllm"),
        (["rollout.tensor_parallel=2", "cluster.gpus_per_engine=1"], "gpus_per_engine=1: one for each of rollout"),
        (["cluster=inline", "rollout.workers=2"], "cluster=inline is one process"),
    ],
)
def test_placements_that_cannot_work_are_refused(overrides, said):
    with pytest.raises(config.RecipeError, match=said):
        config.check(typed(compose_recipe("quickstart", overrides))[0])


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["reward.parts.math.timeout_s=-1"], r"reward\.parts\.math\.timeout_s=-1\.0: seconds, above 0 and finite"),
        (["reward.parts.math.timeout_s=0"], r"timeout_s=0\.0"),
        (["reward.parts.math.timeout_s=nan"], r"timeout_s=nan"),
        (["reward.parts.math.timeout_s=inf"], r"timeout_s=inf"),
        (["reward.parts.math.weight=nan"], r"reward\.parts\.math\.weight=nan: a finite number"),
        (["reward.parts.math.weight=-1e7"], r"weight=-10000000\.0: a finite number, at most 1e\+06 in magnitude"),
        (["verify.mask_stop=nan"], r"verify\.mask_stop=nan: a share, from 0 to 1"),
        (["verify.mask_stop=20"], r"verify\.mask_stop=20"),
        (["verify.mask_warn=-3"], r"verify\.mask_warn=-3"),
    ],
)
def test_rewards_that_cannot_work_are_refused(overrides, said):
    with pytest.raises(config.RecipeError, match=said):
        config.check(typed(compose_recipe("quickstart", overrides))[0])


def test_a_reward_is_checked_in_all_its_parts():
    recipe = typed(compose_recipe("quickstart", []))[0]
    part = recipe.reward.parts["math"]
    for name, wrong, said in (
        ("audit", AuditConfig("math", share=1.5), r"reward\.parts\.math\.audit\.share=1\.5: a share, from 0 to 1"),
        ("audit", AuditConfig("math", timeout_s=-1.0), r"reward\.parts\.math\.audit\.timeout_s=-1\.0"),
        ("first_decided", [VerifierChoice("math", timeout_s=0.0)], r"math\.first_decided\.0\.timeout_s=0\.0"),
        ("requires", {"format": math.nan}, r"reward\.parts\.math\.requires\.format=nan: a finite number"),
        ("requires", {"nobody": 1.0}, r"reward\.parts\.math\.requires: no other part 'nobody'"),
    ):
        recipe.reward.parts["math"] = replace(part, **{name: wrong})
        with pytest.raises(config.RecipeError, match=said):
            config.check(recipe)


@pytest.mark.parametrize(
    ("name", "combine", "said"),
    [
        ("mean", "sum", r"reward\.parts\.mean: reward/mean is a metric of the whole reward: choose another name"),
        ("std", "min", r"reward\.parts\.std: reward/std is a metric"),
        ("combined", "product", r"reward\.parts\.combined: with reward\.combine=product `combined` is what"),
        ("combined", "min", r"reward\.parts\.combined: with reward\.combine=min"),
        ("audit:math", "sum", r"reward\.parts\.audit:math: `audit:` is what the audit of a part begins with"),
        ("math/ok", "sum", r"reward\.parts\.math/ok: / divides the names of metrics"),
    ],
)
def test_a_part_cannot_be_called_what_something_else_is_called(name, combine, said):
    recipe = typed(compose_recipe("quickstart", []))[0]
    recipe.reward = RewardConfig({"math": recipe.reward.parts["math"], name: PartConfig("format")}, combine)
    with pytest.raises(config.RecipeError, match=said):
        config.check(recipe)


@pytest.mark.parametrize("combine", ["product", "min"])
def test_a_product_or_a_minimum_takes_no_fault(combine):
    recipe = typed(compose_recipe("quickstart", []))[0]
    recipe.reward = RewardConfig({"math": PartConfig("math"), "bad": PartConfig("regex", weight=-0.5)}, combine)
    said = rf"reward\.parts\.bad\.weight=-0\.5: reward\.combine={combine} knows no"
    with pytest.raises(config.RecipeError, match=said):
        config.check(recipe)
    recipe.reward.combine = "sum"
    config.check(recipe)


def test_a_part_of_a_sum_may_be_called_combined():
    recipe = typed(compose_recipe("quickstart", []))[0]
    recipe.reward.parts["combined"] = PartConfig("format")
    config.check(recipe)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_an_algorithm_file_is_complete_and_inherits_from_none(algorithm):
    text = (RECIPES / "algorithm" / f"{algorithm}.yaml").read_text()
    assert "defaults:" not in text
    for slot in ("advantage:", "ratio:", "surrogate:", "weighting:", "no_signal:"):
        assert slot in text


def test_the_quickstart_finds_its_files_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe, _ = typed(compose_recipe("quickstart", []))
    assert recipe.model.path == str(RECIPES / "tiny")
    assert recipe.data.train == str(RECIPES / "tiny" / "train.jsonl")
