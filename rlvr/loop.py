"""The training loop. Knows what a step is; knows nothing of Ray, vLLM or DeepSpeed.

GRPO, arXiv:2402.03300, algorithm 1         here
sample o_1..o_G ~ pi_old for each prompt    rollouts.take       (and r_i from the verifiers)
A_i from each group's rewards               collate
maximise J(theta)                           trainer.step
pi_old <- pi_theta                          rollouts.publish
"""

from dataclasses import replace

from rlvr.collate import collate
from rlvr.config import Recipe
from rlvr.objective import Objective
from rlvr.parts import Alarm, Parts, Seen
from rlvr.sentinel.history import going_back
from rlvr.sentinel.remedies import further, next_remedies, treat
from rlvr.sentinel_config import SentinelConfig
from rlvr.state import State, Taken


class Diverged(RuntimeError):
    """Rolled back as often in a row as allowed, and trouble came again; `onset` is when it began."""

    def __init__(self, message: str, onset: int):
        super().__init__(message)
        self.onset = onset


def train(cfg: Recipe, objective: Objective, run: Parts) -> State:
    """Until `cfg.steps` good steps are done, or `run.stop()`; either way the last step is saved."""
    state = run.checkpoints.restore(run.trainer) or run.checkpoints.first(run.trainer)
    run.rollouts.remember(state.rollouts)
    # a new branch: whatever engines that outlived a driver still hold, or are sampling, is not ours
    state = replace(state, lineage=state.lineage.branch(above=run.rollouts.newest_version()))
    run.observer.event("begin", f"going on after step {state.step}" if state.step else "from the start", to=state.step)
    published = {} if run.stop() else publish(cfg, state, run)
    last = state.step >= cfg.steps or run.stop()
    while not last:
        treatment = treat(objective, cfg.sentinel, state.remedies, state.anchor)
        taken = run.rollouts.take(state)
        check_fresh(taken, state, cfg.rollout.max_staleness)
        batch = collate(taken.groups, treatment.objective, cfg.reward.weights())
        rate = treatment.learning_rate * run.learning_rate(state.step)
        metrics = {**taken.metrics, **treatment.named(run.trainer.step(batch, treatment.objective, rate)), **published}
        seen = run.sentinel.watch(state.step + 1, metrics)
        if alarm := run.sentinel.inspect(seen, state.history):
            state = roll_back(alarm, seen, state, taken, run, cfg.sentinel)
            del taken, batch
            published = {} if run.stop() else publish(cfg, state, run)
            last = run.stop()
            continue
        state = let_go(state.advance(taken.cursor, seen, run.sentinel.memory), run)
        run.observer.step(state, taken, batch, metrics)
        del taken, batch  # they may be gigabytes: none of them is held while the next are sampled
        last = state.step == cfg.steps or run.stop()
        if last or state.step % cfg.checkpoint.every == 0:
            run.checkpoints.save(run.trainer, replace(state, rollouts=run.rollouts.memory()))
        if state.step == cfg.steps or not last:  # who is asked to end has no time for an evaluation
            published = publish(cfg, state, run)
        run.checkpoints.settle(run.trainer, state.step)
    run.checkpoints.finish(run.trainer)
    return state


def publish(cfg: Recipe, state: State, run: Parts) -> dict[str, float]:
    """To the engines; and evaluate where that is due, once more after a resume or a rollback to such a step: what it
    says travels with the metrics of the next step, so that the sentinel sees the same however the run came here."""
    metrics = dict(run.rollouts.publish(run.trainer, state.lineage))
    if state.step in (0, cfg.steps) or (cfg.evaluation.every and state.step % cfg.evaluation.every == 0):
        run.checkpoints.finish(run.trainer)  # an evaluation is long, and may end the run
        found = run.rollouts.evaluate()
        run.checkpoints.evaluated(state, found.metrics)
        run.observer.evaluation(state, found)
        metrics |= found.metrics
    return metrics


def check_fresh(taken: Taken, state: State, max_staleness: int) -> None:
    """Staleness is bounded where groups are made; here it is asserted once more, where they are consumed."""
    for group in taken.groups:
        if not state.lineage.admits(group.policy_version, max_staleness):
            raise RuntimeError(
                f"a group of policy version {group.policy_version} reached the trainer at {state.lineage}, "
                f"with rollout.max_staleness={max_staleness}: it must never be trained on"
            )


def roll_back(alarm: Alarm, seen: Seen, state: State, taken: Taken, run: Parts, cfg: SentinelConfig) -> State:
    """Back to good weights from before the trouble, forward in the data and what rollouts remember; one more remedy."""
    if state.rollbacks >= cfg.max_rollbacks:  # a resume may have lowered it
        said = f"{alarm}; already rolled back sentinel.max_rollbacks={cfg.max_rollbacks} times in a row"
        raise Diverged(said, alarm.onset)
    saved = replace(run.checkpoints.roll_back(run.trainer, state, alarm.onset), rollouts=run.rollouts.memory())
    assert saved.restored is not None, "it says which checkpoint it was"
    remedies = next_remedies(cfg, state.remedies)
    back = replace(
        saved,
        cursor=taken.cursor + further(state.remedies, state.rollbacks, taken.cursor - state.cursor),  # no replay
        history=going_back(saved.history, state.history, alarm.onset),
        rollbacks=state.rollbacks + 1,
        lineage=state.lineage.branch(),
        remedies=remedies,
        until=state.step + 1 + cfg.remedy_steps,
        anchor=run.checkpoints.anchor(run.trainer, saved.restored) if "anchor" in remedies else None,
    )
    run.checkpoints.note_rollback(back)  # before anything is published: a crash must not forget this
    said = f"{alarm}: rolled back from step {state.step + 1} to {back.step}; remedies: {', '.join(remedies) or 'none'}"
    told = {"alarm": alarm.fields(), "remedies": remedies, "metrics": seen}
    run.observer.event("rollback", said, step=state.step, to=back.step, **told)
    return back


def let_go(state: State, run: Parts) -> State:
    """Without remedies, and with all rollbacks to spend, once health has lasted as long as they were meant for."""
    if not state.rollbacks or state.step < state.until:
        return state
    ended = f": no longer {', '.join(state.remedies)}" if state.remedies else ""
    run.observer.event("healthy", f"healthy up to step {state.step}{ended}")
    return replace(state, remedies=(), anchor=None, rollbacks=0)
