"""The pipeline as events: engines, verifiers, driver, trainer, publication. Says where the design saturates.

    prompts -> engines (a group ends when its longest completion does) -> verifiers -> driver -> trainer -> publish
       ^                                                                                                       |
       +-- at most (max_staleness + 1) * groups_per_step groups on their way, each with its policy version <---+

Knows durations and counts, no tokens' content. Ages are asserted where groups are trained on.
"""

import heapq
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

Draw = Callable[[random.Random], float]


@dataclass(frozen=True)
class Pipeline:
    """Durations in seconds. Pipeline(engines=2, slots=4, groups_per_step=8, max_staleness=0, group_s=..., ...)"""

    engines: int
    slots: int  # groups that an engine samples at a time
    groups_per_step: int
    max_staleness: int
    group_s: Draw  # from a group's start to its last token
    verifiers: int
    verify_s: float  # all completions of a group, in one process
    driver_s: float  # of a group in the one process that hands it on
    train_s: float
    publish_s: float


@dataclass(frozen=True)
class Simulated:
    """What `steps` steps took, and who waited: shares of the time that each side had nothing to do."""

    step_s: float
    trainer_idle: float
    engines_idle: float
    driver_busy: float
    staleness: float


def simulate(pipe: Pipeline, steps: int, seed: int = 0) -> Simulated:
    """Event by event, group by group. The first step fills the pipeline and is not counted when there are more."""
    rng = random.Random(seed)
    started = consumed = version = 0
    now = sampling_s = training_s = driver_free = 0.0
    ages: list[int] = []
    ready: Counter[int] = Counter()  # groups in the buffer, by policy version
    away: Counter[int] = Counter()  # and those on their way to it
    free = pipe.engines * pipe.slots
    verifying = [0.0] * pipe.verifiers  # when each is free
    heapq.heapify(verifying)
    events: list[tuple[float, int, str, int]] = []  # time, order, kind, version
    order = 0
    idle_trainer = True
    ends: list[float] = []

    def at(when: float, kind: str, of: int) -> None:
        nonlocal order
        order += 1
        heapq.heappush(events, (when, order, kind, of))

    while len(ends) < steps:
        while free and started < (version + pipe.max_staleness + 1) * pipe.groups_per_step:
            duration = pipe.group_s(rng)
            sampling_s += duration
            at(now + duration, "sampled", version)
            started, free = started + 1, free - 1
            away[version] += 1
        if idle_trainer and (batch := oldest_first(pipe, version, ready, away)):
            ready -= batch
            ages += [version - of for of in batch.elements()]
            assert max(ages[-pipe.groups_per_step :]) <= pipe.max_staleness, "staleness is bounded by construction"
            idle_trainer, consumed = False, consumed + pipe.groups_per_step
            training_s += pipe.train_s
            at(now + pipe.train_s, "trained", version)
        now, _, kind, of = heapq.heappop(events)
        if kind == "sampled":
            free += 1
            start = max(now, heapq.heappop(verifying))
            heapq.heappush(verifying, start + pipe.verify_s)
            at(start + pipe.verify_s, "verified", of)
        elif kind == "verified":
            driver_free = max(now, driver_free) + pipe.driver_s
            at(driver_free, "arrived", of)
        elif kind == "arrived":
            ready[of] += 1
            away[of] -= 1
        elif kind == "trained":
            at(now + pipe.publish_s, "published", of)
        else:
            version, idle_trainer = version + 1, True
            ends.append(now)
    skipped = 1 if steps > 1 else 0
    span = ends[-1] - (ends[0] if skipped else 0.0)
    return Simulated(
        step_s=span / (steps - skipped),
        trainer_idle=max(0.0, 1 - training_s / ends[-1]),
        engines_idle=max(0.0, 1 - sampling_s / (ends[-1] * pipe.engines * pipe.slots)),
        driver_busy=consumed * pipe.driver_s / ends[-1],
        staleness=sum(ages) / len(ages),
    )


def oldest_first(pipe: Pipeline, version: int, ready: Counter[int], away: Counter[int]) -> Counter[int] | None:
    """A step's groups, or None: too few are there, or those left behind could not all be trained on in time.

    A group of version v must be in one of the steps up to v + max_staleness, and each takes groups_per_step.
    """
    if ready.total() < pipe.groups_per_step:
        return None
    batch: Counter[int] = Counter()
    left = 0
    for of in range(version - pipe.max_staleness, version + 1):
        batch[of] = min(ready[of], pipe.groups_per_step - batch.total())
        left += ready[of] + away[of] - batch[of]
        if left > (of + pipe.max_staleness - version) * pipe.groups_per_step:
            return None
    return batch
