"""Whole made-up runs: no alarm on those that do well, and one in time on those that do not, with its beginning."""

import pytest

from rlvr.sentinel.history import Alarm
from rlvr.sentinel.watch import Watch
from rlvr.sentinel_config import SentinelConfig
from tests.sentinel.runs import BROKEN, HEALTHY, Schedule, changed, rows, steady

WATCH = Watch(SentinelConfig())
SEEDS, MANY = range(2), range(2, 22)


def first_alarm(schedule: Schedule, steps: int, seed: int, groups: int, begin: int, every: int = 1) -> Alarm | None:
    """Inspecting is pure, so it may begin at step `begin`, and look at every so manieth step."""
    history: list = []
    for metrics in rows(schedule, steps, seed, groups):
        row = WATCH.watch(metrics["step"], metrics)
        if metrics["step"] >= begin and metrics["step"] % every == 0 and (alarm := WATCH.inspect(row, history)):
            return alarm
        history.append(row)
    return None


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", HEALTHY)
def test_a_run_that_does_well_is_left_alone(name, seed):
    schedule, steps = HEALTHY[name]
    assert first_alarm(schedule, steps, seed, groups=1, begin=1, every=5) is None


@pytest.mark.parametrize("name", HEALTHY)
def test_a_run_of_many_groups_a_step_is_left_alone(name):
    schedule, steps = HEALTHY[name]
    assert first_alarm(schedule, steps, seed=7, groups=16, begin=1, every=5) is None


@pytest.mark.parametrize(("groups", "seed"), [(1, 0), (1, 1), (16, 0)])
@pytest.mark.parametrize("name", BROKEN)
def test_a_run_that_breaks_is_seen_in_time(name, groups, seed):
    schedule, onset, within, who = BROKEN[name]
    alarm = first_alarm(schedule, onset + within, seed, groups, begin=onset)
    assert alarm is not None and alarm.step <= onset + within
    assert alarm.detector == who or not who
    # of a slow one a single group a step tells the beginning only roughly, and evaluations come every fifty steps
    assert onset - 60 <= alarm.onset <= onset + (100 if within > 100 else 30)
    assert alarm.onset <= alarm.step


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("level", [0.04, 0.08])
def test_a_hard_task_that_is_lost_altogether_is_seen_though_it_never_was_high(level, seed):
    schedule = changed(steady, accuracy=lambda step: level if step < 200 else 0.0, heldout=lambda step: level)
    alarm = first_alarm(schedule, 260, seed, groups=16, begin=200)
    assert alarm is not None and alarm.detector == "reward"
    assert 100 <= alarm.onset <= 210, "early rather than late: so near to 0 the beginning can be told only roughly"


@pytest.mark.parametrize("groups", [1, 16])
@pytest.mark.parametrize("level", [0.005, 0.02, 0.04])
def test_a_hard_task_with_steps_without_a_success_is_left_alone(level, groups):
    schedule = changed(steady, accuracy=lambda step: level)
    assert first_alarm(schedule, 500, seed=3, groups=groups, begin=1) is None


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("name", HEALTHY)
def test_false_alarms_stay_rare_over_many_seeds(name):
    """One in forty is allowed: of runs noisier than most, over hundreds of steps."""
    schedule, steps = HEALTHY[name]
    alarms = [first_alarm(schedule, steps, seed, groups=1, begin=1) for seed in MANY]
    assert sum(alarm is not None for alarm in alarms) <= len(MANY) // 20, alarms


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("name", BROKEN)
def test_no_break_is_missed_over_many_seeds(name):
    schedule, onset, within, _ = BROKEN[name]
    alarms = [first_alarm(schedule, onset + within, seed, groups=1, begin=onset) for seed in MANY]
    # after 60 steps of one group each a run has proved so little that some of its falls cannot be told from noise
    allowed = len(MANY) // (3 if name == "early collapse" else 20)
    assert sum(alarm is None for alarm in alarms) <= allowed


def test_a_solved_task_is_no_alarm_for_five_hundred_steps():
    """All rewards 1, no group with a signal, no trained token, and before that gradients near 0."""
    solved = {"reward/mean": 1.0, "accuracy": 1.0, "groups/no_signal": 1.0, "completions/truncated": 0.0}
    solved |= {"policy/entropy": 1e-4, "policy/grad_norm": 1e-6, "policy/loss": 1e-9, "completions/length_mean": 20.0}
    history: list = []
    for metrics in rows(HEALTHY["learns fast"][0], 60, 0, 16):
        history.append(WATCH.watch(metrics["step"], metrics))
    for step in range(61, 561):
        row = WATCH.watch(step, solved | {"tokens/trained": step % 2})
        assert WATCH.inspect(row, history) is None
        history.append(row)
