"""Made-up runs, as noisy as real ones: a schedule of levels, and what sampling makes of them.

    Levels(accuracy, entropy, ...) of step t --> groups of 8 completions with 0/1 rewards --> the row of metrics

A group's own solve rate is drawn around the run's (Beta, concentration 0.8: most prompts are all right or all wrong, as
in shared/data/traces, where 7 of 10 groups have no signal). One group a step is the noisiest that there is.
"""

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

SIZE = 8


@dataclass(frozen=True)
class Levels:
    accuracy: float = 0.65
    entropy: float = 0.12
    length: float = 430.0
    truncated: float = 0.03
    grad_norm: float = 0.3
    loss: float = 0.2
    kl: float = 0.02
    mismatch: float = 0.01
    ess: float = 0.98
    heldout: float = 0.45


def between(t: float, start: int, end: int, a: float, b: float) -> float:
    """`a` until step `start`, `b` from step `end` on, a straight line between."""
    return a + (b - a) * min(max((t - start) / max(end - start, 1), 0.0), 1.0)


Schedule = Callable[[int], Levels]


def rows(schedule: Schedule, steps: int, seed: int, groups: int = 1, evaluate_every: int = 50) -> Iterator[dict]:
    rng = random.Random(seed)
    for step in range(1, steps + 1):
        yield row(schedule(step), step, rng, groups, evaluate_every)


def row(at: Levels, step: int, rng: random.Random, groups: int, evaluate_every: int) -> dict:
    made = [group(at.accuracy, rng) for _ in range(groups)]
    reward = sum(made) / groups
    teaching = [x for x in made if 0 < x < 1]
    # harder prompts get longer answers and more entropy
    hard = 1.0 + 0.4 * (0.65 - reward) / math.sqrt(groups)
    noise = 1 / math.sqrt(groups)
    truncated = sum(rng.random() < at.truncated for _ in range(SIZE * groups)) / (SIZE * groups)
    metrics = {
        "step": step,
        "reward/mean": reward,
        "accuracy": reward,
        "groups/no_signal": 1 - len(teaching) / groups,
        "completions/length_mean": at.length * hard * rng.lognormvariate(0, 0.35 * noise),
        "completions/truncated": truncated,
        "tokens/trained": 100.0 * len(teaching),
        "policy/entropy": at.entropy * hard * rng.lognormvariate(0, 0.5 * noise) if teaching else 0.0,
        "policy/grad_norm": at.grad_norm * rng.lognormvariate(0, 0.6) if teaching else 0.0,
        "policy/loss": at.loss * rng.gauss(0, 1) if teaching else 0.0,
        "policy/kl_ref": at.kl * rng.lognormvariate(0, 0.5),
        "mismatch/mean_abs": at.mismatch * rng.lognormvariate(0, 0.2),
        "mismatch/ess": min(at.ess * rng.lognormvariate(0, 0.02), 1.0),
    }
    if evaluate_every and step % evaluate_every == 0:
        metrics["eval/accuracy_greedy"] = evaluation(at.heldout, rng)
    return metrics


def evaluation(level: float, rng: random.Random) -> float:
    """Of 200 problems, always the same: more than half are always solved or never."""
    sure = sum((i + 0.5) / 110 < level for i in range(110))
    return (sure + sum(rng.random() < level for _ in range(90))) / 200


def group(accuracy: float, rng: random.Random) -> float:
    if not 0 < accuracy < 1:
        return accuracy
    own = rng.betavariate(0.8 * accuracy, 0.8 * (1 - accuracy))
    return sum(rng.random() < own for _ in range(SIZE)) / SIZE


def changed(schedule: Schedule, **changes: Callable[[int], float]) -> Schedule:
    return lambda t: replace(schedule(t), **{name: change(t) for name, change in changes.items()})


def line(start: int, end: int, a: float, b: float) -> Callable[[int], float]:
    return lambda t: between(t, start, end, a, b)


def curve(start: int, end: int, a: float, b: float) -> Callable[[int], float]:
    """As `line`, by equal factors."""
    return lambda t: math.exp(between(t, start, end, math.log(a), math.log(b)))


def steady(t: int) -> Levels:
    return Levels()


HEALTHY: dict[str, tuple[Schedule, int]] = {  # schedule, steps
    "as it is": (steady, 500),
    "hard data": (changed(steady, accuracy=lambda t: 0.1), 500),
    "nearly solved": (changed(steady, accuracy=lambda t: 0.95, entropy=lambda t: 0.03), 500),
    "learns fast": (
        changed(
            steady, accuracy=line(5, 40, 0.15, 0.9), entropy=curve(1, 40, 1.3, 0.1), grad_norm=curve(1, 60, 3, 0.2)
        ),
        400,
    ),
    "learns slowly": (changed(steady, accuracy=line(1, 800, 0.05, 0.35), entropy=curve(1, 800, 0.6, 0.15)), 800),
    "long at zero": (changed(steady, accuracy=line(300, 400, 0.0, 0.6)), 600),
    "solved": (
        changed(
            steady,
            accuracy=line(1, 60, 0.2, 1.0),
            entropy=curve(1, 150, 0.5, 0.0005),
            grad_norm=curve(1, 100, 2.0, 1e-4),
            loss=curve(1, 100, 0.5, 1e-5),
        ),
        560,
    ),
    "thinks longer and longer, and it pays": (
        changed(
            steady, accuracy=line(1, 500, 0.3, 0.7), length=curve(1, 500, 300, 2500), truncated=line(1, 500, 0.02, 0.2)
        ),
        500,
    ),
    "explores more than it did": (changed(steady, entropy=curve(50, 400, 0.1, 0.4)), 500),
    "sharpens": (changed(steady, accuracy=line(1, 400, 0.3, 0.75), entropy=curve(1, 400, 0.4, 0.012)), 500),
    "weak at first, cut off by the limit": (
        changed(
            steady, accuracy=line(1, 100, 0.05, 0.6), truncated=line(1, 100, 0.7, 0.05), length=line(1, 100, 900, 400)
        ),
        400,
    ),
    "data of varying difficulty": (changed(steady, accuracy=lambda t: 0.6 + 0.08 * math.sin(t / 25)), 500),
    "leaves the reference slowly": (changed(steady, kl=curve(1, 500, 1e-4, 0.6)), 500),
    "gradients grow threefold": (changed(steady, grad_norm=curve(1, 500, 0.5, 1.5)), 500),
}

BROKEN: dict[str, tuple[Schedule, int, int, str]] = {  # schedule, the first bad step, steps until seen, of whom
    "reward falls": (changed(steady, accuracy=line(250, 290, 0.65, 0.08)), 250, 60, "reward"),
    "learning rate too high by far": (
        changed(
            steady,
            accuracy=line(250, 253, 0.65, 0.01),
            entropy=curve(250, 253, 0.12, 6.0),
            grad_norm=curve(250, 251, 0.3, 60.0),
            loss=curve(250, 251, 0.2, 80.0),
            length=line(250, 253, 430, 900),
            truncated=line(250, 253, 0.03, 0.9),
        ),
        250,
        60,
        "",
    ),
    "lengths explode": (
        changed(
            steady,
            accuracy=line(250, 310, 0.65, 0.2),
            length=line(250, 300, 430, 980),
            truncated=line(250, 300, 0.03, 0.9),
        ),
        250,
        60,
        "",
    ),
    "entropy rises": (
        changed(steady, entropy=curve(200, 280, 0.12, 7.0), accuracy=line(240, 290, 0.65, 0.1)),
        200, 90, "entropy_rise",
    ),
    "entropy is lost, and the reward with it": (
        changed(steady, entropy=curve(200, 260, 0.2, 0.002), accuracy=line(200, 260, 0.65, 0.45)),
        200, 250, "entropy_collapse",
    ),
    "gradual decay": (changed(steady, accuracy=line(200, 500, 0.7, 0.1)), 200, 300, ""),
    "early collapse": (
        changed(steady, accuracy=lambda t: min(line(1, 40, 0.15, 0.65)(t), line(60, 90, 0.65, 0.01)(t))),
        60, 60, "reward",
    ),
    "leaves the reference at once": (changed(steady, kl=curve(250, 270, 0.02, 5.0)), 250, 60, "kl"),
    "engine and trainer part": (changed(steady, mismatch=curve(250, 270, 0.01, 0.6)), 250, 60, "mismatch"),
    "importance weights degenerate": (changed(steady, ess=line(250, 270, 0.98, 0.2)), 250, 60, "sample_size"),
    "held-out accuracy falls while the reward does not": (
        changed(steady, accuracy=line(100, 500, 0.65, 0.9), heldout=line(100, 300, 0.5, 0.25)), 100, 300, "accuracy",
    ),
    "gradients explode": (changed(steady, grad_norm=curve(250, 260, 0.3, 40.0)), 250, 60, "grad_norm"),
}  # fmt: skip
