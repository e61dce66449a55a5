"""Extensions are compiled once, by this environment's tools, and a process that is killed meanwhile blocks no other."""

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

from rlvr.train.extensions import alone_in, with_own_tools


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


def test_another_ninja_on_the_path_compiles_nothing_anew():
    """Each version of ninja takes what another one has built for stale: a minute, at the start of a run."""
    bin_folder = str(Path(sys.executable).parent)
    assert with_own_tools("/usr/bin") == with_own_tools(with_own_tools("/usr/bin")) == f"{bin_folder}:/usr/bin"
    assert with_own_tools("") == bin_folder
    script = "import rlvr.train.deepspeed, shutil; print(shutil.which('ninja'))"
    environment = os.environ | {"PATH": "/usr/bin:/bin"}
    said = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert said.stdout.splitlines()[-1] == f"{bin_folder}/ninja"
