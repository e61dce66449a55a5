"""The loop on a toy: every step once, a bad step undone, the end of it known, and no interruption changes anything."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import FrozenInstanceError
from itertools import pairwise
from pathlib import Path

import pytest

from rlvr.checkpoint.disk import DiskCheckpoints
from rlvr.checkpoint.ledger import step_of
from rlvr.config import CheckpointConfig
from rlvr.lineage import Lineage
from rlvr.loop import Diverged, check_fresh
from rlvr.parts import Parts
from rlvr.state import State, Taken
from tests import toy
from tests.builders import completion, group

STEPS = 7
# two prompts a step: 11 breaks step 6, which goes back to step 3, good since step 5; 13 then breaks step 4, within the
# two steps of probation, so that the checkpoint of step 3 is given up too, and it goes back to step 0
POISON = {11, 13}


class Recorded:
    """Counts the phases of a run, and acts in the one that the test chose."""

    def __init__(self, act=None, at: int | None = None, phase: str | None = None):
        self.act, self.at, self.phase = act, at, phase
        self.phases: list[str] = []

    def __call__(self, phase: str) -> None:
        now = len(self.phases) if self.phase is None else self.phases.count(self.phase)
        self.phases.append(phase)
        if now == self.at and phase == (self.phase or phase):
            self.act()


def steps_of(checkpoints: DiskCheckpoints) -> list[int]:
    return [step_of(name) for name in checkpoints.ledger.usable()]


def opened(folder: Path) -> DiskCheckpoints:
    return DiskCheckpoints(folder, CheckpointConfig(keep=3), [0, 1], lambda kind, said: None)


class Unplugged(Exception):
    """The machine went away."""


def fail(error=Unplugged):
    def act():
        raise error

    return act


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
            tokens = [c.token_ids for g in taken.groups for c in g.completions]
            assert [tuple(row[1:]) for row in batch.token_ids_BT.tolist()] == tokens
            assert state.cursor == taken.cursor

    assert toy.run(tmp_path, toy.recipe(2), observer=Looks()).observer.steps == [1, 2]


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


def test_checkpoints_are_step_0_the_interval_and_the_last_step(tmp_path):
    done = toy.run(tmp_path, toy.recipe(5, every=2))
    assert steps_of(done.checkpoints) == [0, 2, 4, 5]  # the newest three, and the two newest good ones: 0 and 2
    assert steps_of(toy.run(tmp_path, toy.recipe(9, every=2)).checkpoints) == [5, 6, 8, 9]  # now these are 5 and 6
    assert done.checkpoints.newest_step() == 5


# ---- a bad step ------------------------------------------------------------------------------------------------------


def test_a_bad_step_is_undone_and_its_batch_is_not_replayed(tmp_path):
    done = toy.run(tmp_path, toy.recipe(STEPS), poison={11})
    assert (done.state.step, done.state.rollbacks) == (STEPS, 1)
    assert done.observer.steps == [1, 2, 3, 4, 5, 4, 5, 6, 7]
    assert done.trainer.trained == [[2 * i, 2 * i + 1] for i in range(10)]  # on and on through the data
    assert done.state.cursor == 20
    kind, message, fields = done.observer.rollbacks[0]
    assert kind == "rollback"
    said = "step 6: policy/loss is nan, not finite (sentinel.nonfinite): rolled back from step 6 to 3; "
    assert message == said + "remedies: skip_data"
    assert (fields["alarm"]["detector"], fields["alarm"]["onset"]) == ("nonfinite", 6)
    assert (fields["step"], fields["to"]) == (5, 3)


def test_a_rollback_brings_back_weights_and_optimizer(tmp_path):
    good = toy.run(tmp_path / "good", toy.recipe(3)).trainer
    seen: list[tuple[float, float]] = []

    class Looks(toy.ToyRollouts):
        def publish(self, trainer, version):
            seen.append((trainer.weight, trainer.momentum))
            return super().publish(trainer, version)

    toy.run(tmp_path / "broken", toy.recipe(STEPS), {11}, rollouts=Looks())
    # publications: the start, steps 1 to 5, and then what the rollback from step 6 brought back
    assert seen[6] == seen[3] == (good.weight, good.momentum)


def test_a_rollback_branches_the_lineage(tmp_path):
    done = toy.run(tmp_path, toy.recipe(STEPS), poison=POISON)
    assert all(a < b for a, b in pairwise(done.rollouts.versions))
    floors = [state.lineage.floor for state in done.rollouts.states]
    assert floors == [1] * 6 + [7] + [8] * 7  # 1..6 sampled by the first branch, 7 by the second
    assert done.state.lineage == Lineage(version=15, floor=8)


def test_a_checkpoint_that_broke_again_within_its_probation_is_given_up(tmp_path):
    done = toy.run(tmp_path, toy.recipe(STEPS), poison=POISON)
    assert [fields["to"] for _, _, fields in done.observer.rollbacks] == [3, 0]
    assert done.observer.steps == [1, 2, 3, 4, 5, 1, 2, 3, 4, 5, 6, 7]
    assert done.state.rollbacks == 2


def test_one_that_broke_after_its_probation_is_gone_back_to_again(tmp_path):
    # 11 breaks step 6: back to 3; 17 breaks step 6 again, when 3 has stood for two more steps
    done = toy.run(tmp_path, toy.recipe(STEPS), poison={11, 17})
    assert [fields["to"] for _, _, fields in done.observer.rollbacks] == [3, 3]


def test_a_candidate_is_not_gone_back_to(tmp_path):
    done = toy.run(tmp_path, toy.recipe(STEPS), poison={9})  # breaks step 5, when step 3 has stood for one step
    assert [fields["to"] for _, _, fields in done.observer.rollbacks] == [0]


def test_a_checkpoint_made_after_the_trouble_began_is_not_gone_back_to(tmp_path):
    class Late:
        """Sees at step 12 what began at step 5."""

        memory, seen = 64, 0

        def watch(self, step, metrics):
            self.seen += 1
            return {"step": step}

        def inspect(self, seen, history):
            return DatedAlarm(5) if self.seen == 12 else None

    done = toy.run(tmp_path, toy.recipe(14), watch=Late())
    assert done.observer.steps[:11] == list(range(1, 12)), "steps 6 and 9 had become good by then"
    assert done.observer.rollbacks[0][2]["to"] == 3


class DatedAlarm:
    def __init__(self, onset: int):
        self.onset = onset

    def fields(self):
        return {"onset": self.onset}


def test_step_0_is_always_there_to_go_back_to(tmp_path):
    done = toy.run(tmp_path, toy.recipe(2), poison={0, 2, 4})
    assert [fields["to"] for _, _, fields in done.observer.rollbacks] == [0, 0, 0]
    assert (done.state.step, done.trainer.trained[-2:]) == (2, [[6, 7], [8, 9]])


# ---- remedies --------------------------------------------------------------------------------------------------------


def test_each_rollback_while_remedies_are_in_force_adds_the_next_one(tmp_path):
    done = toy.run(tmp_path, toy.recipe(STEPS), poison=POISON)
    assert [fields["remedies"] for _, _, fields in done.observer.rollbacks] == [
        ("skip_data",),
        ("skip_data", "lower_learning_rate"),
    ]
    rates = [m["policy/lr"] for m in done.observer.metrics[-STEPS:]]
    assert rates == pytest.approx([0.3 * 0.5 / (step + 1) for step in range(STEPS)])
    assert done.state.remedies == ("skip_data", "lower_learning_rate")


def test_remedies_are_let_go_once_health_has_lasted(tmp_path):
    cfg = toy.recipe(12)
    cfg.sentinel.remedies = ["lower_learning_rate"]
    cfg.sentinel.remedy_steps = 3
    done = toy.run(tmp_path, cfg, poison={11})  # alarm at step 6, back to 3: in force up to step 9
    rates = {m: lr for m, lr in zip(done.observer.steps, (m["policy/lr"] for m in done.observer.metrics), strict=True)}
    assert [rates[step] / (0.5 / step) for step in (4, 9, 10, 12)] == pytest.approx([0.3, 0.3, 1, 1])
    healthy = [message for kind, message, _ in done.observer.events if kind == "healthy"]
    assert healthy == ["healthy up to step 9: no longer lower_learning_rate"]
    assert (done.state.remedies, done.state.until) == ((), 9)


def test_a_resumed_run_is_still_under_its_remedies(tmp_path):
    cfg = toy.recipe(12)
    cfg.sentinel.remedies = ["anchor"]
    cfg.sentinel.anchor_coefficient = 5.0
    with pytest.raises(Unplugged):
        toy.run(tmp_path / "crashed", cfg, {11}, Recorded(fail(), at=9, phase="stepped"))
    resumed = toy.run(tmp_path / "crashed", cfg, {11})
    assert resumed.rollouts.states[0].remedies == ("anchor",)
    assert resumed.outcome == toy.run(tmp_path / "alone", cfg, {11}).outcome
    cfg.sentinel.remedies = ["skip_data"]
    assert resumed.trainer.weight < toy.run(tmp_path / "free", cfg, {11}).trainer.weight, "the anchor held"


def test_a_run_without_remedies_only_goes_back(tmp_path):
    cfg = toy.recipe(STEPS)
    cfg.sentinel.remedies = []
    done = toy.run(tmp_path, cfg, poison={11})
    assert done.observer.rollbacks[0][1].endswith("rolled back from step 6 to 3; remedies: none")
    assert done.state.remedies == ()


@pytest.mark.parametrize("limit", [0, 1, 3])
def test_a_run_that_goes_on_breaking_stops_after_max_rollbacks(tmp_path, limit):
    observer = toy.ToyObserver()
    said = rf"policy/loss is nan, .*; already rolled back sentinel.max_rollbacks={limit} times"
    with pytest.raises(Diverged, match=said):
        toy.run(tmp_path, toy.recipe(STEPS, max_rollbacks=limit), poison=set(range(9, 1000)), observer=observer)
    assert len(observer.rollbacks) == limit
    restored = toy.ToyTrainer(set())
    assert opened(tmp_path).restore(restored) is not None
    assert restored.weight == restored.weight, "the best good weights are still there, and no nan was saved"


def test_the_history_of_a_broken_branch_is_forgotten(tmp_path):
    done = toy.run(tmp_path, toy.recipe(STEPS), poison={11})
    after = done.rollouts.states[6]
    assert len(after.history) == 3, "the three steps behind the checkpoint, not the five before the bad one"


# ---- staleness -------------------------------------------------------------------------------------------------------


def taken(*versions: int) -> Taken:
    return Taken(tuple(group([1.0], [completion(policy_version=v)]) for v in versions), 0, {})


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


def test_a_run_asked_to_end_before_it_starts_trains_nothing(tmp_path):
    done = toy.run(tmp_path, toy.recipe(STEPS), stop=lambda: True)
    assert done.trainer.trained == [] and done.checkpoints.newest_step() == 0


def test_a_run_asked_to_end_during_a_rollback_remembers_the_rollback(tmp_path):
    asked: list[bool] = []
    cfg = toy.recipe(STEPS)
    hook = Recorded(lambda: asked.append(True), at=1, phase="event")  # 0 is the beginning
    early = toy.run(tmp_path / "asked", cfg, {11}, hook=hook, stop=lambda: bool(asked))
    assert (early.state.step, early.state.rollbacks) == (3, 1)
    assert toy.run(tmp_path / "asked", cfg, {11}).outcome == toy.run(tmp_path / "alone", cfg, {11}).outcome


# ---- crashes ---------------------------------------------------------------------------------------------------------


def test_a_finished_run_is_not_trained_again(tmp_path):
    first = toy.run(tmp_path, toy.recipe(STEPS))
    again = toy.run(tmp_path, toy.recipe(STEPS))
    assert again.trainer.trained == [] and again.outcome == first.outcome


def test_a_finished_run_can_be_continued(tmp_path):
    toy.run(tmp_path / "a", toy.recipe(4), {5})
    assert toy.run(tmp_path / "a", toy.recipe(9), {5}).outcome == toy.run(tmp_path / "b", toy.recipe(9), {5}).outcome


def test_an_exception_anywhere_changes_nothing_once_resumed(tmp_path, monkeypatch):
    """At every phase of a run with two rollbacks: crash there, resume, and compare to the run left alone."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # only a power cut would tell, and it is most of the time
    cfg, phases = toy.recipe(STEPS), Recorded()
    alone = toy.run(tmp_path / "alone", cfg, POISON, phases)
    assert {"take", "stepped", "written", "settled", "note", "noted", "load", "event"} <= set(phases.phases)
    for at, phase in enumerate(phases.phases):
        folder, engines = tmp_path / str(at), toy.ToyRollouts()
        error = KeyboardInterrupt if at % 2 else Unplugged
        with pytest.raises(error):
            toy.run(folder, cfg, POISON, Recorded(fail(error), at), engines)
        published = len(engines.versions)
        engines_live_on = at // 2 % 2 == 0
        resumed = toy.run(folder, cfg, POISON, rollouts=engines if engines_live_on else None)
        assert resumed.outcome == alone.outcome, f"crashed in phase {at}, {phase}"
        if engines_live_on:
            assert engines.versions[published] > max(engines.versions[:published])


def test_a_run_that_crashes_again_and_again_still_ends_the_same(tmp_path):
    cfg, rng, crashes = toy.recipe(STEPS), random.Random(0), 0
    while True:
        try:
            done = toy.run(tmp_path / "crashing", cfg, POISON, Recorded(fail(), at=rng.randrange(90)))
            break
        except Unplugged:
            crashes += 1
    assert crashes > 3
    assert done.outcome == toy.run(tmp_path / "alone", cfg, POISON).outcome


def test_a_crash_in_the_middle_of_a_save_leaves_no_half_checkpoint(tmp_path):
    with pytest.raises(Unplugged):
        toy.run(tmp_path, toy.recipe(STEPS), hook=Recorded(fail(), at=1, phase="written"))  # step 3, after step 0
    assert opened(tmp_path).newest_step() == 0


def test_a_crash_right_after_a_rollback_does_not_forget_it(tmp_path):
    cfg, crash = toy.recipe(STEPS), Recorded(fail(), at=0, phase="noted")
    with pytest.raises(Unplugged):
        toy.run(tmp_path, cfg, {11}, crash)
    done = toy.run(tmp_path, cfg, {11})
    assert done.rollouts.states[0].rollbacks == 1
    assert done.trainer.trained[0] == [12, 13], "the batch that broke us must not come back through a restart"


def test_an_old_rollback_does_not_outlive_newer_checkpoints(tmp_path):
    toy.run(tmp_path, toy.recipe(6), {11})
    done = toy.run(tmp_path, toy.recipe(9), {11})
    assert (done.state.step, done.state.rollbacks, done.observer.steps) == (9, 1, [7, 8, 9])


def test_what_an_evaluation_says_travels_with_the_next_step(tmp_path):
    done = toy.run(tmp_path, toy.recipe(STEPS, evaluate_every=2))
    by_step = dict(done.observer.evaluations)
    for step, metrics in zip(done.observer.steps, done.observer.metrics, strict=True):
        assert metrics.get("eval/accuracy_greedy") == by_step.get(step - 1)
    assert len(by_step) > 2


@pytest.mark.parametrize("phase", ["saved", "publish", "published", "evaluate"])
def test_a_crash_behind_the_last_checkpoint_does_not_cost_the_last_evaluation(tmp_path, phase):
    cfg, phases = toy.recipe(STEPS), Recorded()
    toy.run(tmp_path / "alone", cfg, hook=phases)
    last = Recorded(fail(), at=phases.phases.count(phase) - 1, phase=phase)
    with pytest.raises(Unplugged):
        toy.run(tmp_path / "crashed", cfg, hook=last)
    resumed = toy.run(tmp_path / "crashed", cfg)
    assert [step for step, _ in resumed.observer.evaluations] == [STEPS]


def test_a_damaged_newest_checkpoint_costs_its_steps_and_nothing_else(tmp_path):
    cfg = toy.recipe(STEPS)
    toy.run(tmp_path, toy.recipe(3))
    (next(tmp_path.glob("step-00000003-*")) / "trainer" / "weights.json").write_text("rotten")
    resumed = toy.run(tmp_path, cfg)
    assert resumed.observer.steps == list(range(1, STEPS + 1))
    assert resumed.outcome == toy.run(tmp_path / "alone", cfg).outcome


def test_a_rollback_past_a_damaged_checkpoint_is_remembered_too(tmp_path):
    """Step 3's checkpoint rots before it is needed: back to step 0, and a crash right then must not forget that."""
    cfg = toy.recipe(STEPS)

    def rot() -> None:
        newest = next(tmp_path.glob("step-00000003-*"))
        (newest / "trainer" / "weights.json").write_text("[0.0, 0.0]")

    class RotThenCrash(Recorded):
        def __call__(self, phase: str) -> None:
            super().__call__(phase)
            if phase == "noted":
                raise Unplugged

    with pytest.raises(Unplugged):
        toy.run(tmp_path, cfg, {11}, RotThenCrash(rot, at=5, phase="take"))
    done = toy.run(tmp_path, cfg, {11})
    assert done.rollouts.states[0].rollbacks == 1
    assert done.trainer.trained[0] == [12, 13]


def test_kill_minus_nine_changes_nothing(tmp_path):
    """A run with rollbacks, killed at odd moments, ends with the very same weights as one left alone."""
    alone = toy.run(tmp_path / "alone", toy.SIGKILL_RECIPE, toy.SIGKILL_POISON)
    assert alone.state.rollbacks == 3
    root, command = tmp_path / "killed", [sys.executable, "-m", "tests.toy", str(tmp_path / "killed")]
    where = Path(__file__).parents[1]
    for step in (4, 16, 32):  # kill on progress, not on the clock: a slow machine must not change the test
        process = subprocess.Popen(command, cwd=where)
        try:
            while max((int(p.name.split("-")[1]) for p in root.glob("step-*")), default=0) < step:
                assert process.poll() is None, "finished before it could be killed"
                time.sleep(0.001)
            time.sleep(random.Random(step).uniform(0, 0.03))  # somewhere within the steps that follow
        finally:
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
    subprocess.run(command, cwd=where, check=True)
    assert json.loads((root / "final.json").read_text()) == list(alone.outcome)
