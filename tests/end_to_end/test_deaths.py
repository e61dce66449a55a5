"""Workers of a real run are killed while it is going on: it goes on by itself, says so, and ends with the same weights
as a run that was left alone.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep

import psutil
import pytest

pytestmark = pytest.mark.slow
RECIPE = [
    "steps=8", "data.heldout=null", "rollout.groups_per_step=4", "rollout.refill_rounds=0", "checkpoint.every=2",
    "checkpoint.probation=1", "trainer.threads=1", "trainer.ranks=2", "trainer.zero_stage=2", "verify.processes=1",
    "log.console=false",
]  # fmt: skip


def start(folder: Path, *words: str) -> subprocess.Popen:
    return rlvr("train", "quickstart", *RECIPE, *words, f"run.folder={folder}")


def rlvr(*words: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "rlvr.cli", *words]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def steps(run: Path) -> list[dict]:
    path = run / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def events(run: Path, kind: str) -> list[str]:
    told = map(json.loads, (run / "events.jsonl").read_text().splitlines())
    return [event["message"] for event in told if event["kind"] == kind]


def actors(run: subprocess.Popen, kind: str) -> list[psutil.Process]:
    """Ray names a worker's process after its actor."""
    found = psutil.Process(run.pid).children(recursive=True)
    return [process for process in found if f"ray::{kind}" in " ".join(process.cmdline())]


def until(run: subprocess.Popen, reached: Callable[[], bool]) -> None:
    deadline = monotonic() + 400
    while not reached():
        assert run.poll() is None, run.stderr.read()[-3000:] if run.stderr else ""
        assert monotonic() < deadline
        sleep(0.05)


def finish(run: subprocess.Popen) -> None:
    _, said = run.communicate(timeout=400)
    assert run.returncode == 0, said[-3000:]


def test_engine_verifier_and_trainer_rank_die_and_the_weights_are_those_of_a_run_left_alone(tmp_path):
    alone, hit = tmp_path / "alone", tmp_path / "hit"
    finish(start(alone))
    run = start(hit)
    for step, kind in ((1, "RolloutWorker"), (2, "VerifierWorker"), (5, "TrainerRank"), (7, "RolloutWorker")):
        until(run, lambda step=step, kind=kind: len(steps(hit)) >= step and len(actors(run, kind)) > 0)
        actors(run, kind)[-1].send_signal(signal.SIGKILL)
    finish(run)
    warned, restarted = events(hit, "warning"), events(hit, "restart")
    assert sum("engine 0 died" in text for text in warned) >= 1
    assert sum("verifier worker 0 died" in text for text in warned) == 1
    assert len(restarted) == 1 and "all 2 were started again, and go on from the newest checkpoint" in restarted[0]
    assert [row["step"] for row in steps(hit)] == list(range(1, 9))
    same = ("policy/loss", "policy/grad_norm", "reward/mean", "tokens/sampled", "tokens/trained")
    for one, other in zip(steps(alone), steps(hit), strict=True):
        assert {name: one.get(name) for name in same} == {name: other.get(name) for name in same}
    weights = [(folder / "model" / "model.safetensors").read_bytes() for folder in (alone, hit)]
    assert weights[0] == weights[1]


def test_a_rank_that_dies_again_and_again_is_a_clean_end_that_can_be_resumed(tmp_path):
    alone = ["trainer.ranks=1", "trainer.zero_stage=0", "rollout.engine=transformers"]
    run = start(tmp_path / "run", "cluster.restarts=0", *alone)
    until(run, lambda: len(steps(tmp_path / "run")) >= 3)
    actors(run, "TrainerRank")[0].send_signal(signal.SIGKILL)
    _, said = run.communicate(timeout=400)
    assert run.returncode == 1
    assert "trainer rank 0 died" in said and "cluster.restarts=0" in said
    finish(rlvr("resume", str(tmp_path / "run"), "cluster.restarts=1"))
    assert [row["step"] for row in steps(tmp_path / "run")] == list(range(1, 9))


def test_a_run_that_samples_ahead_loses_nothing_to_the_death_of_an_engine(tmp_path):
    folder = tmp_path / "run"
    two = ["rollout.workers=2", "rollout.engine=transformers"]  # that vLLM's death costs nothing is seen above
    run = start(folder, "rollout.max_staleness=1", *two, "trainer.ranks=1", "trainer.zero_stage=0")
    until(run, lambda: len(steps(folder)) >= 2)
    actors(run, "RolloutWorker")[0].send_signal(signal.SIGKILL)
    finish(run)
    rows = steps(folder)
    assert [row["step"] for row in rows] == list(range(1, 9))
    assert {row["groups/sampled"] for row in rows} == {4}
    assert max(row["staleness/max"] for row in rows) == 1
    lines = [line for path in (folder / "completions").iterdir() for line in path.read_text().splitlines()]
    sampled = [(record["position"], record["index"]) for record in map(json.loads, lines)]
    assert len(sampled) == len(set(sampled)) and {position for position, _ in sampled} == set(range(32))
    last = max((folder / "checkpoints").glob("step-00000008-*")) / "state.json"
    assert json.loads(last.read_text())["state"]["cursor"] == 32  # eight steps of four prompts each


def shared_memory() -> set[str]:
    """Names that no process holds any more: others may be at work on this machine."""
    names = {name for name in os.listdir("/dev/shm") if name.startswith(("psm_", "vllm_dist_", "sem.mp-"))}
    held = ""
    for process in psutil.pids():
        with suppress(OSError):
            held += Path(f"/proc/{process}/maps").read_text()
    return {name for name in names if name not in held}


@pytest.fixture
def temporary(monkeypatch):
    """Where runs of this test alone keep what is temporary: a path that is short enough for Ray's sockets."""
    with tempfile.TemporaryDirectory(prefix="t") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)


def test_an_engine_in_two_parts_dies_with_one_of_them_and_is_replaced_whole(tmp_path, temporary):
    folder, before = tmp_path / "run", shared_memory()
    run = start(folder, "steps=4", "rollout.tensor_parallel=2", "trainer.ranks=1", "trainer.zero_stage=0")
    until(run, lambda: len(steps(folder)) >= 1)
    (engine,) = actors(run, "RolloutWorker")
    parts = [child for child in engine.children() if "resource_tracker" not in " ".join(child.cmdline())]
    assert len(parts) == 2
    (of_run,) = temporary.glob("rlvr-*")
    assert len(list(of_run.iterdir())) > 1  # sockets, and where the parts met
    parts[1].send_signal(signal.SIGKILL)
    finish(run)
    assert sum("engine 0 died" in text for text in events(folder, "warning")) == 1
    assert [row["step"] for row in steps(folder)] == [1, 2, 3, 4]
    assert max(row["mismatch/max_abs"] for row in steps(folder)) < 1e-3
    assert not [process for process in (engine, *parts) if process.is_running()]
    left = shared_memory() - before
    sleep(1)
    assert not left & shared_memory()  # another run may just have been making or removing its own
    assert [place.name for place in temporary.iterdir() if not place.name.startswith("torchinductor_")] == ["ray"]
