"""What a recipe says of those who do not come does not matter, and what it says of the others does."""

from dataclasses import replace

import pytest

from rlvr import config
from rlvr.config import ClusterConfig, Recipe
from rlvr.workers import without_engines, without_trainer
from tests import toy


def recipe(placement: str) -> Recipe:
    cfg = toy.recipe(3)
    gpus = ClusterConfig(placement=placement, gpus_per_engine=0.25, gpus_per_rank=0.75)
    return replace(
        cfg, cluster=gpus, rollout=replace(cfg.rollout, workers=4, tensor_parallel=2, max_staleness=2),
        trainer=replace(cfg.trainer, ranks=3), verify=replace(cfg.verify, workers=5),
    )  # fmt: skip


@pytest.mark.parametrize(("placement", "engine", "rank"), [("colocated", None, None), ("disaggregated", 0.25, 0.75)])
def test_who_shared_a_gpu_has_it_whole_and_others_keep_theirs(placement, engine, rank):
    evaluated, exported = without_trainer(recipe(placement)), without_engines(recipe(placement))
    assert evaluated.cluster == exported.cluster == ClusterConfig(gpus_per_engine=engine, gpus_per_rank=rank)
    assert (evaluated.rollout.workers, evaluated.rollout.tensor_parallel, evaluated.verify.workers) == (4, 2, 5)
    assert evaluated.rollout.max_staleness == exported.rollout.max_staleness == 0
    assert (exported.trainer.ranks, exported.rollout.workers, exported.verify.workers) == (3, 1, 1)


def test_what_is_left_can_be_had_where_the_whole_could_not():
    whole = replace(recipe("colocated"), cluster=ClusterConfig(placement="colocated"))
    with pytest.raises(config.RecipeError, match="max_staleness=2"):
        config.check(whole)
    config.check(without_trainer(whole))
    config.check(without_engines(whole))
