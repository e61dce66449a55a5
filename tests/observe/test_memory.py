"""Peak memory is that of all the run's processes."""

import os
import subprocess
import sys

from rlvr.observe.memory import PeakMemory

MB = 100
HOLD = f"x = bytearray({MB} * 2**20); x[::4096] = b'1' * len(x[::4096]); print('ready', flush=True); input()"


def hold(stack: list) -> subprocess.Popen:
    child = subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    stack.append(child)
    assert child.stdout.readline() == "ready\n"
    return child


def end(child: subprocess.Popen) -> None:
    child.communicate("\n")


def test_the_memory_of_a_child_counts_and_its_peak_outlives_it():
    with PeakMemory(interval_s=3600) as memory:
        before = memory.peak_mb
        children: list[subprocess.Popen] = []
        hold(children)
        memory.sample()
        with_child = memory.current_mb
        end(children[0])
        memory._next_reading = 0.0  # a reading of its own: in between, the shared pages of a large parent blur it
        after = memory.sample()
    assert before > 5
    assert with_child - before > 0.9 * MB
    assert with_child - after > 0.9 * MB
    assert memory.peak_mb >= with_child - 1


def test_an_orphan_that_was_seen_still_counts():
    """Ray's workers outlive the daemon that started them."""
    start = f"subprocess.Popen([sys.executable, '-c', {HOLD!r}])"
    script = f"import subprocess, sys; print({start}.pid, flush=True); input()"
    with PeakMemory(interval_s=3600) as memory:
        parent = subprocess.Popen(
            [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        said = {parent.stdout.readline().strip(), parent.stdout.readline().strip()}
        orphan = next(int(word) for word in said if word != "ready")
        try:
            memory.sample()
            parent.kill()
            parent.wait()
            assert orphan in {pid for pid, _ in memory._tree()}
        finally:
            parent.stdin.close()  # the orphan reads the same pipe, and ends


def test_the_thread_samples_by_itself_and_ends():
    with PeakMemory(interval_s=0.01) as memory:
        child: list[subprocess.Popen] = []
        hold(child)
        while memory.peak_mb < 0.9 * MB:  # hangs if nobody samples
            memory._ended.wait(0.01)
        end(child[0])
    assert not memory._thread.is_alive()


def test_a_pid_that_was_given_again_is_somebody_elses(tmp_path):
    def process(pid: int, parent: int, start: int) -> None:
        (tmp_path / str(pid)).mkdir(exist_ok=True)
        others = " ".join(["0"] * 17)
        (tmp_path / str(pid) / "stat").write_text(f"{pid} (a (b) c) S {parent} {others} {start} 0 0\n")

    me = os.getpid()
    process(me, 1, 5)
    process(me + 1, me, 10)
    memory = PeakMemory(proc=tmp_path)
    assert memory._tree() == {(me, 5), (me + 1, 10)}
    process(me + 1, 1, 10)  # an orphan, and still ours
    assert memory._tree() == {(me, 5), (me + 1, 10)}
    process(me + 1, 1, 99)
    process(me + 2, me + 1, 100)
    assert memory._tree() == {(me, 5)}
