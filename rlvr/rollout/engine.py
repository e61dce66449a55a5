"""What a rollout engine is: it takes requests and decodes a step at a time. Tokens in, tokens out; knows no data set,
no reward and no trainer.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from rlvr.types import Completion, Ended, Prompt, Sampling

Key = Any  # hashable; whoever asks knows what it stands for
Done = tuple[Key, Completion]


@dataclass(frozen=True, slots=True)
class Request:
    """One completion to be sampled.

    Request(key=(0, 3), prompt=Prompt(...), index=3, sampling=Sampling(...))
    """

    key: Key
    prompt: Prompt
    index: int  # among the prompt's completions
    sampling: Sampling


class Engine(Protocol):
    """Samples completions with the weights last loaded. One process, one engine."""

    max_model_len: int  # tokens of prompt and completion together
    max_num_seqs: int  # completions that are decoded at a time

    @property
    def policy_version(self) -> int:
        """Of the weights now loaded; -1 before the first load."""
        ...

    def add(self, requests: Sequence[Request]) -> None:
        """To what is being decoded. A completion is a function of the weights, the prompt and
        `sampling_seed(sampling.seed, prompt.position, index)` alone: not of what else is in the batch."""
        ...

    @property
    def running(self) -> int:
        """Requests that have not ended."""
        ...

    def step(self) -> list[Done]:
        """One decoding step of all of them; those that ended with it."""
        ...

    def abort(self) -> None:
        """Forget every request."""
        ...

    def load_weights(self, weights: Iterable[Mapping[str, torch.Tensor]], policy_version: int) -> None:
        """Load buckets of named tensors (Hugging Face names, trainer's shapes). What is running goes on with them, and
        says from which token on. Drops every cached prefix."""
        ...

    def score(self, token_ids: list[int]) -> list[float]:
        """log pi(token t | tokens < t) for t >= 1, temperature 1: T-1 numbers for T tokens. For the transfer probe."""
        ...

    def sleep(self) -> None:
        """Give GPU memory back until `wake`: nothing is running, and other weights will be loaded before it does."""
        ...

    def wake(self) -> None: ...

    def close(self) -> None:
        """End what it has started beside itself."""
        ...


def generate(engine: Engine, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[list[Ended]]:
    """Completions as they end, those of one decoding step together, in any order. The engine is this caller's alone."""
    check_room(prompts, sampling, engine.max_model_len)
    engine.add(requests_of(prompts, sampling))
    try:
        while engine.running:
            if done := engine.step():
                yield [Ended(n, i, completion) for (n, i), completion in done]
    finally:
        engine.abort()  # whoever stops reading half-way must not find the rest in the next call's answers


def requests_of(prompts: Sequence[Prompt], sampling: Sampling) -> list[Request]:
    """Keys are (place of the prompt, index)."""
    return [Request((n, i), p, i, sampling) for n, p in enumerate(prompts) for i in range(sampling.completions)]


def check_room(prompts: Sequence[Prompt], sampling: Sampling, max_model_len: int) -> None:
    """Engines cut or refuse what does not fit, each in its own way; here it is refused, in words."""
    longest = max((len(prompt.token_ids) for prompt in prompts), default=0)
    if longest + sampling.max_tokens > max_model_len:
        raise ValueError(
            f"a prompt of {longest} tokens and rollout.max_tokens={sampling.max_tokens} do not fit into "
            f"model.max_context={max_model_len}"
        )
