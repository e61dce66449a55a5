"""Engine and verifiers in this process: `cluster=inline`, where a debugger works. No Ray."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch

from rlvr.rollout.engine import Engine, generate
from rlvr.types import Group, Prompt, Sampling
from rlvr.verify import Judge
from rlvr.weights import Destination, Loaded


class InlinePipeline:
    """Verifier processes work on a completion while the engine decodes the others."""

    def __init__(self, engine: Engine, judge: Judge):
        self.engine, self.judge = engine, judge
        self.bring: Callable[[Destination], Any] | None = None
        self.tell: Callable[[str], None] = lambda text: None

    def groups(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[Group]:
        return self.judge.verify(prompts, sampling.completions, generate(self.engine, prompts, sampling))

    def load_weights(
        self, buckets: Iterable[Mapping[str, torch.Tensor]], policy_version: int, probe: list[int]
    ) -> Loaded:
        size = 0

        def counted() -> Iterator[Mapping[str, torch.Tensor]]:
            nonlocal size
            for bucket in buckets:
                size += sum(tensor.nbytes for tensor in bucket.values())
                yield bucket

        self.engine.wake()
        self.engine.load_weights(counted(), policy_version)
        return Loaded(size, lambda: {"engine 0": self.engine.score(probe)})

    @property
    def verifying_s(self) -> float:
        return self.judge.verifying_s

    def flush(self) -> None:
        """Nothing is sampled before it is read."""

    def rest(self) -> None:
        self.engine.sleep()

    def newest_version(self) -> int:
        return self.engine.policy_version

    def verify(self, groups: Sequence[Group]) -> list[Group]:
        return self.judge.verify_groups(groups)

    def close(self) -> None:
        try:
            self.judge.close()
        finally:
            self.engine.close()
