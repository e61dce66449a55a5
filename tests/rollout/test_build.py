"""What a recipe says of its engine reaches the engine."""

import pytest

from rlvr.config import ClusterConfig, ModelConfig, Recipe, RecipeError, RolloutConfig
from rlvr.reward_config import PartConfig, RewardConfig
from rlvr.rollout import transformers, vllm
from rlvr.rollout.build import build_engine


class Noted:
    def __init__(self, path, **settings):
        self.settings = {"path": path, **settings}


def recipe(engine: str, placement: str = "separate", **rollout) -> Recipe:
    return Recipe(
        name="x", steps=1, seed=17, reward=RewardConfig({"math": PartConfig("math")}),
        model=ModelConfig("/a/model", dtype="float32", max_context=300),
        rollout=RolloutConfig(engine, max_sequences=9, threads=3, compile=True, **rollout),
        cluster=ClusterConfig(placement=placement),
    )  # fmt: skip


def built(monkeypatch, cfg: Recipe) -> dict:
    monkeypatch.setattr(vllm, "VllmEngine", Noted)
    monkeypatch.setattr(transformers, "TransformersEngine", Noted)
    return build_engine(cfg).settings


OURS = {"path": "/a/model", "dtype": "float32", "max_model_len": 300, "max_num_seqs": 9, "threads": 3}


def test_vllm_is_started_as_the_recipe_says(monkeypatch):
    asked = {"gpu_memory_utilization": 0.5, "tensor_parallel": 2, "share_prompts": False}
    told = built(monkeypatch, recipe("vllm", memory_gib=5.0, top_k=11, **asked))
    expected = {**OURS, **asked, "kv_cache_gib": 5.0, "max_top_k": 11, "seed": 17, "sleeps": False}
    assert {name: told[name] for name in expected} == expected


def test_the_engine_may_compute_in_another_type_than_the_trainer(monkeypatch):
    for engine in ("vllm", "transformers"):
        assert built(monkeypatch, recipe(engine, dtype="bfloat16"))["dtype"] == "bfloat16"


def test_only_what_shares_its_gpu_sleeps(monkeypatch):
    assert built(monkeypatch, recipe("vllm", "colocated"))["sleeps"] is True


def test_so_is_the_reference_engine(monkeypatch):
    assert built(monkeypatch, recipe("transformers")) == {**OURS, "compiled": True}


def test_any_other_engine_is_refused():
    with pytest.raises(RecipeError, match=r"rollout\.engine=sglang: vllm or transformers"):
        build_engine(recipe("sglang"))
