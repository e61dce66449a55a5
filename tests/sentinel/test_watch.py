"""Each reason to distrust a step, at its limit; and the successes that must not look like one."""

import math

import pytest

from rlvr.config import SentinelConfig
from rlvr.sentinel.watch import WATCHED, Watch

CFG = SentinelConfig(max_mismatch=1.0, grad_norm_factor=50.0, grad_norm_floor=1.0, window=4)
HEALTHY = {"policy/loss": 0.1, "policy/entropy": 2.0, "policy/grad_norm": 3.0, "mismatch/mean_abs": 0.01}
SKIPPED = HEALTHY | {"policy/skipped": 1.0, "policy/loss": math.nan, "policy/grad_norm": math.nan}


def norms(*values: float) -> tuple[dict[str, float], ...]:
    return tuple({"policy/grad_norm": value} for value in values)


def inspect(history=(), **metrics: float) -> str | None:
    return Watch(CFG).inspect(HEALTHY | {name.replace("__", "/"): x for name, x in metrics.items()}, history)


def test_a_healthy_step_raises_no_alarm():
    assert inspect() is None and inspect(norms(3, 3, 3, 3)) is None


@pytest.mark.parametrize("name", WATCHED)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_metric_that_is_not_finite_is_an_alarm_that_names_it(name, value):
    alarm = Watch(CFG).inspect(HEALTHY | {name: value}, ())
    assert alarm == f"{name} is {value}"


def test_loss_entropy_gradient_and_mismatch_are_watched():
    assert set(WATCHED) == set(HEALTHY)


def test_a_metric_that_a_trainer_does_not_report_is_no_alarm():
    assert Watch(CFG).inspect({"policy/grad_norm": 1.0}, ()) is None


@pytest.mark.parametrize(("value", "alarms"), [(0.99, False), (1.0, False), (1.01, True)])
def test_engine_and_trainer_may_differ_up_to_the_limit(value, alarms):
    assert (inspect(mismatch__mean_abs=value) is not None) is alarms


def test_an_alarm_says_value_limit_and_knob():
    assert inspect(mismatch__mean_abs=1.5) == "mismatch/mean_abs 1.5 > sentinel.max_mismatch 1.0"
    assert inspect(norms(2, 3, 4, 5), policy__grad_norm=176.0) == (
        "policy/grad_norm 176 > sentinel.grad_norm_factor 50.0 x 3.5"
    )


@pytest.mark.parametrize(("value", "alarms"), [(149.0, False), (150.0, False), (151.0, True)])
def test_a_gradient_may_be_a_multiple_of_the_usual_one(value, alarms):
    """The usual is the median: 3 of [2, 3, 3, 100], so one earlier outlier does not hide the next one."""
    assert (inspect(norms(2, 3, 3, 100), policy__grad_norm=value) is not None) is alarms


@pytest.mark.parametrize(("value", "alarms"), [(0.5, False), (49.0, False), (51.0, True)])
def test_a_solved_task_with_tiny_gradients_is_no_alarm(value, alarms):
    """The floor of 1 stands in for a median of 0.001: nothing below 50 is an outlier."""
    assert (inspect(norms(0.001, 0.001, 0.001, 0.0), policy__grad_norm=value) is not None) is alarms


def test_no_gradient_is_an_outlier_before_there_is_a_window_to_compare_with():
    assert inspect(norms(1, 1, 1), policy__grad_norm=1e6) is None
    assert inspect(norms(1, 1, 1, 1), policy__grad_norm=1e6) is not None


def test_a_skipped_step_broke_nothing():
    assert Watch(CFG).inspect(SKIPPED, norms(1, 1, 1, 1)) is None
    assert Watch(CFG).inspect(SKIPPED, ({}, {}, {})) is None


def test_a_whole_window_of_skipped_steps_is_an_alarm():
    assert Watch(CFG).inspect(SKIPPED, ({}, {}, {}, {})) == (
        "gradients not finite for sentinel.window=4 steps in a row"
    )
    assert Watch(CFG).inspect(SKIPPED, ({}, {}, {}, *norms(1))) is None


def test_a_step_that_was_not_skipped_says_so_with_zero():
    assert inspect(policy__skipped=0.0, policy__loss=math.nan) is not None


def test_what_is_remembered_is_the_gradient_norm_of_good_steps():
    watch = Watch(CFG)
    assert watch.window == 4
    assert watch.watch(HEALTHY) == {"policy/grad_norm": 3.0}
    assert watch.watch(SKIPPED) == {}


def test_the_same_metrics_and_history_give_the_same_answer():
    watch, history = Watch(CFG), norms(1, 1, 1, 1)
    answers = {watch.inspect(HEALTHY | {"policy/grad_norm": 60.0}, history) for _ in range(3)}
    assert len(answers) == 1
