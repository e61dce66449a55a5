"""How many deaths are made good, and how long it waits before each try."""

import pytest

from rlvr.cluster.calls import Budget, WorkerLost
from rlvr.config import ClusterConfig


def test_the_first_try_is_at_once_and_the_others_wait_longer_and_longer():
    budget = Budget("engines", ClusterConfig(restarts=9), clock=lambda: 0.0)
    assert [budget.spend("engine 0", "killed") for _ in range(9)] == [0, 1, 2, 4, 8, 16, 32, 60, 60]
    with pytest.raises(WorkerLost, match=r"engine 0 died \(killed\); 9 deaths of engines .* cluster.restarts=9"):
        budget.spend("engine 0", "killed")


def test_deaths_are_forgotten_after_a_while():
    times = iter((0.0, 1800.0, 3601.0, 5500.0, 5600.0))
    budget = Budget("engines", ClusterConfig(restarts=2, restart_hours=1), clock=lambda: next(times))
    for _ in range(4):
        budget.spend("engine 0", "killed")
    with pytest.raises(WorkerLost):
        budget.spend("engine 0", "killed")
