"""Low-rank adapters (LoRA, arXiv:2106.09685) on a frozen model. The only file that imports peft; knows no DeepSpeed.

a linear layer becomes    x W^T + alpha/rank * x A^T B^T    with W frozen, B = 0 at the start
others see it as          W + alpha/rank * B A              merged
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rlvr.config import RecipeError
from rlvr.trainer_config import ALL_LINEAR, LoraConfig

ADAPTER = "default"  # peft's name for the only one


def add_adapters(lm: Any, cfg: LoraConfig) -> None:
    """In place; everything but the adapters is frozen. At the start they change nothing."""
    import peft

    settings = peft.LoraConfig(
        r=cfg.rank,
        lora_alpha=cfg.alpha,
        lora_dropout=cfg.dropout,
        target_modules=targets_in(lm, cfg),
        bias="none",
        task_type="CAUSAL_LM",
        base_model_name_or_path=lm.config.name_or_path,
    )
    lm.requires_grad_(False)
    with torch.random.fork_rng():
        torch.manual_seed(0)  # A is random, and the same on every rank
        peft.inject_adapter_in_model(settings, lm)
    lm.rlvr_lora = settings


def targets_in(lm: Any, cfg: LoraConfig) -> list[str]:
    """What peft is to look for: whole names of layers, or their ends. RecipeError names what is no linear layer of the
    decoder: the head is no nn.Linear any more, or shares the embedding."""
    layers = {f"model.{name}" for name, layer in lm.model.named_modules() if isinstance(layer, nn.Linear)}
    last = sorted({name.rpartition(".")[2] for name in layers})
    if cfg.targets == [ALL_LINEAR]:
        return last
    for target in cfg.targets:
        if not any(f".{name}".endswith(f".{target}") for name in layers):
            there = ", ".join(last)
            raise RecipeError(f"trainer.lora.targets={cfg.targets}: {target} is no linear layer; there are: {there}")
    return list(cfg.targets)


def adapted(lm: nn.Module) -> dict[str, Any]:
    """The layers with an adapter, by the name that they had before."""
    return {name: layer for name, layer in lm.named_modules() if hasattr(layer, "lora_A")}


@contextmanager
def without_adapters(lm: nn.Module) -> Iterator[None]:
    """The model as it was before training. The adapters are still computed, scaled by 0: the order in which layers run
    is what ZeRO-3 goes by."""
    layers = adapted(lm).values()
    scales = [layer.scaling[ADAPTER] for layer in layers]
    for layer in layers:
        layer.scaling[ADAPTER] = 0.0
    try:
        yield
    finally:
        for layer, scale in zip(layers, scales, strict=True):
            layer.scaling[ADAPTER] = scale


@dataclass(frozen=True)
class Weight:
    """One of the model's weights as others know it, and what it is made of."""

    parameter: nn.Parameter
    low_rank: tuple[nn.Parameter, nn.Parameter] | None = None  # A, B
    scale: float = 0.0

    @property
    def parameters(self) -> list[nn.Parameter]:
        return [self.parameter, *(self.low_rank or ())]

    def merged(self) -> Tensor:
        """Its own memory where there is nothing to merge. In float32 before it is rounded."""
        weight = self.parameter.detach()
        if self.low_rank is None:
            return weight
        A, B = (x.detach().float() for x in self.low_rank)
        return torch.addmm(weight.float(), B, A, alpha=self.scale).to(weight.dtype)


def merged_weights(lm: nn.Module) -> Iterator[tuple[str, Weight]]:
    """All weights by their Hugging Face names, as if there had never been adapters. Tied ones once."""
    layers = adapted(lm)
    for name, parameter in lm.named_parameters():
        if ".lora_A." in name or ".lora_B." in name:
            continue
        layer, base, last = name.rpartition(".base_layer.")
        if not base:
            yield name, Weight(parameter)
        elif last != "weight":
            yield f"{layer}.{last}", Weight(parameter)
        else:
            one = layers[layer]
            pair = one.lora_A[ADAPTER].weight, one.lora_B[ADAPTER].weight
            yield f"{layer}.weight", Weight(parameter, pair, one.scaling[ADAPTER])


def adapter_parameters(lm: nn.Module) -> dict[str, nn.Parameter]:
    """By the names that peft gives them in an adapter's file."""
    return {
        f"base_model.model.{name.replace(f'.{ADAPTER}.', '.')}": parameter
        for name, parameter in lm.named_parameters()
        if ".lora_A." in name or ".lora_B." in name
    }


def save_adapter(lm: Any, tensors: dict[str, Tensor], folder: Path) -> None:
    """As peft loads it on top of the model that training began with."""
    from safetensors.torch import save_file

    lm.rlvr_lora.save_pretrained(folder)
    save_file({name: x.contiguous() for name, x in tensors.items()}, folder / "adapter_model.safetensors")
