"""A machine under load takes its time to start Ray."""

import pytest

from rlvr.cluster import ray_cluster

SLOW = Exception("The current node timed out during startup. This could happen because ...")


def starts(monkeypatch, *outcomes: Exception | None) -> list[dict]:
    """What `ray.init` is asked, and how it ends each time."""
    asked, left = [], list(outcomes)

    def init(**settings) -> None:
        asked.append(settings)
        if outcome := left.pop(0):
            raise outcome

    monkeypatch.setattr(ray_cluster.ray, "init", init)
    return asked


def test_a_slow_start_is_tried_again(monkeypatch):
    asked = starts(monkeypatch, SLOW, None)
    ray_cluster.start_ray()
    assert [settings["address"] for settings in asked] == ["local", "local"]


def test_three_slow_starts_are_the_end_in_words(monkeypatch):
    starts(monkeypatch, SLOW, SLOW, SLOW)
    with pytest.raises(RuntimeError, match="30 s, 3 times: is this machine overloaded"):
        ray_cluster.start_ray()


def test_any_other_failure_is_not_tried_again(monkeypatch):
    asked = starts(monkeypatch, ValueError("no"), None)
    with pytest.raises(ValueError, match="no"):
        ray_cluster.start_ray()
    assert len(asked) == 1
