"""A process that is killed while it builds an extension blocks no other."""

import multiprocessing
import os
import signal

from rlvr.train.extensions import alone_in


def build_for_ever(folder, asking, inside) -> None:
    asking.set()
    with alone_in(folder):
        (folder / "op").mkdir()
        (folder / "op" / "lock").touch()
        inside.set()
        signal.pause()


def test_what_a_killed_process_left_behind_is_removed(tmp_path):
    context = multiprocessing.get_context("spawn")
    asking, inside = context.Event(), context.Event()
    builder = context.Process(target=build_for_ever, args=(tmp_path, asking, inside))
    builder.start()
    assert inside.wait(60)
    os.kill(builder.pid, signal.SIGKILL)
    builder.join()
    assert (tmp_path / "op" / "lock").exists()
    with alone_in(tmp_path):
        assert not (tmp_path / "op" / "lock").exists()


def test_only_one_is_inside(tmp_path):
    context = multiprocessing.get_context("spawn")
    asking, inside = context.Event(), context.Event()
    builder = context.Process(target=build_for_ever, args=(tmp_path, asking, inside))
    with alone_in(tmp_path):
        builder.start()
        assert asking.wait(60) and not inside.wait(0.5)
    assert inside.wait(60)
    builder.kill()
    builder.join()
