"""What a recipe may say about sampling, and about the tool that completions may call. A part of rlvr.config."""

import math
from dataclasses import dataclass, field
from typing import Any


@dataclass
class ToolConfig:
    name: str | None = None
    """A function of a sample: `file.py:function` or `package.module:function`. It is asked when a turn ends by itself;
    its answer is read, and the completion goes on. Null: no tool, and one turn."""
    params: dict[str, Any] = field(default_factory=dict)
    """Its options."""
    timeout_s: float | None = None
    """CPU seconds until a call is killed; null: the tool's own limit."""
    processes: int = 2
    """Killable processes beside each engine."""
    max_calls: int = 4
    """Answers in one completion; behind the last one the policy has one more turn."""
    max_characters: int = 2000
    """Of one answer; what is longer loses its middle."""
    before: str = "\n"
    """Put before an answer. Here, and in `after`, special tokens are read as such: the marks of a chat template."""
    after: str = "\n"


@dataclass
class RolloutConfig:
    engine: str = "vllm"
    """`vllm`, or `transformers`: the slow reference that is always there."""
    workers: int = 1
    """Engines. On CPU one per core that is free; on GPU one per tensor-parallel group."""
    groups_per_step: int = 16
    """Prompts in a step."""
    group_size: int = 8
    """Completions of a prompt (G). The baseline is their mean: below 4 it is mostly noise."""
    temperature: float = 1.0
    """Of the sampling, and of the logprobs trained on. At least 0.01; with vLLM at most 2."""
    top_p: float = 1.0
    """Sample from the likeliest tokens that together reach this probability. Below 1 needs `top_k`, and an algorithm
    with `keep_sampling_mask`: the policy that is trained must be the one that sampled."""
    top_k: int = 0
    """Sample from this many of the likeliest tokens; 0: from all. Needs `keep_sampling_mask` too, and float32 where
    vLLM samples on a CPU."""
    max_tokens: int = 1024
    """Of one completion. What runs into it is `truncated`."""
    stop: list[str] = field(default_factory=list)
    """Strings that end a completion, besides the end token. A special token may be one, but no part of one."""
    max_staleness: int = 0
    """How many weight updates a completion may be behind when trained on. 0 is synchronous. Above, engines sample the
    groups of the next steps while the trainer trains, at most this many steps ahead; it wants a correction."""
    update_in_flight: bool = True
    """With `max_staleness` above 0: new weights reach completions in the middle of their decoding, which go on with
    them. False: those are decoded to their end first, and the trainer waits."""
    refill_rounds: int = 4
    """With an algorithm that refills: how often to sample more prompts for groups without signal, per step."""
    dtype: str = "auto"
    """What the engine computes in; `auto` follows model.dtype."""
    threads: int = 1
    """CPU threads of one engine."""
    memory_gib: float = 1.0
    """KV cache of one engine on CPU, whole GiB."""
    gpu_memory_utilization: float = 0.85
    """Share of a GPU that one engine may fill."""
    max_sequences: int = 256
    """Completions that one engine decodes at a time."""
    tensor_parallel: int = 1
    """GPUs of one engine, all of one node; on a CPU processes, each with `threads` and `memory_gib` of its own."""
    compile: bool = False
    """Compile the decoding step of `transformers`: half a minute for a tiny model, later less from a cache, and
    then quicker steps. vLLM sees to itself."""
    share_prompts: bool | None = None
    """vLLM reads a prompt once for all its completions. Null: on a GPU. On a CPU completions would no longer be the
    same to the last bit whatever else is being decoded."""
    tool: ToolConfig = field(default_factory=ToolConfig)


def unsampled(cfg: RolloutConfig) -> str | None:
    """Which value cannot work, with its limit; without the `rollout.` in front."""
    at_least = {
        "group_size": 2,  # the baseline is the mean of the group's others
        "groups_per_step": 1, "max_tokens": 1, "workers": 1, "max_sequences": 1, "threads": 1, "tensor_parallel": 1,
        "refill_rounds": 0, "top_k": 0, "max_staleness": 0,
    }  # fmt: skip
    if wrong := too_small(cfg, at_least):
        return wrong
    for name, allowed in {"engine": ("vllm", "transformers"), "dtype": ("auto", "float32", "bfloat16")}.items():
        if getattr(cfg, name) not in allowed:
            return f"{name}={getattr(cfg, name)}: one of {', '.join(allowed)}"
    if not 0 < cfg.gpu_memory_utilization <= 1:
        return f"gpu_memory_utilization={cfg.gpu_memory_utilization}: above 0, at most 1"
    if cfg.engine == "vllm" and not (cfg.memory_gib >= 1 and cfg.memory_gib % 1 == 0):
        return f"memory_gib={cfg.memory_gib}: vllm takes whole GiB, at least 1"
    if "" in cfg.stop:
        return f"stop={cfg.stop}: an empty string is in every text"
    if cfg.engine == "vllm" and not 0.01 <= cfg.temperature <= 2:
        return (
            f"temperature={cfg.temperature}: with rollout.engine=vllm from 0.01 to 2; less it takes for 0.01 without "
            "an error, and the trainer would train on another distribution; more it refuses"
        )
    if not 0.01 <= cfg.temperature < math.inf:
        return f"temperature={cfg.temperature}: at least 0.01, and finite"
    if not 0 < cfg.top_p <= 1:
        return f"top_p={cfg.top_p}: above 0, at most 1"
    if cfg.top_p < 1 and not cfg.top_k:
        return (
            f"top_p={cfg.top_p} needs rollout.top_k: what was left to sample from travels to the trainer, and top_p "
            "alone may leave the whole vocabulary"
        )
    if cfg.compile and cfg.engine != "transformers":
        return "compile=true is for rollout.engine=transformers: vllm sees to itself"
    if cfg.tensor_parallel > 1 and cfg.engine != "vllm":
        return f"tensor_parallel={cfg.tensor_parallel} is for rollout.engine=vllm; {cfg.engine} takes 1"
    return f"tool.{wrong}" if (wrong := _unasked(cfg.tool)) else None


def _unasked(cfg: ToolConfig) -> str | None:
    if wrong := too_small(cfg, {"processes": 1, "max_calls": 1, "max_characters": 1}):
        return wrong
    if cfg.timeout_s is not None and not 0 < cfg.timeout_s < math.inf:
        return f"timeout_s={cfg.timeout_s}: seconds, above 0 and finite"
    return None


def too_small(cfg: RolloutConfig | ToolConfig, at_least: dict[str, int]) -> str | None:
    for name, limit in at_least.items():
        if not getattr(cfg, name) >= limit:  # nor is nan
            return f"{name}={getattr(cfg, name)}: at least {limit}"
    return None
