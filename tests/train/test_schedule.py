"""The learning rate by hand, step by step."""

import math

import pytest

from rlvr.config import RecipeError, TrainerConfig
from rlvr.train.schedule import learning_rate


def rates(steps: int, **cfg) -> list[float]:
    made = TrainerConfig(learning_rate=1.0, **cfg)
    return [learning_rate(made, step, steps) for step in range(steps)]


def test_constant_without_warm_up_is_the_peak_throughout():
    assert rates(3, schedule="constant") == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_warm_up_rises_to_the_peak_and_never_starts_at_zero(schedule):
    # four steps of warm-up: 1/4, 2/4, 3/4, 4/4, and the schedule's own start is the peak
    assert rates(8, schedule=schedule, warmup_steps=4)[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])


def test_linear_falls_evenly_to_zero_behind_the_last_step():
    assert rates(4, schedule="linear") == pytest.approx([1.0, 0.75, 0.5, 0.25])
    assert learning_rate(TrainerConfig(learning_rate=1.0, schedule="linear"), 4, 4) == 0.0
    assert rates(6, schedule="linear", warmup_steps=2) == pytest.approx([0.5, 1.0, 1.0, 0.75, 0.5, 0.25])


def test_cosine_is_half_way_down_in_the_middle():
    # (1 + cos(pi p)) / 2 at p = 0, 1/4, 1/2, 3/4
    root = math.sqrt(0.5) / 2
    assert rates(4, schedule="cosine") == pytest.approx([1.0, 0.5 + root, 0.5, 0.5 - root])


def test_the_rate_scales_with_the_peak():
    assert learning_rate(TrainerConfig(learning_rate=3e-6, warmup_steps=2), 0, 10) == pytest.approx(1.5e-6)


def test_a_run_that_is_all_warm_up_works():
    assert rates(3, schedule="linear", warmup_steps=3) == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert rates(2, schedule="cosine", warmup_steps=10) == pytest.approx([0.1, 0.2])


def test_an_unknown_schedule_names_the_knob_and_the_choices():
    with pytest.raises(RecipeError, match=r"trainer\.schedule=polynomial: one of constant, linear, cosine"):
        rates(3, schedule="polynomial")
