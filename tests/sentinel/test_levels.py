"""When a level changed: told from the values alone, for jumps and for slow changes."""

import random

import pytest

from rlvr.sentinel.levels import Change, logarithms, onset


@pytest.mark.parametrize("behind", [1, 3, 12, 50])
@pytest.mark.parametrize("end", [16, 40])
def test_a_jump_is_dated_to_its_step(behind, end):
    values = [0.5] * 40 + [0.1] * behind
    assert onset(values, Change(0.5, 0.1, end)) == 40
    assert onset([-x for x in values], Change(-0.5, -0.1, end)) == 40


@pytest.mark.parametrize("length", [12, 60, 150])
def test_a_slow_change_is_dated_to_its_beginning(length):
    """What a quarter of the way would date to 40 + length / 4."""
    values = [0.7] * 40 + [0.7 - 0.4 * i / length for i in range(1, length + 1)]
    assert onset(values, Change(0.7, 0.3, 30)) == pytest.approx(40, abs=1)


def test_a_change_by_equal_factors_is_dated_by_its_logarithms():
    values = [0.1] * 40 + [0.1 * 1.1**i for i in range(1, 41)]
    change = Change(0.1, values[-1], 30)
    assert onset(values, change) > 50
    assert onset(logarithms(values, change), change) == pytest.approx(40, abs=1)


def test_a_level_of_zero_has_a_logarithm():
    values = [0.0] * 30 + [2.0] * 5
    change = Change(0.0, 2.0, 20)
    assert onset(logarithms(values, change), change) == 30


@pytest.mark.parametrize(("length", "off"), [(1, 20), (100, 35)])
def test_noise_moves_the_date_by_little_and_neither_way(length, off):
    """A jump in noise looks much like a steep line."""
    found = []
    for seed in range(30):
        rng = random.Random(seed)
        levels = [0.7] * 60 + [0.7 - 0.4 * min(i / length, 1) for i in range(1, 13 if length == 1 else 101)]
        found.append(onset([level + rng.gauss(0, 0.1) for level in levels], Change(0.7, 0.3, 50)) - 60)
    assert all(abs(late) <= off for late in found), sorted(found)
    assert abs(sorted(found)[15]) <= 6, sorted(found)


def test_the_change_is_looked_for_from_the_old_level_on():
    """A dip that was over long before the best stretch is not it."""
    values = [0.5] * 20 + [0.0] * 20 + [0.6] * 40 + [0.3] * 8
    assert onset(values, Change(0.6, 0.3, 70)) == 80
