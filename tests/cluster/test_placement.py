"""What does not fit is named, and not something else."""

from types import SimpleNamespace

import pytest

from rlvr.cluster import placement as places
from rlvr.cluster.placement import Asked, check_there_is_enough
from rlvr.config import RecipeError
from tests import toy


@pytest.mark.parametrize(
    ("placement", "engine", "rank", "gpus", "of_a_node", "said"),
    [
        ("disaggregated", 1, 2, 3, 1, r"a trainer rank of 2 GPUs \(cluster.gpus_per_rank\) fits on no node: .* has 1"),
        ("disaggregated", 2, 1, 3, 1, r"an engine of 2 GPUs .*tensor_parallel=1.* fits on no node: the largest has 1"),
        ("colocated", 1, 1, 2, 1, r"an engine of 1 GPUs .* beside a trainer rank of 1 GPUs .* the largest has 1"),
        ("colocated", 1, 1, 1, 1, r"2 GPUs asked for .* cluster.gpus_per_rank$"),
        ("disaggregated", 1, 1, 1, 1, r"2 GPUs asked for .* or set cluster.placement=colocated$"),
    ],
)
def test_what_does_not_fit_is_named(placement, engine, rank, gpus, of_a_node, said):
    cfg = toy.recipe(1)
    cfg.cluster.placement = placement
    with pytest.raises(RecipeError, match=said):
        check_there_is_enough(cfg, Asked(1, engine, 1, rank), gpus, of_a_node)


def test_what_just_fits_is_not_refused():
    cfg = toy.recipe(1)
    check_there_is_enough(cfg, Asked(1, 1, 1, 1), 2, 1)
    cfg.cluster.placement = "colocated"
    check_there_is_enough(cfg, Asked(1, 0.5, 1, 0.5), 1, 1)


def test_gpus_that_others_use_are_a_line_and_are_not_waited_for_any_longer(monkeypatch):
    removed = []
    group = SimpleNamespace(wait=lambda seconds: False)
    util = SimpleNamespace(placement_group=lambda bundles, strategy: group, remove_placement_group=removed.append)
    monkeypatch.setattr(places, "ray", SimpleNamespace(util=util, available_resources=lambda: {"GPU": 3.0}))
    with pytest.raises(places.WorkerLost, match="8 GPUs for 4 workers were not to be had within 60 s: 3 are free"):
        places.reserved([2.0] * 4, "PACK")
    assert removed == [group]


@pytest.fixture
def groups(monkeypatch):
    """Placement groups that are always there: (GPUs of each bundle, strategy)."""
    asked = []

    class Group:
        def wait(self, seconds):
            return True

    def placement_group(bundles, strategy):
        asked.append(([bundle.get("GPU", 0) for bundle in bundles], strategy))
        return Group()

    removed: list = []
    util = SimpleNamespace(placement_group=placement_group, remove_placement_group=removed.append)
    nodes = [{"Alive": True, "Resources": {"GPU": 4.0}}]
    fake = SimpleNamespace(util=util, cluster_resources=lambda: {"GPU": 4.0}, nodes=lambda: nodes)
    monkeypatch.setattr(places, "ray", fake)
    return SimpleNamespace(asked=asked, removed=removed)


@pytest.mark.parametrize(
    ("placement", "engines", "ranks", "asked"),
    [
        ("disaggregated", 2, 2, [([1, 1], "PACK"), ([1, 1], "SPREAD")]),
        ("disaggregated", 4, 0, [([1, 1, 1, 1], "SPREAD")]),  # more than there were room for beside a trainer
        ("disaggregated", 0, 4, [([1, 1, 1, 1], "PACK")]),
        ("colocated", 2, 2, [([1, 1], "PACK")]),
    ],
)
def test_who_does_not_come_gets_no_device(groups, placement, engines, ranks, asked):
    cfg = toy.recipe(1)
    cfg.cluster.placement = placement
    place = places.Placement(cfg, engines, ranks)
    assert groups.asked == asked
    place.remove()
    assert len(groups.removed) == len(asked)


def test_of_who_does_not_come_nothing_is_said(groups):
    with pytest.raises(RecipeError, match=r"^5 GPUs asked for \(rollout.workers=5 x 1\), the cluster has 4: [^=]*$"):
        places.Placement(toy.recipe(1), 5, 0)
