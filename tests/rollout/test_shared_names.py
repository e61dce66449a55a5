"""What an engine's processes share loses its name once all have opened it: no kill can then leave it behind."""

from multiprocessing import get_context, resource_tracker
from time import monotonic, sleep
from types import SimpleNamespace

import psutil
import pytest

from rlvr.rollout import vllm

pytestmark = pytest.mark.skipif(not vllm.SHARED.exists(), reason="no /dev/shm")


def test_a_lock_that_a_child_has_opened_works_on_without_its_name(monkeypatch):
    unregistered = []
    unregister = resource_tracker.unregister
    monkeypatch.setattr(resource_tracker, "unregister", lambda *what: unregistered.append(what) or unregister(*what))
    context = get_context("spawn")
    lock, later = context.Lock(), context.Lock()  # which no child has opened yet
    named, unopened = (vllm.SHARED / f"sem.{one._semlock.name[1:]}" for one in (lock, later))
    lock.acquire()
    child = context.Process(target=lock.__enter__, daemon=True)
    child.start()
    try:
        opened, deadline = psutil.Process(child.pid), monotonic() + 60
        while str(named) not in (mapped.path for mapped in opened.memory_maps()):
            assert monotonic() < deadline and child.is_alive()
            sleep(0.05)
        vllm.without_names(SimpleNamespace(children=lambda: [opened], memory_maps=psutil.Process().memory_maps))
        assert not named.exists() and unopened.exists()
        assert unregistered == [(lock._semlock.name, "semaphore")]
        lock.release()
        child.join(60)
        assert child.exitcode == 0
    finally:
        child.kill()
        if not named.exists():  # Python looks for it when the lock goes
            named.touch()
            resource_tracker.register(lock._semlock.name, "semaphore")
