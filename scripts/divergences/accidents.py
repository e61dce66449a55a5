"""Accidents that ruin a run, each as it happens to a user: from outside, through what a user can get wrong.

    settings    of the recipe, or a file that it names
    around      objective and parts of the run, before the loop gets them

What happens once is timed by the optimizer steps ever taken, which a rollback does not turn back. No accident knows
that there is a sentinel, and none edits the framework.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlvr.objective import Objective
from rlvr.objective.surrogates import unclipped
from rlvr.parts import Parts

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
GROUPS = 8  # prompts a step
HEALTHY = 40  # steps that all runs of a seed have in common: the task is learnt by then
FROM = HEALTHY + 4  # the step in which the accident happens

Run = tuple[Objective, Parts]
Before = Callable[[int, Objective, float], tuple[Objective, float]]


class Clock:
    """The trainer, with something done to the step it is about to take. `taken` counts steps, those undone included."""

    def __init__(self, trainer: Any, taken: int, before: Before | None = None):
        self.trainer, self.taken, self.before = trainer, taken, before

    def __getattr__(self, name: str) -> Any:
        return getattr(self.trainer, name)

    def step(self, batch: Any, objective: Objective, learning_rate: float) -> dict[str, float]:
        self.taken += 1
        if self.before:
            objective, learning_rate = self.before(self.taken, objective, learning_rate)
        return self.trainer.step(batch, objective, learning_rate)


def before_steps(run: Run, before: Before) -> Run:
    objective, parts = run
    return objective, replace(parts, trainer=Clock(parts.trainer, HEALTHY, before))


def as_it_is(run: Run, folder: Path) -> Run:
    return run


def no_settings(folder: Path) -> tuple[str, ...]:
    return ()


@dataclass(frozen=True)
class Accident:
    title: str
    life: str  # what it stands for
    settings: Callable[[Path], tuple[str, ...]] = no_settings
    around: Callable[[Run, Path], Run] = as_it_is


# ---- a learning rate with two zeros too many -------------------------------------------------------------------------


def hundredfold(run: Run, folder: Path, steps: int = 5) -> Run:
    def before(taken: int, objective: Objective, learning_rate: float) -> tuple[Objective, float]:
        return objective, learning_rate * (100 if FROM <= taken < FROM + steps else 1)

    return before_steps(run, before)


# ---- a verifier with the wrong sign ----------------------------------------------------------------------------------


def released(folder: Path) -> tuple[str, ...]:
    verifier = f"reward.parts.math.verifier={HERE / 'released.py'}:released"
    return verifier, f"reward.parts.math.params.marker={folder / 'bad_release'}", "verify.sudden=warn"


def bad_release(run: Run, folder: Path, steps: int = 25) -> Run:
    """Between two dates the service runs a version that returns minus the reward."""
    marker = folder / "bad_release"

    def before(taken: int, objective: Objective, learning_rate: float) -> tuple[Objective, float]:
        if FROM <= taken + 1 < FROM + steps:  # of the groups of the next step
            marker.touch()
        else:
            marker.unlink(missing_ok=True)
        return objective, learning_rate

    return before_steps(run, before)


# ---- a flipped bit ---------------------------------------------------------------------------------------------------


def flipped_bit(run: Run, folder: Path) -> Run:
    trainer = run[1].trainer

    def before(taken: int, objective: Objective, learning_rate: float) -> tuple[Objective, float]:
        if taken == FROM:
            flip(trainer.engine.module.lm.model.layers[1].mlp.down_proj.weight)
        return objective, learning_rate

    return before_steps(run, before)


@torch.no_grad()
def flip(weight: Tensor) -> None:
    """The highest bit of the exponent of one float32: 0.02 becomes 7e36."""
    weight.view(torch.int32).view(-1)[1000] ^= 1 << 30


# ---- references that are off by ten ----------------------------------------------------------------------------------


def off_by_ten(folder: Path, steps: int = 40) -> tuple[str, ...]:
    """A copy of the training data in which a stretch has the answers of an annotator who carries one too many, a
    mistake that every policy here still makes now and then: one that it never makes would teach it nothing. At three
    times the learning rate, for the stretch is short."""
    rows = [json.loads(line) for line in (ROOT / "recipes" / "tiny" / "train.jsonl").read_text().splitlines()]
    for row in rows[(FROM - 1) * GROUPS : (FROM - 1 + steps) * GROUPS]:
        row["answer"] = str(int(row["answer"]) + 10)
    path = folder / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"data.train={path}", "trainer.learning_rate=2.4e-3"


# ---- off-policy without a clip ---------------------------------------------------------------------------------------


def reused(folder: Path) -> tuple[str, ...]:
    """Sixteen optimizer steps a batch, as PPO takes them, at twice the learning rate: all but the first are off-policy,
    and the clip sees to it."""
    return "trainer.epochs=8", "trainer.mini_batches=2", "trainer.learning_rate=1.6e-3"


def without_clip(run: Run, folder: Path, steps: int = 12) -> Run:
    def before(taken: int, objective: Objective, learning_rate: float) -> tuple[Objective, float]:
        if FROM <= taken < FROM + steps:
            objective = replace(objective, surrogate=unclipped, correction=None)
        return objective, learning_rate

    return before_steps(run, before)


# ---- an entropy bonus out of hand ------------------------------------------------------------------------------------


def bonus(
    surrogate: Callable, coefficient: float, log_w_BT: Tensor, advantages_B1: Tensor, logprobs_BT: Tensor
) -> Tensor:
    """Its gradient is that of the entropy, as the sampled tokens estimate it: -log pi grad log pi."""
    return surrogate(log_w_BT, advantages_B1, logprobs_BT) - coefficient * logprobs_BT.detach() * logprobs_BT


def hurried(folder: Path) -> tuple[str, ...]:
    return ("trainer.learning_rate=1.6e-3",)


def entropy_bonus(run: Run, folder: Path, steps: int = 24, coefficient: float = 40.0) -> Run:
    def before(taken: int, objective: Objective, learning_rate: float) -> tuple[Objective, float]:
        if FROM <= taken < FROM + steps:
            objective = replace(objective, surrogate=partial(bonus, objective.surrogate, coefficient))
        return objective, learning_rate

    return before_steps(run, before)


ACCIDENTS = {
    "none": Accident("none", "the same run, left alone"),
    "learning_rate": Accident(
        "learning rate x 100, 5 steps", "a hand on a live run, and two zeros too many", around=hundredfold
    ),
    "sign": Accident(
        "reward with its sign flipped, 25 steps", "a bad release of the verifier, taken back later", released,
        bad_release,
    ),
    "nan": Accident(
        "NaN in every gradient from one step on", "a flipped bit in one weight of a rank", around=flipped_bit
    ),
    "poison": Accident("320 rows with wrong references", "a stretch of data by an annotator who miscounts", off_by_ten),
    "stale": Accident(
        "16 larger optimizer steps a batch, for 12 batches no clip", "samples reused without what that needs", reused,
        without_clip,
    ),
    "entropy": Accident(
        "an entropy bonus far too large, 24 steps", "a coefficient that adapts itself, out of control", hurried,
        entropy_bonus,
    ),
}  # fmt: skip
