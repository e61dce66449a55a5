"""The loop on a toy, interrupted anywhere: the end is that of a run left alone."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import toy
from tests.interruptions import POISON, STEPS, Recorded, Unplugged, fail, opened


def test_a_finished_run_is_not_trained_again(tmp_path):
    first = toy.run(tmp_path, toy.recipe(STEPS))
    again = toy.run(tmp_path, toy.recipe(STEPS))
    assert again.trainer.trained == [] and again.outcome == first.outcome


def test_a_finished_run_can_be_continued(tmp_path):
    toy.run(tmp_path / "a", toy.recipe(4), {5})
    assert toy.run(tmp_path / "a", toy.recipe(9), {5}).outcome == toy.run(tmp_path / "b", toy.recipe(9), {5}).outcome


@pytest.mark.parametrize("remedies", [None, ["anchor"]])
def test_an_exception_anywhere_changes_nothing_once_resumed(tmp_path, monkeypatch, remedies):
    """At every phase of a run with two rollbacks: crash there, resume, and compare to the run left alone."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # only a power cut would tell, and it is most of the time
    cfg, phases = toy.recipe(STEPS), Recorded()
    cfg.sentinel.remedies = remedies or cfg.sentinel.remedies
    alone = toy.run(tmp_path / "alone", cfg, POISON, phases)
    assert {"take", "stepped", "written", "settled", "note", "noted", "load", "event"} <= set(phases.phases)
    assert phases.phases.count("export") == (2 if remedies else 0)
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


@pytest.mark.parametrize("at", [1, 2])
def test_a_crash_in_an_evaluation_costs_no_checkpoint_that_was_begun_before_it(tmp_path, at):
    cfg = toy.recipe(STEPS, every=3, evaluate_every=3)
    with pytest.raises(Unplugged):
        toy.run(tmp_path, cfg, hook=Recorded(fail(), at=at, phase="evaluate"))  # behind step 3, and step 6
    assert opened(tmp_path).newest_step() == 3 * at


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
