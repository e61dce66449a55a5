"""What a rollout engine is. Tokens in, tokens out; knows no data set, no reward and no trainer."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

import torch

from rlvr.types import Ended, Prompt, Sampling


class Engine(Protocol):
    """Samples completions with the weights last loaded. One process, one engine."""

    policy_version: int  # of the weights now loaded; -1 before the first load

    def generate(self, prompts: list[Prompt], sampling: Sampling) -> Iterator[list[Ended]]:
        """Yield completions as they end, those of one decoding step together, in any order.

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


def check_room(prompts: list[Prompt], sampling: Sampling, max_model_len: int) -> None:
    """Engines cut or refuse what does not fit, each in its own way; here it is refused, in words."""
    longest = max((len(prompt.token_ids) for prompt in prompts), default=0)
    if longest + sampling.max_tokens > max_model_len:
        raise ValueError(
            f"a prompt of {longest} tokens and rollout.max_tokens={sampling.max_tokens} do not fit into "
            f"model.max_context={max_model_len}"
        )
