"""The last lines of a run, its table and summary.json say the same."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr.observe.progress import Clock, Curve, readings, sparkline
from rlvr.observe.summary import Summary, duration, words

SUMMARY = Summary(
    recipe="quickstart",
    seed=0,
    status="finished",
    steps=50,
    wall_s=161.2,
    peak_rss_mb=3412.4,
    tokens_per_s=2310.4,
    problems=200,
    samples=1,
    accuracy_before=0.15,
    accuracy_after=0.765,
    accuracy_before_sampled=0.0,
    accuracy_after_sampled=0.74,
)


def test_the_words_say_every_number_of_the_summary():
    assert words(SUMMARY, Path("runs/quickstart-001")) == [
        "Held-out accuracy, greedy: 15.0% before, 76.5% after (5.1 times)",
        "Held-out accuracy, sampled: 0.0% before, 74.0% after",
        "quickstart, seed 0: 50 steps in 2:41 (161 s)",
        "2,310 tokens/s, peak memory 3,412 MB",
        "Run folder: runs/quickstart-001",
    ]


@pytest.mark.parametrize(
    ("status", "said"), [("interrupted", "(interrupted)"), ("stopped", "(stopped by the sentinel)")]
)
def test_a_run_that_ended_early_says_so_and_claims_no_accuracy(status, said):
    lines = words(Summary("toy", 1, status, 7, 3675.0, 10.0, 5.0, accuracy_before=0.2), Path("runs/toy-001"))
    assert lines[0] == f"toy, seed 1: 7 steps {said} in 1:01:15 (3675 s)"


def test_the_time_of_a_resumed_run_is_that_of_the_steps_it_took_since():
    lines = words(Summary("toy", 1, "finished", 6, 21.0, 10.0, 5.0, steps_before=4), Path("runs/toy-001"))
    assert lines[0] == "toy, seed 1: 2 of 6 steps in 0:21 (21 s)"


def test_durations_read_like_a_clock():
    assert [duration(s) for s in (0.4, 75, 3675)] == ["0:00", "1:15", "1:01:15"]
    assert [duration(s) for s in (float("nan"), float("inf"))] == ["-:--", "-:--"]


def test_a_sparkline_spans_its_values_and_fits_its_width():
    assert sparkline([0.0, 0.5, 1.0, 0.5], 80) == "▁▅█▅"
    assert sparkline([0.0, 0.0, 1.0, 1.0], 2) == "▁█"
    assert sparkline([0.3, 0.3], 80) == "▁▁"
    assert len(sparkline([float(n) for n in range(1000)], 37)) == 37


def test_a_curve_forgets_the_steps_that_a_rollback_abandoned():
    curve = Curve()
    for step, accuracy in ((1, 0.1), (2, 0.2), (3, 0.0), (2, 0.5)):
        curve.add(step, {"accuracy": accuracy})
    assert curve.drawn(60) == ("accuracy", "10.0%", "▁█", "50.0%")


def test_a_curve_without_accuracy_shows_the_reward_and_skips_what_is_not_finite():
    curve = Curve()
    for step, reward in enumerate((0.0, float("nan"), 1.0), 1):
        curve.add(step, {"reward/mean": reward})
    assert curve.drawn(60) == ("reward", "0.000", "▁█", "1.000")
    assert Curve().drawn(60) is None


@given(st.lists(st.tuples(st.integers(0, 12), st.floats(0, 1), st.sampled_from([math.nan, 0.5, None])), max_size=40))
def test_a_curve_holds_the_last_word_on_each_step_before_the_newest(rows):
    curve, whole = Curve(), {"accuracy": {}, "reward/mean": {}}
    for step, reward, accuracy in rows:
        metrics = {"reward/mean": reward} | ({} if accuracy is None else {"accuracy": accuracy})
        curve.add(step, metrics)
        for name, values in whole.items():
            whole[name] = {s: value for s, value in values.items() if s < step}
            if math.isfinite(metrics.get(name, math.nan)):
                whole[name][step] = metrics[name]
        assert [list(values.items()) for values in curve._values.values()] == [list(v.items()) for v in whole.values()]


def test_time_left_is_the_median_step_times_the_steps_left(monkeypatch):
    now = 100.0
    monkeypatch.setattr("rlvr.observe.progress.time.monotonic", lambda: now)
    clock = Clock(steps=10, done=4)
    assert clock.left_s != clock.left_s  # nan before the first step
    for step, seconds in ((5, 2.0), (6, 60.0), (7, 2.0)):  # one of them with an evaluation in between
        now += seconds
        clock.tick(step)
    assert clock.left_s == 3 * 2.0
    now += 1.5
    assert (clock.left_s, clock.elapsed_s) == (4.5, 65.5)
    clock.tick(6)  # a rollback takes no time of a step
    assert clock.left_s == 4 * 2.0


def test_readings_are_those_metrics_that_the_step_has():
    assert readings({"reward/mean": 0.5, "tokens/per_s": 2310.4, "policy/lr": 1.0}) == [
        ("reward", "0.500"),
        ("tokens/s", "2,310"),
    ]
