"""The engine that a recipe names. The engines themselves are imported only when chosen: vLLM takes its time."""

from collections.abc import Callable
from typing import Any

from rlvr.config import Recipe, RecipeError
from rlvr.rollout.engine import Engine


def build_engine(cfg: Recipe, on_death: Callable[[], None] | None = None) -> Engine:
    """`on_death`: see `VllmEngine`. With a tool it samples whole episodes."""
    engine = plain_engine(cfg, on_death)
    if cfg.rollout.tool.name is None:
        return engine
    from rlvr.rollout.episodes import Episodes, Tool, Words

    tool = cfg.rollout.tool
    return Episodes(engine, Tool(tool), Words(engine.tokenizer, tool), tool.max_calls)


def plain_engine(cfg: Recipe, on_death: Callable[[], None] | None) -> Any:
    if cfg.rollout.engine == "vllm":
        from rlvr.rollout.vllm import VllmEngine

        return VllmEngine(
            cfg.model.path,
            dtype=cfg.engine_dtype,
            max_model_len=cfg.model.max_context,
            max_num_seqs=cfg.rollout.max_sequences,
            kv_cache_gib=cfg.rollout.memory_gib,
            gpu_memory_utilization=cfg.rollout.gpu_memory_utilization,
            tensor_parallel=cfg.rollout.tensor_parallel,
            threads=cfg.rollout.threads,
            seed=cfg.seed,
            max_top_k=cfg.rollout.top_k,
            sleeps=cfg.cluster.placement == "colocated",
            share_prompts=cfg.rollout.share_prompts,
            on_death=on_death,
        )
    if cfg.rollout.engine == "transformers":
        from rlvr.rollout.transformers import TransformersEngine

        return TransformersEngine(
            cfg.model.path,
            dtype=cfg.engine_dtype,
            max_model_len=cfg.model.max_context,
            max_num_seqs=cfg.rollout.max_sequences,
            threads=cfg.rollout.threads,
            compiled=cfg.rollout.compile,
        )
    raise RecipeError(f"rollout.engine={cfg.rollout.engine}: vllm or transformers")
