"""What the sentinel measures a run by after a rollback: soon enough, and without holding lost time against it."""

import random

import pytest

from rlvr.sentinel.history import NEARBY, going_back
from rlvr.sentinel.watch import Watch
from rlvr.sentinel_config import SentinelConfig
from tests.sentinel.runs import HEALTHY, Levels, row

WATCH = Watch(SentinelConfig())


def seen(level: Levels, step: int, rng: random.Random, groups: int = 16):
    return WATCH.watch(step, {k: v for k, v in row(level, step, rng, groups, 10).items() if k != "step"})


def of(steps) -> list:
    return [{"step": step} for step in steps]


@pytest.mark.parametrize(
    ("saved", "abandoned", "onset", "kept"),
    [
        (range(1, 21), range(1, 44), 44, range(21, 21 + NEARBY)),
        (range(1, 21), range(1, 30), 25, range(21, 25)),  # none from the trouble on
        (range(1, 21), range(1, 25), 15, ()),
        ((), range(1, 44), 44, range(1, 1 + NEARBY)),  # to step 0
    ],
)
def test_the_first_healthy_steps_behind_the_checkpoint_stay(saved, abandoned, onset, kept):
    assert going_back(of(saved), of(abandoned), onset) == tuple(of([*saved, *kept]))


def test_the_evaluation_of_the_checkpoint_is_made_again_and_counts_once():
    evaluated = {"eval/accuracy_greedy": 0.38, "eval/problems": 200}
    saved = [{"step": step} for step in range(1, 21)]
    abandoned = [*saved, {"step": 21, "reward/mean": 0.5} | evaluated, {"step": 22} | evaluated, {"step": 23}]
    first, second, _ = going_back(saved, abandoned, 24)[20:]
    assert first == {"step": 21, "reward/mean": 0.5} and second == abandoned[21], "that of step 21 is another one's"
    assert going_back((), [{"step": 1} | evaluated], 2) == ({"step": 1},)


def test_in_a_record_of_others_an_evaluation_is_of_its_own_step_and_stays():
    saved = [{"step": 1}, {"step": 2}]
    abandoned = [*saved, {"step": 3, "eval/accuracy_greedy": 0.6}, {"step": 4}]
    assert going_back(saved, abandoned, 9, evaluates=False) == tuple(abandoned)


def test_going_back_to_the_same_checkpoint_again_keeps_no_more_of_it():
    once = going_back(of(range(1, 11)), of(range(1, 40)), 40)
    again = going_back(of(range(1, 11)), (*once, *of(range(11, 30))), 30)
    assert again == once


def test_going_back_a_second_time_to_a_later_checkpoint_remembers_no_step_twice():
    """The first one left 21 .. 28 of its branch, so that of step 25 has 26 .. 28 of it in its memory already."""
    first = [{"step": step, "branch": 1} for step in range(1, 44)]
    once = going_back(first[:20], first, 44)
    second = [{"step": step, "branch": 2} for step in range(21, 36)]
    second[5] |= {"eval/accuracy_greedy": 0.7}  # of the checkpoint of step 25
    again = going_back((*once, *second[:5]), (*once, *second), 36)
    kept = [{"step": 26, "branch": 2}, *second[6 : 5 + NEARBY]]
    assert again == (*once, *second[:5], *kept)


def test_a_branch_that_is_worse_at_once_is_seen_soon_though_the_checkpoint_is_early():
    rng = random.Random(0)
    schedule, _ = HEALTHY["learns fast"]
    first = [seen(schedule(step), step, rng) for step in range(1, 44)]

    def steps_until_seen(history):
        history = list(history)
        for step in range(11, 61):
            now = seen(Levels(accuracy=0.0, entropy=0.3), step, random.Random(step))
            if WATCH.inspect(now, history):
                return step - 10
            history.append(now)
        return None

    assert steps_until_seen(going_back(first[:10], first, 44)) <= 14
    assert steps_until_seen(first[:10]) == 48, "what the checkpoint alone remembers proves too little: all must be lost"


@pytest.mark.parametrize("slower", [1.0, 0.3, 0.1])
@pytest.mark.parametrize("restored", [0, 10, 25])
@pytest.mark.parametrize("groups", [1, 16])
def test_a_branch_that_learns_again_and_more_slowly_is_left_alone(restored, slower, groups):
    rng = random.Random(restored)
    schedule, _ = HEALTHY["learns fast"]
    first = [seen(schedule(step), step, rng, groups) for step in range(1, 60)]
    history = list(going_back(first[:restored], first, 60))
    for step in range(restored + 1, restored + 150):
        level = schedule(restored + slower * (step - restored))
        now = seen(level, step, rng, groups)
        assert WATCH.inspect(now, history) is None
        history.append(now)
