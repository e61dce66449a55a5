"""What a rollout engine is. Tokens in, tokens out; knows no data set, no reward and no trainer."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

import torch

from rlvr.types import Group, Prompt, Sampling


class Engine(Protocol):
    """Samples completions with the weights last loaded. One process, one engine."""

    policy_version: int  # of the weights now loaded; -1 before the first load

    def generate(self, prompts: list[Prompt], sampling: Sampling) -> Iterator[Group]:
        """Yield each prompt's group as soon as its last completion ends, in any order.

        Completion i of a prompt is a function of the weights, the prompt and
        `sampling_seed(sampling.seed, prompt.position, i)` alone: not of what else is in the batch.
        """
        ...

    def load_weights(self, weights: Iterable[Mapping[str, torch.Tensor]], policy_version: int) -> None:
        """Load buckets of named tensors (Hugging Face names, trainer's shapes). Drops every cached prefix."""
        ...

    def score(self, token_ids: list[int]) -> list[float]:
        """log pi(token t | tokens < t) for t >= 1, temperature 1: T-1 numbers for T tokens. For the transfer probe."""
        ...
