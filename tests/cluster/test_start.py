"""How Ray is started, or joined, and what is left as it was."""

import signal

import pytest

from rlvr.cluster import ray_cluster
from rlvr.config import RecipeError
from tests import toy

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


def test_rays_client_is_refused_in_words():
    with pytest.raises(RecipeError, match=r"cluster.address=ray://head:10001: .* on a node .* cluster.address=auto"):
        ray_cluster.check_address("ray://head:10001")


@pytest.mark.parametrize("before", [lambda *_: None, signal.SIG_DFL], ids=["ours", "the default"])
def test_a_sigterm_stays_with_whoever_waits_for_it(monkeypatch, before):
    def init(**_) -> None:
        during.append(signal.getsignal(signal.SIGTERM))
        ray_cluster.ray._private.utils.set_sigterm_handler(theirs)
        during.append(signal.getsignal(signal.SIGTERM))

    def theirs(*_) -> None:
        """Ray's: ends the process."""

    monkeypatch.setattr(ray_cluster.ray, "init", init)
    monkeypatch.setattr(ray_cluster.RayCluster, "_start", lambda cluster: None)
    during: list = []
    saved = signal.signal(signal.SIGTERM, before)
    try:
        ray_cluster.RayCluster(toy.recipe(1)).__enter__()
        after = before if callable(before) else theirs
        assert during == [before, after] and signal.getsignal(signal.SIGTERM) is after
    finally:
        signal.signal(signal.SIGTERM, saved)
