"""How Ray is started, or joined, and what is left as it was."""

import signal
import tempfile
from pathlib import Path
from uuid import uuid4

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


@pytest.mark.parametrize("address", [None, ""])
def test_a_cluster_to_join_is_named(address):
    with pytest.raises(RecipeError, match=r"cluster=ray needs cluster\.address"):
        ray_cluster.check_address(address)


def test_a_port_that_is_none_is_a_line():
    with pytest.raises(ray_cluster.WorkerLost, match=r"^cluster\.address=127\.0\.0\.1:99999: no Ray cluster answers"):
        ray_cluster.check_address("127.0.0.1:99999")


@pytest.mark.parametrize(("kind", "said"), [("ray", "joined"), ("local", "started")])
def test_a_ray_that_cannot_be_had_is_a_line_that_says_how_it_was_wanted(monkeypatch, kind, said):
    starts(monkeypatch, ConnectionError("no route"))
    monkeypatch.setattr(ray_cluster, "check_address", lambda address: None)
    cfg = toy.recipe(1)
    cfg.cluster.kind = kind
    with pytest.raises(ray_cluster.WorkerLost, match=f"Ray could not be {said}: no route"):
        ray_cluster.RayCluster(cfg).__enter__()


@pytest.mark.parametrize("long", [False, True])
def test_a_start_that_fails_leaves_no_ray_and_nothing_temporary(monkeypatch, tmp_path, long):
    """And sockets would fit into what is temporary: their paths may have 107 bytes."""
    usual = tmp_path / ("x" * 60)
    usual.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(usual) if long else "/tmp")
    done, places = [], []
    monkeypatch.setattr(ray_cluster, "start_ray", lambda: done.append("start"))
    monkeypatch.setattr(ray_cluster.ray, "shutdown", lambda: done.append("shutdown"))

    def start(cluster):
        places.append(Path(cluster.temporary.name))
        (places[0] / "socket").touch()
        raise RecipeError("2 GPUs asked for")

    monkeypatch.setattr(ray_cluster.RayCluster, "_start", start)
    with pytest.raises(RecipeError, match="2 GPUs asked for"):
        ray_cluster.RayCluster(toy.recipe(1)).__enter__()
    assert done == ["start", "shutdown"]
    assert not places[0].exists() and len(f"{places[0]}/{uuid4()}") <= 107
