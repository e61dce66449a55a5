"""A sweep that is told to stop, or killed, and the run that it has going."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep

import psutil
import pytest

from rlvr.signals import TOGETHER_S
from tests.cli.conftest import started_names

AS_ONE = """
import signal, sys
from rlvr import cli, sweep

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the suite may run under nohup
sweep.TRAIN = [sys.executable, sys.argv[1]]
sweep.check = lambda *_: None
sys.exit(cli.main(["sweep", *sys.argv[2:]]))
"""


class Sweeping:
    """`rlvr sweep` of fake runs as a process, at the head of its own process group, as in a terminal."""

    def __init__(self, tmp_path: Path, *words: str):
        self.log = tmp_path / "log"
        self.process = subprocess.Popen(
            [sys.executable, "-c", AS_ONE, str(tmp_path / "fake_train.py"), *words, "--folder", "here"],
            cwd=tmp_path, process_group=0, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def until(self, there, seconds: float = 60) -> None:
        end = monotonic() + seconds
        while not there():
            assert monotonic() < end and self.process.poll() is None
            sleep(0.02)

    def until_runs(self, count: int) -> None:
        self.until(lambda: self.log.exists() and len(self.log.read_text().splitlines()) == count)

    def heard(self) -> list[int]:
        heard = self.log.with_name("log.heard")
        return [int(line) for line in heard.read_text().splitlines()] if heard.exists() else []

    def hears_twice(self, number: int) -> None:
        for count in (1, 2):
            sleep(TOGETHER_S)
            self.process.send_signal(number)
            self.until(lambda n=count: len(self.heard()) == n)

    def ends(self, code: int) -> str:
        out, _ = self.process.communicate(timeout=60)
        assert self.process.returncode == code, out
        return out


@pytest.fixture
def sweeping(tmp_path, train):
    """Whatever a test starts is ended with it."""
    made = []

    def start(*words: str) -> Sweeping:
        made.append(Sweeping(tmp_path, *words))
        return made[-1]

    yield start
    for one in made:
        one.process.kill()
    with suppress(OSError, ValueError, psutil.NoSuchProcess):
        run = psutil.Process(int((tmp_path / "log.pid").read_text()))
        if str(tmp_path / "fake_train.py") in run.cmdline():
            run.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_all_of_its_group_reaches_the_run_once_and_no_other_is_begun(tmp_path, sweeping, train, number):
    train({"seed=1": "wait"})
    one = sweeping("quickstart", "seed=0,1,2")
    one.until_runs(2)
    os.killpg(one.process.pid, number)
    said = one.ends(3)
    assert one.heard() == [signal.SIGINT if number == signal.SIGINT else signal.SIGTERM]
    assert said.splitlines()[-3:] == ["1 of 3 runs finished in here", "  seed=1: interrupted", "  seed=2: not begun"]
    train({})
    again = sweeping("quickstart", "seed=0,1,2")
    assert again.ends(0).splitlines()[-1] == "3 of 3 runs finished in here"
    assert started_names(tmp_path) == ["seed=0", "seed=1", "seed=1", "seed=2"]


def test_a_second_signal_ends_the_run_and_a_third_kills_what_does_not_hear(sweeping, train):
    train({"seed=0": "slow"})
    one = sweeping("quickstart", "seed=0,1")
    one.until_runs(1)
    one.hears_twice(signal.SIGINT)
    assert "  seed=0: interrupted\n" in one.ends(130)
    train({"seed=0": "deaf"})
    one.log.with_name("log.heard").unlink()
    deaf = sweeping("quickstart", "seed=0,1")
    deaf.until_runs(2)
    deaf.hears_twice(signal.SIGTERM)
    sleep(TOGETHER_S)
    assert deaf.process.poll() is None
    deaf.process.send_signal(signal.SIGTERM)
    assert "seed=0: interrupted (exit code -9)" in deaf.ends(130)


def test_a_signal_in_a_last_run_that_finishes_all_the_same_takes_nothing_away(sweeping, train):
    train({"seed=1": "late"})
    one = sweeping("quickstart", "seed=0,1")
    one.until_runs(2)
    one.process.send_signal(signal.SIGTERM)
    assert one.ends(0).splitlines()[-1] == "2 of 2 runs finished in here"


def test_a_run_that_outlives_its_killed_sweep_is_not_begun_beside_itself(tmp_path, sweeping, train):
    train({"seed=0": "wait"})
    one = sweeping("quickstart", "seed=0,1")
    one.until_runs(1)
    one.process.kill()
    one.process.wait(30)
    again = subprocess.run(
        [sys.executable, "-c", AS_ONE, "nothing.py", "quickstart", "seed=0,1", "--folder", "here"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    said = "rlvr: --folder here: another process is running this sweep, or a run of it\n"
    assert (again.returncode, again.stderr) == (2, said)
    run = psutil.Process(int((tmp_path / "log.pid").read_text()))
    run.terminate()
    run.wait(30)
    train({})
    sweeping("quickstart", "seed=0,1").ends(0)
