"""The training loop. Knows what a step is; knows nothing of Ray, vLLM or DeepSpeed.

GRPO, arXiv:2402.03300, algorithm 1         here
sample o_1..o_G ~ pi_old for each prompt    rollouts.take       (and r_i from the verifiers)
A_i from each group's rewards               collate
maximise J(theta)                           trainer.step
pi_old <- pi_theta                          rollouts.publish
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from rlvr.collate import collate
from rlvr.config import Recipe
from rlvr.objective import Batch, Objective
from rlvr.state import State, Taken


class Trainer(Protocol):
    def step(self, batch: Batch, objective: Objective, learning_rate: float) -> dict[str, float]: ...


class Rollouts(Protocol):
    """Verified groups, sampled by engines that may lag the trainer by `max_staleness` versions, never more."""

    def publish(self, trainer: Any, version: int) -> Mapping[str, float]: ...
    def newest_version(self) -> int: ...
    def take(self, state: State) -> Taken: ...
    def evaluate(self) -> Mapping[str, float]: ...


class Checkpoints(Protocol):
    def first(self, trainer: Any) -> State: ...
    def save(self, trainer: Any, state: State) -> None: ...
    def restore(self, trainer: Any) -> State | None: ...
    def newest(self) -> str: ...
    def discard_newest(self) -> None: ...
    def note_rollback(self, state: State) -> None: ...


class Alarm(Protocol):
    """Says value, limit and knob; `onset` is the first step of the trouble."""

    @property
    def onset(self) -> int: ...
    def fields(self) -> dict[str, Any]: ...


class Sentinel(Protocol):
    memory: int  # good steps to remember

    def watch(self, step: int, metrics: Mapping[str, float]) -> Mapping[str, float]: ...
    def inspect(self, seen: Mapping[str, float], history: tuple[Mapping[str, float], ...]) -> Alarm | None: ...


class Observer(Protocol):
    def step(self, state: State, taken: Taken, batch: Batch, metrics: Mapping[str, float]) -> None: ...
    def evaluation(self, step: int, metrics: Mapping[str, float]) -> None: ...
    def event(self, kind: str, message: str, **fields: Any) -> None: ...


class Diverged(RuntimeError):
    """Rolled back as often as allowed, and still no good step."""


@dataclass(frozen=True)
class Parts:
    """What a run is made of."""

    trainer: Any  # a Trainer to the loop; checkpoints and rollouts ask more of it
    rollouts: Rollouts
    checkpoints: Checkpoints
    sentinel: Sentinel
    observer: Observer
    learning_rate: Callable[[int], float]  # of the step about to be taken
    stop: Callable[[], bool] = lambda: False  # someone asked the run to end early, cleanly


def train(cfg: Recipe, objective: Objective, run: Parts) -> State:
    """Until `cfg.steps` good steps are done, or `run.stop()`; either way the last step is saved."""
    weights = cfg.reward.weights()
    state = run.checkpoints.restore(run.trainer) or run.checkpoints.first(run.trainer)
    # a new branch: whatever engines that outlived a driver still hold, or are sampling, is not ours
    state = replace(state, lineage=state.lineage.branch(above=run.rollouts.newest_version()))
    run.observer.event("begin", f"going on after step {state.step}" if state.step else "from the start", to=state.step)
    published = publish(cfg, state, run)
    last = state.step >= cfg.steps or run.stop()
    while not last:
        taken = run.rollouts.take(state)
        check_fresh(taken, state, cfg.rollout.max_staleness)
        batch = collate(taken.groups, objective, weights)
        metrics = run.trainer.step(batch, objective, run.learning_rate(state.step))
        metrics = {**taken.metrics, **metrics, **published}
        seen = run.sentinel.watch(state.step + 1, metrics)
        if alarm := run.sentinel.inspect(seen, state.history):
            state = roll_back(alarm, state, taken, run, cfg.sentinel.max_rollbacks)
            published = publish(cfg, state, run)
            last = run.stop()
            continue
        state = state.advance(taken.cursor, seen, run.sentinel.memory)
        run.observer.step(state, taken, batch, metrics)
        last = state.step == cfg.steps or run.stop()
        if last or state.step % cfg.checkpoint.every == 0:
            run.checkpoints.save(run.trainer, state)
        published = publish(cfg, state, run)
    return state


def publish(cfg: Recipe, state: State, run: Parts) -> dict[str, float]:
    """To the engines; and evaluate where that is due, once more after a resume or a rollback to such a step: what it
    says travels with the metrics of the next step, so that the sentinel sees the same however the run came here."""
    metrics = dict(run.rollouts.publish(run.trainer, state.lineage.version))
    every = cfg.evaluation.every
    if state.step in (0, cfg.steps) or (every and state.step % every == 0):
        accuracy = run.rollouts.evaluate()
        run.observer.evaluation(state.step, accuracy)
        metrics |= accuracy
    return metrics


def check_fresh(taken: Taken, state: State, max_staleness: int) -> None:
    """Staleness is bounded where groups are made; here it is asserted once more, where they are consumed."""
    for group in taken.groups:
        if not state.lineage.admits(group.policy_version, max_staleness):
            raise RuntimeError(
                f"a group of policy version {group.policy_version} reached the trainer at {state.lineage}, "
                f"with rollout.max_staleness={max_staleness}: it must never be trained on"
            )


def roll_back(alarm: Alarm, state: State, taken: Taken, run: Parts, limit: int) -> State:
    """Back to the last good weights, but forward in the data: the batch that broke us is not replayed."""
    if state.rollbacks == limit:
        raise Diverged(f"{alarm}; already rolled back sentinel.max_rollbacks={limit} times")
    if run.checkpoints.newest() == state.restored:
        run.checkpoints.discard_newest()  # it broke twice: divergence is seen late, this one was already sick
    saved = run.checkpoints.restore(run.trainer)
    assert saved is not None, "step 0 is always saved"
    back = replace(
        saved,
        cursor=taken.cursor,
        rollbacks=state.rollbacks + 1,
        lineage=state.lineage.branch(),
        restored=run.checkpoints.newest(),
    )
    run.checkpoints.note_rollback(back)  # before anything is published: a crash must not forget this
    said = f"{alarm}: rolled back from step {state.step + 1} to {back.step}"
    run.observer.event("rollback", said, step=state.step, to=back.step, alarm=alarm.fields())
    return back
