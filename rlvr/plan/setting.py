"""What is planned: a recipe on so many devices, and what a recipe cannot say: how long prompts and answers will be."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp
from statistics import NormalDist, mean

from rlvr.config import Recipe
from rlvr.plan.devices import Device
from rlvr.plan.model import Architecture

BYTES = {"float32": 4, "bfloat16": 2}
SPREAD = 0.7  # of the logarithm of completion lengths: the longest of a hundred are five times the median
QUANTILES = 64


@dataclass(frozen=True)
class Setting:
    cfg: Recipe
    device: Device
    model: Architecture
    count: int
    prompt_tokens: float
    mean_tokens: float
    """That the policy writes in a completion, those that are cut at rollout.max_tokens included."""
    sampled: float = 1.0
    """Groups sampled for each of rollout.groups_per_step: above 1 where groups without signal are replaced."""
    trained: float = 1.0
    """Groups trained on for each of rollout.groups_per_step: below 1 where groups without signal are dropped."""
    verify_s: float = 0.01
    """Of one completion, in a verifier process."""
    calls: float = 0.0
    """Answers of a tool that a completion reads."""
    answer_tokens: float = 0.0
    """Of one answer."""
    tool_s: float = 0.0
    """Of one call, in a process beside the engine."""

    @property
    def mean_length(self) -> float:
        """Tokens of a completion, what a tool answered included: of its cache, and of its part of a trainer's row."""
        return self.mean_tokens + self.calls * self.answer_tokens

    @property
    def train_bytes(self) -> int:
        return BYTES.get(self.cfg.model.dtype, self.device.dtype_bytes)

    @property
    def engine_bytes(self) -> int:
        dtype = self.cfg.rollout.dtype
        return self.train_bytes if dtype == "auto" else BYTES[dtype]

    @property
    def zero_stage(self) -> int:
        """What the trainer makes of it: bfloat16 weights need sharded float32 copies."""
        return max(self.cfg.trainer.zero_stage, 1) if self.train_bytes == 2 else self.cfg.trainer.zero_stage

    @property
    def trainable(self) -> int:
        rank = self.cfg.trainer.lora.rank
        return self.model.adapter_parameters(rank) if rank else self.model.parameters

    @property
    def kl(self) -> bool:
        """Whether a KL term asks for a reference's logprobs: not with a coefficient of 0."""
        of = (self.cfg.algorithm.get("kl") or {}).get("coefficient")
        return any(of.values()) if isinstance(of, Mapping) else bool(of)

    @property
    def kl_in_reward(self) -> bool:
        """Whether that term is a penalty in the reward, which is made of the old logprobs."""
        return self.kl and self.cfg.algorithm["kl"].get("place") == "reward"

    @property
    def reference(self) -> bool:
        """Whether a KL term keeps a second model, taken to be as large as the first; with LoRA the policy without its
        adapters is the reference, unless another is named."""
        return self.kl and (not self.cfg.trainer.lora.rank or self.cfg.algorithm["kl"].get("reference") is not None)

    @property
    def tensor_parallel(self) -> int:
        """A CPU is one device, whatever number of processes an engine has there."""
        return 1 if self.device.cpu else self.cfg.rollout.tensor_parallel

    @property
    def engine_devices(self) -> int:
        return self.cfg.rollout.workers * self.tensor_parallel

    @property
    def colocated(self) -> bool:
        """An engine and a rank share a device."""
        return self.cfg.cluster.kind == "inline" or self.cfg.cluster.placement == "colocated"

    @property
    def needed(self) -> int:
        """Devices that the recipe asks for."""
        ranks = self.cfg.trainer.ranks
        return max(self.engine_devices, ranks) if self.colocated else self.engine_devices + ranks

    @property
    def completions(self) -> float:
        """Sampled for a step."""
        return self.cfg.rollout.groups_per_step * self.cfg.rollout.group_size * self.sampled

    def lengths(self, count: int = QUANTILES) -> list[float]:
        """Completion lengths at even quantiles: log-normal, cut at max_tokens, with the mean that was asked for. What a
        tool answered is in them, with the same share in each."""
        limit = self.cfg.rollout.max_tokens
        normal = NormalDist(0, SPREAD)
        shape = [exp(normal.inv_cdf((n + 0.5) / count)) for n in range(count)]
        low, high = 1e-6, float(limit) * 100
        for _ in range(60):
            scale = (low + high) / 2
            made = mean(min(limit, scale * one) for one in shape)
            low, high = (scale, high) if made < min(self.mean_length, limit * 0.999) else (low, scale)
        return [min(float(limit), scale * one) for one in shape]
