"""Trainer -> engines, and the proof that it worked. Knows neither DeepSpeed nor vLLM nor how a bucket travels.

    trainer.weights() --buckets--> pipeline.load_weights --> engines
    trainer.score(probe)  must equal  every engine's, which score it at the same time

A weight update that goes wrong raises nothing by itself: the engine samples on, from another policy. Hence the probe,
after every transfer. Weights that the trainer itself can no longer score were not transferred wrongly, they are broken:
that is for the sentinel to say, and `transfer/probe_rms` is then no number.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from time import perf_counter
from typing import Any, NamedTuple, Protocol, TypeVar

import torch

from rlvr.config import PROBE_TOKENS, RunError
from rlvr.probe import apart

T = TypeVar("T")


class Source(Protocol):
    def weights(self) -> Any: ...  # in buckets
    def score(self, token_ids: list[int]) -> list[float]: ...


class Destination(Protocol):
    def load_weights(self, buckets: Any, policy_version: int, probe: list[int]) -> "Loaded": ...


class Loaded(NamedTuple):
    """What every engine has loaded. Engines in other processes score the probe while the trainer does; none decodes
    further until it has answered, but for the one token that scoring adds."""

    nbytes: int
    scores: Callable[[], dict[str, list[float]]]  # of the probe, by the engine's name


class TransferMismatch(RunError):
    """Engine and trainer do not hold the same weights."""


def transfer(source: Source, destination: Destination, version: int, probe: list[int], tolerance: float) -> dict:
    """Publish the trainer's weights as `version` in every engine; metrics of the transfer."""
    started = perf_counter()
    size, scores = destination.load_weights(source.weights(), version, probe)
    seconds = perf_counter() - started
    expected = source.score(probe)
    broken = not all(map(math.isfinite, expected))
    worst = math.nan if broken else 0.0
    for engine, scored in scores().items():
        off = apart(expected, scored)
        if off > tolerance and not broken:
            raise TransferMismatch(
                f"{engine} and trainer disagree about the probe by {off:.3g} > {tolerance:g} "
                f"(trainer.probe_tolerance) after policy version {version} was transferred: the engine would sample "
                "from another policy than the one that is trained"
            )
        worst = max(worst, off)  # nan stays nan
    return {
        "transfer/seconds": seconds,
        "transfer/bytes_per_s": size / max(seconds, 1e-9),
        "transfer/probe_rms": worst,
        "time/publish": perf_counter() - started,
        "policy_version": version,
    }


def cut(named: Iterable[tuple[str, T]], limit: int, size_of: Callable[[T], int]) -> Iterator[list[tuple[str, T]]]:
    """Buckets of at most `limit` bytes, in order; what alone is larger has one of its own."""
    bucket: list[tuple[str, T]] = []
    size = 0
    for name, one in named:
        if bucket and size + size_of(one) > limit:
            yield bucket
            bucket, size = [], 0
        bucket.append((name, one))
        size += size_of(one)
    if bucket:
        yield bucket


def probe_tokens(vocabulary: int, length: int = PROBE_TOKENS) -> list[int]:
    """Token ids spread over the vocabulary: a wrong row of the embedding or the head shows."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(vocabulary, (length,), generator=generator).tolist()
