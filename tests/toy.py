"""A whole run without a model: the policy is one number, and everything is a function of the place in the data.

`python -m tests.toy FOLDER` trains until it is done or killed, from FOLDER's newest checkpoint; then writes final.json.
Every fake calls `hook(phase)` wherever a test may want to look, ask for an end, or pull the plug.
"""

import json
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch

from rlvr.checkpoint.disk import DiskCheckpoints
from rlvr.checkpoint.files import Fingerprint, fingerprint
from rlvr.config import CheckpointConfig, EvaluationConfig, PartConfig, Recipe, RewardConfig, SentinelConfig
from rlvr.lineage import Lineage
from rlvr.loop import train
from rlvr.measure import mark
from rlvr.objective import Batch, Objective, advantages, ratios, surrogates, weightings
from rlvr.parts import Parts
from rlvr.sentinel.watch import Watch
from rlvr.state import Evaluated, State, Taken
from rlvr.types import Completion, Group, sampling_seed
from tests.builders import group, prompt

GROUPS, SIZE, TOKENS, FIRST_PROMPT_TOKEN = 2, 4, 3, 10
GRPO = Objective(
    advantages.standardize, ratios.token, partial(surrogates.clip, low=0.2, high=0.2), weightings.sequence_mean
)
Hook = Callable[[str], None]


def nothing(phase: str) -> None:
    """The hook of a run that is left alone."""


class ToyTrainer:
    """P(token 1) = sigmoid(weight). Momentum, so that a resume must bring back more than the weight."""

    def __init__(self, poison: set[int], hook: Hook = nothing):
        """A batch with a prompt of `poison` turns the weights into nan."""
        self.weight, self.momentum = 0.0, 0.0
        self.poison, self.hook = poison, hook
        self.trained: list[list[int]] = []  # the prompts of each step

    def step(self, batch: Batch, objective: Objective, learning_rate: float) -> dict[str, float]:
        self.hook("step")
        positions = sorted({token - FIRST_PROMPT_TOKEN for token in batch.token_ids_BT[:, 0].tolist()})
        self.trained.append(positions)
        weight = torch.tensor(self.weight, dtype=torch.float64, requires_grad=True)
        if objective.kl is not None:
            reference, _ = json.loads(Path(objective.kl.reference, "weights.json").read_text())
            batch = replace(batch, ref_logprobs_BT=logprob(torch.tensor(reference), batch.token_ids_BT))
        loss, _ = objective.loss(logprob(weight, batch.token_ids_BT), batch)
        gradient = torch.autograd.grad(loss, weight)[0].item()
        value = loss.item()
        if self.poison & set(positions):
            gradient = value = float("nan")
        self.momentum = 0.5 * self.momentum + gradient
        self.weight -= learning_rate * self.momentum
        self.hook("stepped")
        return {"policy/loss": value, "policy/grad_norm": abs(gradient), "policy/lr": learning_rate}

    def save(self, folder: str) -> None:
        self.saving, self.asked = (folder, json.dumps([self.weight, self.momentum])), False

    def saved(self, wait: bool) -> dict[str, Fingerprint] | None:
        """As real trainers are, not done when it is first asked."""
        if not (wait or self.asked):
            self.asked = True
            return None
        self.hook("write")
        folder, content = self.saving
        path = Path(folder, "weights.json")
        path.write_text(content)
        self.hook("written")
        return {str(path): fingerprint(path)}

    def export(self, folder: str) -> None:
        self.hook("export")
        Path(folder).mkdir()
        Path(folder, "weights.json").write_text(json.dumps([self.weight, self.momentum]))

    def load(self, folder: str) -> None:
        self.hook("load")
        self.weight, self.momentum = json.loads(Path(folder, "weights.json").read_text())

    def score(self, token_ids: list[int]) -> list[float]:
        return logprob(torch.tensor(self.weight, dtype=torch.float64), torch.tensor(token_ids)).tolist()


def logprob(weight: torch.Tensor, token_ids: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.logsigmoid(torch.where(token_ids == 1, weight, -weight))


class ToyRollouts:
    """Samples with the weights that were published last; may outlive a trainer, as engines do."""

    def __init__(self, hook: Hook = nothing, nap: float = 0.0):
        self.hook, self.nap = hook, nap
        self.weight, self.versions = 0.0, [0]
        self.states: list[State] = []  # as `take` saw them
        self.taken = 0  # steps, those of a run's earlier starts and the undone ones included

    def publish(self, trainer: ToyTrainer, lineage: Lineage) -> dict[str, float]:
        self.hook("publish")
        self.versions.append(lineage.version)
        self.weight = trainer.weight
        self.hook("published")
        return {"policy_version": lineage.version}

    def newest_version(self) -> int:
        return max(self.versions)

    def memory(self) -> dict:
        return {"taken": self.taken}

    def remember(self, memory: dict) -> None:
        self.remembered, self.taken = memory, memory.get("taken", 0)

    def take(self, state: State) -> Taken:
        self.hook("take")
        self.states.append(state)
        self.taken += 1
        time.sleep(self.nap)
        positions = range(state.cursor, state.cursor + GROUPS)
        groups = tuple(map(self._group, positions))
        return Taken(groups, state.cursor + GROUPS, {"groups/sampled": GROUPS}, groups)

    def _group(self, position: int) -> Group:
        made = [self._completion(position, index) for index in range(SIZE)]
        rewards = [sum(completion.token_ids) / TOKENS for completion in made]
        return group(rewards, made, prompt(position, (FIRST_PROMPT_TOKEN + position,)))

    def _completion(self, position: int, index: int) -> Completion:
        rng = random.Random(sampling_seed(0, position, index))
        likely = torch.sigmoid(torch.tensor(self.weight, dtype=torch.float64)).item()
        token_ids = tuple(int(rng.random() < likely) for _ in range(TOKENS))
        logprobs = logprob(torch.tensor(self.weight, dtype=torch.float64), torch.tensor(token_ids)).tolist()
        return Completion(token_ids, (True,) * TOKENS, tuple(logprobs), self.versions[-1], "", "eos")

    def evaluate(self) -> Evaluated:
        self.hook("evaluate")
        return Evaluated({"eval/accuracy_greedy": self.weight})


class HookedCheckpoints(DiskCheckpoints):
    """The real ones, with a hook before and after everything that changes the disk."""

    hook: Hook = staticmethod(nothing)

    def save(self, trainer: ToyTrainer, state: State) -> None:
        self.hook("save")
        super().save(trainer, state)
        self.hook("saved")

    def settle(self, trainer: ToyTrainer, step: int) -> None:
        self.hook("settle")
        super().settle(trainer, step)
        self.hook("settled")

    def note_rollback(self, state: State) -> None:
        self.hook("note")
        super().note_rollback(state)
        self.hook("noted")


@dataclass
class ToyObserver:
    hook: Hook = nothing
    steps: list[int] = field(default_factory=list)
    metrics: list[dict[str, float]] = field(default_factory=list)
    evaluations: list[tuple[int, float]] = field(default_factory=list)
    events: list[tuple[str, str, dict]] = field(default_factory=list)

    def step(self, state: State, taken: Taken, batch: Batch, metrics: dict[str, float]) -> None:
        self.hook("observe")
        self.steps.append(state.step)
        self.metrics.append(dict(metrics))

    def evaluation(self, state: State, evaluated: Evaluated) -> None:
        self.evaluations.append((state.step, evaluated.metrics["eval/accuracy_greedy"]))

    def event(self, kind: str, message: str, **fields) -> None:
        self.hook("event")
        self.events.append((kind, message, fields))

    @property
    def rollbacks(self) -> list[tuple[str, str, dict]]:
        return [event for event in self.events if event[0] == "rollback"]


@dataclass
class Finished:
    state: State
    trainer: ToyTrainer
    rollouts: ToyRollouts
    checkpoints: DiskCheckpoints
    observer: ToyObserver

    @property
    def outcome(self) -> tuple:
        """What must be the same however often a run was interrupted."""
        state, trainer = self.state, self.trainer
        return trainer.weight, trainer.momentum, state.step, state.cursor, state.rollbacks, self.rollouts.taken


def recipe(steps: int, every: int = 3, evaluate_every: int = 0, max_rollbacks: int = 3, probation: int = 2) -> Recipe:
    return Recipe(
        name="toy",
        steps=steps,
        algorithm=None,
        reward=RewardConfig({"math": PartConfig("toy")}),
        checkpoint=CheckpointConfig(every=every, keep=3, probation=probation),
        evaluation=EvaluationConfig(every=evaluate_every),
        sentinel=SentinelConfig(max_rollbacks=max_rollbacks),
    )


def run(
    folder: Path,
    cfg: Recipe,
    poison: set[int] = frozenset(),  # type: ignore[assignment]
    hook: Hook = nothing,
    rollouts: ToyRollouts | None = None,
    stop: Callable[[], bool] = lambda: False,
    observer: ToyObserver | None = None,
    watch: Watch | None = None,
) -> Finished:
    """Train from whatever `folder` holds."""
    trainer = ToyTrainer(set(poison), hook)
    rollouts = rollouts or ToyRollouts()
    rollouts.hook = hook
    observer = observer or ToyObserver()
    observer.hook = hook
    checkpoints = HookedCheckpoints(folder, cfg.checkpoint, [0, 1], lambda kind, said: observer.event(kind, said))
    checkpoints.hook = hook
    watch = watch or Watch(cfg.sentinel, mark(cfg))
    parts = Parts(trainer, rollouts, checkpoints, watch, observer, lambda step: 0.5 / (step + 1), stop)
    return Finished(train(cfg, GRPO, parts), trainer, rollouts, checkpoints, observer)


SIGKILL_RECIPE, SIGKILL_POISON = recipe(steps=40, every=4), {21, 37, 60}

if __name__ == "__main__":
    done = run(Path(sys.argv[1]), SIGKILL_RECIPE, SIGKILL_POISON, rollouts=ToyRollouts(nap=0.01))
    Path(sys.argv[1], "final.json").write_text(json.dumps(done.outcome))
