"""What the loop takes its groups from: prompts in stream order, sampled, verified, filtered.

    PromptStream --> Pipeline (engines, then verifiers, as each completion ends) --> Ahead --> filter --> Taken
                        ^ transfer(trainer)                                            | no signal: drop, refill, keep

Knows the objective's filter and the recipe; not where the engines run. With `rollout.max_staleness` 0 every group of a
step is sampled with the weights published just before; above, those of the next steps are begun at every publication.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from time import perf_counter
from typing import Any, Protocol

from rlvr.collate import rewards_of
from rlvr.config import Recipe
from rlvr.data.prompts import PromptStream
from rlvr.evaluate import accuracy
from rlvr.lineage import Lineage
from rlvr.objective import Objective
from rlvr.rollout.ahead import Ahead
from rlvr.rollout.evaluation import Evaluation
from rlvr.state import Evaluated, State, Taken
from rlvr.types import Group, Prompt, Sampling
from rlvr.verify.health import Health
from rlvr.weights import Destination, Source, transfer

MOST_FAILURES = 20  # kinds of aborted completions that are told of


class Pipeline(Destination, Protocol):
    """Engines and verifiers, wherever they run."""

    bring: Callable[[Destination], Any] | None
    """Brings what was published last to an engine that comes in place of a dead one; the trainer must be idle."""
    tell: Callable[[str], None]
    """Of what happened to engines and verifiers."""

    @property
    def verifying_s(self) -> float:
        """Seconds so far that someone waited for verdicts when all completions had ended."""
        ...

    def groups(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[Group]:
        """Verified groups, each as soon as it is done, in any order."""
        ...

    def flush(self) -> None:
        """Forget all groups that were asked for and have not come."""
        ...

    def rest(self) -> None:
        """Nothing is to be sampled until weights are loaded again."""
        ...

    def newest_version(self) -> int:
        """The highest policy version that any engine holds."""
        ...

    def verify(self, groups: Sequence[Group]) -> list[Group]:
        """The same completions, judged again."""
        ...


class SampledRollouts:
    def __init__(
        self,
        cfg: Recipe,
        objective: Objective,
        pipeline: Pipeline,
        stream: PromptStream,
        heldout: Sequence[Prompt],
        probe: tuple[list[int], float],
        warn: Callable[[str], None],
    ):
        """`probe`: the token ids that prove a transfer, and the tolerance on their logprobs."""
        self.cfg, self.objective, self.pipeline, self.stream = cfg, objective, pipeline, stream
        self.probe, self.warn = probe, warn
        self.weights = cfg.reward.weights()
        self.main_part = next(iter(cfg.reward.parts))
        self.health = Health(cfg, warn, pipeline.verify)
        self.ahead = Ahead(self._begin, (cfg.rollout.max_staleness + 1) * cfg.rollout.groups_per_step)
        self.told: set[str] = set()
        pipeline.tell = warn
        self.evaluation = Evaluation(cfg, pipeline, heldout, warn)

    def publish(self, trainer: Source, lineage: Lineage) -> dict[str, float]:
        """To every engine. On a new branch nothing that the abandoned policy began is of use."""
        new_branch = lineage.version == lineage.floor
        if new_branch:
            self.pipeline.flush()
            self.ahead.forget(self.ahead.cursor)
        probe, tolerance = self.probe
        self.pipeline.bring = partial(transfer, trainer, version=lineage.version, probe=probe, tolerance=tolerance)
        metrics = self.pipeline.bring(self.pipeline)
        if self.cfg.rollout.max_staleness and not new_branch:  # where a new branch goes on, `take` is told
            self.ahead.fill()
        return metrics

    def newest_version(self) -> int:
        return self.pipeline.newest_version()

    def memory(self) -> dict[str, Any]:
        """What a checkpoint must keep: what the verifiers' health has seen. No groups: those that are begun ahead can
        be sampled again, as the stream goes on at the cursor."""
        return {"health": self.health.to_json()}

    def remember(self, memory: Mapping[str, Any]) -> None:
        """What `memory` said when the checkpoint was written; nothing at the start of a run."""
        self.health.from_json(memory.get("health", {}))

    def take(self, state: State) -> Taken:
        """`groups_per_step` groups from `state.cursor` on; fewer where the filter drops some and nothing refills."""
        started, verifying = perf_counter(), self.pipeline.verifying_s
        if self.ahead.cursor != state.cursor:  # a start, a resume, a rollback
            self.ahead.forget(state.cursor)
        if self.cfg.rollout.max_staleness:
            self.ahead.fill()
        sampled: list[Group] = []
        kept: list[Group] = []
        rounds = 1 + (self.cfg.rollout.refill_rounds if self.objective.no_signal == "refill" else 0)
        for done in range(rounds):
            missing = self.cfg.rollout.groups_per_step - len(kept)
            if not missing:
                break
            fresh = self.ahead.take(missing)
            sampled += fresh
            kept += self._teaching(fresh)
            refills = done
        self._tell_of_failures(sampled)
        metrics = self.health.step(sampled) | self._metrics(sampled, len(kept))
        if not self.cfg.rollout.max_staleness:
            self.pipeline.rest()
        metrics |= {"time/rollout": perf_counter() - started, "groups/refill_rounds": refills}
        metrics |= {"time/verify": self.pipeline.verifying_s - verifying}
        metrics |= {
            "staleness/max": state.lineage.version - min(g.policy_version for g in sampled),
            "staleness/updated": sum(bool(c.updates) for g in sampled for c in g.completions)
            / sum(len(g.completions) for g in sampled),
        }
        return Taken(tuple(kept), self.ahead.cursor, metrics, tuple(sampled))

    def _tell_of_failures(self, sampled: Sequence[Group]) -> None:
        """Once of each kind: these completions are masked, and nothing else says why."""
        for why in dict.fromkeys(c.failure for g in sampled for c in g.completions if c.failure):
            if why not in self.told and len(self.told) < MOST_FAILURES:
                self.told.add(why)
                self.warn(f"a completion ended without the policy's doing, and is masked: {why}")

    def _begin(self, position: int, count: int) -> Iterator[Group]:
        rollout = self.cfg.rollout
        sampling = Sampling(
            rollout.group_size, rollout.temperature, rollout.max_tokens, tuple(rollout.stop), self.cfg.seed,
            rollout.top_p, rollout.top_k,
        )  # fmt: skip
        return self.pipeline.groups(self.stream.take(position, count), sampling)

    def _teaching(self, groups: list[Group]) -> list[Group]:
        """The groups that are trained on. One with fewer than two rewards has no baseline, whatever the filter."""
        if not groups:
            return []
        rewards = rewards_of(groups, self.weights)
        wanted = rewards.valid_NG.any(1) if self.objective.no_signal == "keep" else self.objective.signal(rewards)
        return [group for group, teaches in zip(groups, wanted.tolist(), strict=True) if teaches]

    def _metrics(self, sampled: list[Group], teaching: int) -> dict[str, float]:
        """Of all that was sampled, the dropped groups included: filtered averages would flatter or hide."""
        completions = [c for group in sampled for c in group.completions]
        verdicts = [v for group in sampled for v in group.verdicts]
        rewarded = [v for v in verdicts if v.trainable]
        lengths = [c.length for c in completions]
        rewards = [float(v.reward) for v in rewarded if v.reward is not None]
        mean = sum(rewards) / max(len(rewards), 1)
        metrics = {
            "reward/mean": mean,
            "reward/std": (sum((r - mean) ** 2 for r in rewards) / max(len(rewards), 1)) ** 0.5,
            "accuracy": accuracy(verdicts, self.main_part),
            "accuracy_rewarded": sum(v.parts.get(self.main_part, 0.0) >= 1.0 for v in rewarded) / max(len(rewarded), 1),
            "tokens/sampled": sum(lengths),
            "groups/sampled": len(sampled),
            "groups/no_signal": 1 - teaching / len(sampled),
            "completions/length_mean": sum(lengths) / len(lengths),
            "completions/length_max": max(lengths),
            "completions/truncated": sum(c.stop_reason == "length" for c in completions) / len(completions),
            "completions/masked": 1 - len(rewarded) / len(verdicts),
        }
        if self.cfg.rollout.tool.name is not None:
            metrics |= {
                "tools/calls": sum(len(c.observed) for c in completions) / len(completions),
                "tools/failed": sum(c.stop_reason == "abort" for c in completions) / len(completions),
            }
        for name in self.cfg.reward.parts:
            if said := [v.parts[name] for v in rewarded if name in v.parts]:  # a part without weight may abstain
                metrics[f"reward/{name}"] = sum(said) / len(said)
        return metrics

    def evaluate(self) -> Evaluated:
        """On the held-out problems, with the weights that were published last; nothing without problems."""
        return self.evaluation.run() if self.evaluation.problems else Evaluated()
