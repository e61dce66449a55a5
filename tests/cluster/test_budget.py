"""How many deaths are made good, and how long it waits before each try."""

import pytest

from rlvr.cluster.calls import Budget, WorkerLost
from rlvr.config import ClusterConfig


def test_the_first_try_is_at_once_and_the_others_wait_longer_and_longer():
    budget = Budget("engines", ClusterConfig(restarts=9), clock=lambda: 0.0)
    assert [budget.spend("engine 0", "killed") for _ in range(9)] == [0, 1, 2, 4, 8, 16, 32, 60, 60]
    with pytest.raises(WorkerLost, match=r"engine 0 died \(killed\); 9 deaths of engines .* cluster.restarts=9"):
        budget.spend("engine 0", "killed")


def test_those_who_die_together_are_one_death_and_whoever_dies_again_is_another():
    now = [0.0]
    budget = Budget("engines", ClusterConfig(restarts=3), clock=lambda: now[0])

    def die(*engines: int) -> list[float]:
        return [budget.spend(f"engine {n}", "its node is gone", f"engine {n}") for n in engines]

    assert die(*range(8)) == [0.0] * 8
    now[0] = 60.0
    assert die(8) == [0.0]  # it had nothing to do, and was found later
    assert die(3, 1, 5) == [1.0] * 3  # their successors
    now[0] = 130.0
    assert die(2) == [2.0]
    with pytest.raises(WorkerLost, match=r"engine 2 died .* 3 deaths of engines .* cluster.restarts=3"):
        die(2)


def test_deaths_are_forgotten_after_a_while():
    times = iter((0.0, 1800.0, 3601.0, 5500.0, 5600.0))
    budget = Budget("engines", ClusterConfig(restarts=2, restart_hours=1), clock=lambda: next(times))
    for _ in range(4):
        budget.spend("engine 0", "killed")
    with pytest.raises(WorkerLost):
        budget.spend("engine 0", "killed")
