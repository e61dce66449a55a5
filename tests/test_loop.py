"""The loop on a toy: every step once, a bad step undone, the end of it known, and no interruption changes anything."""

import gc
import weakref
from dataclasses import FrozenInstanceError

import pytest

from rlvr.checkpoint.ledger import step_of
from rlvr.lineage import Lineage
from rlvr.loop import check_fresh
from rlvr.parts import Parts
from rlvr.state import State, Taken
from tests import toy
from tests.builders import completion, group
from tests.interruptions import STEPS, Recorded, steps_of

# ---- an uninterrupted run --------------------------------------------------------------------------------------------


def test_every_step_is_taken_once_on_its_own_prompts(tmp_path):
    done = toy.run(tmp_path, toy.recipe(STEPS))
    assert done.observer.steps == list(range(1, STEPS + 1))
    assert done.trainer.trained == [[2 * i, 2 * i + 1] for i in range(STEPS)]
    assert (done.state.step, done.state.cursor, done.state.rollbacks) == (STEPS, 2 * STEPS, 0)


def test_a_run_says_where_it_begins(tmp_path):
    assert toy.run(tmp_path, toy.recipe(3)).observer.events[0] == ("begin", "from the start", {"to": 0})
    assert toy.run(tmp_path, toy.recipe(4)).observer.events[0] == ("begin", "going on after step 3", {"to": 3})


def test_the_observer_sees_the_groups_of_a_step_and_the_batch_made_of_them(tmp_path):
    class Looks(toy.ToyObserver):
        def step(self, state, taken, batch, metrics):
            super().step(state, taken, batch, metrics)
            tokens = [list(c.token_ids) for g in taken.groups for c in g.completions]
            assert [row[1:] for row in batch.token_ids_BT.tolist()] == tokens
            assert state.cursor == taken.cursor

    assert toy.run(tmp_path, toy.recipe(2), observer=Looks()).observer.steps == [1, 2]


def test_nothing_is_held_of_a_step_while_the_next_is_sampled(tmp_path, monkeypatch):
    """Nor while it is published and evaluated, nor of one that was undone."""
    made: list[weakref.ref] = []

    def look(phase: str) -> None:
        if phase in ("publish", "evaluate", "take"):
            gc.collect()
            assert not any(ref() is not None for ref in made)

    class Trainer(toy.ToyTrainer):
        def step(self, batch, objective, learning_rate):
            made.append(weakref.ref(batch.token_ids_BT))
            return super().step(batch, objective, learning_rate)

    class Rollouts(toy.ToyRollouts):
        def take(self, state):
            taken = super().take(state)
            made.append(weakref.ref(taken))
            return taken

    monkeypatch.setattr(toy, "ToyTrainer", Trainer)
    done = toy.run(tmp_path, toy.recipe(STEPS, evaluate_every=3), poison={7}, hook=look, rollouts=Rollouts())
    assert len(made) > 2 * STEPS and done.observer.rollbacks


def test_nobody_asks_a_run_to_end_unless_told_so():
    parts = Parts(*[None] * 6)
    assert parts.stop() is False
    with pytest.raises(FrozenInstanceError):
        parts.stop = None


def test_it_learns(tmp_path):
    done = toy.run(tmp_path, toy.recipe(30))
    assert done.trainer.weight > 0.5  # P(the rewarded token) was 0.50, is above 0.62


def test_every_step_is_published_before_the_next_one_samples(tmp_path):
    done = toy.run(tmp_path, toy.recipe(STEPS))
    assert done.rollouts.versions == list(range(STEPS + 2))  # an engine's own 0, the first publication, one a step
    assert [m["policy_version"] for m in done.observer.metrics] == list(range(1, STEPS + 1))
    assert [s.lineage.version for s in done.rollouts.states] == list(range(1, STEPS + 1))


def test_the_learning_rate_is_that_of_the_step_about_to_be_taken(tmp_path):
    done = toy.run(tmp_path, toy.recipe(4))
    assert [m["policy/lr"] for m in done.observer.metrics] == [0.5, 0.5 / 2, 0.5 / 3, 0.5 / 4]


def test_metrics_of_rollouts_trainer_and_publication_arrive_together(tmp_path):
    metrics = toy.run(tmp_path, toy.recipe(1)).observer.metrics[0]
    assert {"groups/sampled", "policy/loss", "policy_version"} <= set(metrics)


@pytest.mark.parametrize(("every", "steps"), [(0, [0, 7]), (3, [0, 3, 6, 7]), (7, [0, 7])])
def test_evaluations_come_first_at_their_interval_and_last(tmp_path, every, steps):
    done = toy.run(tmp_path, toy.recipe(STEPS, evaluate_every=every))
    assert [step for step, _ in done.observer.evaluations] == steps
    assert done.observer.evaluations[0][1] == 0.0
    assert done.observer.evaluations[-1][1] == done.trainer.weight  # with the weights just published


def test_a_checkpoint_knows_what_its_weights_are_worth(tmp_path):
    done = toy.run(tmp_path, toy.recipe(STEPS, evaluate_every=3))
    entries = done.checkpoints.ledger.entries
    scores = {step_of(name): entry.score for name, entry in entries.items()}
    assert len(scores) >= 3 and scores == {step: dict(done.observer.evaluations)[step] for step in scores}


def test_checkpoints_are_step_0_the_interval_and_the_last_step(tmp_path):
    done = toy.run(tmp_path, toy.recipe(5, every=2))
    assert steps_of(done.checkpoints) == [0, 2, 4, 5]  # the newest three, and the two newest good ones: 0 and 2
    kept = steps_of(toy.run(tmp_path, toy.recipe(9, every=2)).checkpoints)
    assert kept == [0, 2, 5, 6, 8, 9]  # now these are 5 and 6; 0, and 2 which is the next to be 64 steps old, stay
    assert done.checkpoints.newest_step() == 5


# ---- staleness -------------------------------------------------------------------------------------------------------


def taken(*versions: int) -> Taken:
    groups = tuple(group([1.0], [completion(policy_version=v)]) for v in versions)
    return Taken(groups, 0, {}, groups)


def test_fresh_groups_pass_and_a_single_stale_one_does_not():
    state = State(lineage=Lineage(version=7, floor=5))
    check_fresh(taken(7, 7), state, max_staleness=0)
    check_fresh(taken(7, 6, 5), state, max_staleness=2)
    with pytest.raises(RuntimeError, match=r"policy version 6 .* with rollout.max_staleness=0"):
        check_fresh(taken(7, 6, 7), state, max_staleness=0)
    with pytest.raises(RuntimeError, match="policy version 4"):
        check_fresh(taken(4), state, max_staleness=100)


def test_what_an_abandoned_policy_sampled_is_never_trained_on(tmp_path):
    class Hoarding(toy.ToyRollouts):
        """Serves, after a rollback, a group that it had kept from before."""

        kept: Taken | None = None

        def take(self, state):
            if state.rollbacks:
                return self.kept
            self.kept = super().take(state)
            return self.kept

    cfg = toy.recipe(STEPS)
    cfg.rollout.max_staleness = 100
    observer = toy.ToyObserver()
    with pytest.raises(RuntimeError, match="must never be trained on"):
        toy.run(tmp_path, cfg, poison={11}, rollouts=Hoarding(), observer=observer)
    assert observer.steps == [1, 2, 3, 4, 5]


# ---- an early end ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", ["take", "step", "stepped", "observe", "publish", "published"])
@pytest.mark.parametrize("nth", [1, 3])
def test_a_run_that_is_asked_to_end_saves_its_last_step_first(tmp_path, phase, nth):
    """Whenever the signal comes, what was trained is on disk, and a resume ends where an uninterrupted run does."""
    asked: list[bool] = []
    cfg = toy.recipe(STEPS, every=100)
    early = toy.run(
        tmp_path / "asked", cfg, stop=lambda: bool(asked), hook=Recorded(lambda: asked.append(True), nth, phase)
    )
    assert 0 < early.state.step < STEPS
    assert early.checkpoints.newest_step() == early.state.step
    resumed = toy.run(tmp_path / "asked", cfg)
    assert resumed.observer.steps == list(range(early.state.step + 1, STEPS + 1))
    assert resumed.outcome == toy.run(tmp_path / "alone", cfg).outcome


def test_a_signal_during_an_evaluation_saves_too(tmp_path):
    asked: list[bool] = []
    hook = Recorded(lambda: asked.append(True), at=1, phase="evaluate")
    early = toy.run(tmp_path, toy.recipe(STEPS, every=100, evaluate_every=2), stop=lambda: bool(asked), hook=hook)
    assert early.checkpoints.newest_step() == early.state.step in (2, 3)


def test_a_run_asked_to_end_takes_no_time_for_an_evaluation_that_a_resume_makes_up_for(tmp_path):
    asked: list[bool] = []
    cfg = toy.recipe(STEPS, every=100, evaluate_every=4)
    hook = Recorded(lambda: asked.append(True), at=3, phase="take")  # in step 4
    early = toy.run(tmp_path / "asked", cfg, stop=lambda: bool(asked), hook=hook)
    assert early.checkpoints.newest_step() == early.state.step == 4
    assert [step for step, _ in early.observer.evaluations] == [0]
    resumed = toy.run(tmp_path / "asked", cfg)
    assert [step for step, _ in resumed.observer.evaluations] == [4, STEPS]
    assert resumed.outcome == toy.run(tmp_path / "alone", cfg).outcome


def test_a_run_asked_to_end_in_its_last_step_is_evaluated(tmp_path):
    asked: list[bool] = []
    hook = Recorded(lambda: asked.append(True), at=STEPS - 1, phase="take")
    done = toy.run(tmp_path, toy.recipe(STEPS), stop=lambda: bool(asked), hook=hook)
    assert [step for step, _ in done.observer.evaluations] == [0, STEPS]


def test_a_run_asked_to_end_before_it_starts_trains_nothing(tmp_path):
    done = toy.run(tmp_path, toy.recipe(STEPS), stop=lambda: True)
    assert done.trainer.trained == [] and done.checkpoints.newest_step() == 0
    assert done.rollouts.versions == [0] and done.observer.evaluations == [], "nor does it take the time to evaluate"


def test_a_run_asked_to_end_during_a_rollback_remembers_the_rollback(tmp_path):
    asked: list[bool] = []
    cfg = toy.recipe(STEPS)
    hook = Recorded(lambda: asked.append(True), at=1, phase="event")  # 0 is the beginning
    early = toy.run(tmp_path / "asked", cfg, {11}, hook=hook, stop=lambda: bool(asked))
    assert (early.state.step, early.state.rollbacks) == (3, 1)
    assert early.rollouts.versions == list(range(7)), "nor does it publish what nobody will sample from"
    assert toy.run(tmp_path / "asked", cfg, {11}).outcome == toy.run(tmp_path / "alone", cfg, {11}).outcome


def test_what_the_rollouts_remembered_goes_on_with_a_resumed_run(tmp_path):
    begun = toy.run(tmp_path, toy.recipe(6))
    assert begun.rollouts.remembered == {}, "nothing at the start"
    assert toy.run(tmp_path, toy.recipe(9)).rollouts.remembered == {"taken": 6}
