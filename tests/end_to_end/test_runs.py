"""The command line with real Ray, vLLM and DeepSpeed, as a user has it. A minute or two each."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic, sleep

import psutil
import pytest

pytestmark = pytest.mark.slow
# where the engine is not what is tested: it starts sooner
TRANSFORMERS = "rollout.engine=transformers"
SMALL = ["steps=3", "evaluation.limit=16", "rollout.groups_per_step=4", "checkpoint.every=1", "trainer.threads=1"]

ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / "recipes" / "tiny"
OF_RUN = "RLVR_TESTED_RUN"
COLOCATED = ["cluster=one_gpu", "rollout.workers=2", "trainer.ranks=2", "trainer.zero_stage=3"]


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "rlvr.cli", *words]


def rlvr(*words: str, cwd: Path | None = None, **told: str) -> subprocess.CompletedProcess:
    quiet: dict = {"capture_output": True, "text": True, "check": False}
    return subprocess.run(command(*words), **quiet, timeout=400, env=os.environ | told, cwd=cwd)


def rows(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def left_of(run: Path) -> list[str]:
    """What it started and did not end, wherever that hangs now: it was told of the run in its environment."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if process.environ().get(OF_RUN) == str(run):
                found.append(" ".join(process.cmdline()) or process.name())
    return found


def trained(run: Path, *overrides: str) -> Path:
    done = rlvr("train", "quickstart", *SMALL, *overrides, f"run.folder={run}", **{OF_RUN: str(run)})
    assert done.returncode == 0, done.stderr[-3000:]
    return run


@pytest.fixture(scope="module")
def default(tmp_path_factory) -> Path:
    """A run through Ray with vLLM."""
    return trained(tmp_path_factory.mktemp("default") / "run")


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["trainer.ranks=2", "trainer.zero_stage=2", "algorithm=dapo"],
        [TRANSFORMERS, "algorithm=dr_grpo", *COLOCATED],
    ],
    ids=["default", "two ranks, dapo", "transformers, dr_grpo, colocated"],
)
def test_a_recipe_runs_through_ray_and_leaves_a_complete_folder(request, tmp_path, overrides):
    run = trained(tmp_path / "run", *overrides) if overrides else request.getfixturevalue("default")
    assert [row["step"] for row in rows(run)] == [1, 2, 3]
    summary = json.loads((run / "summary.json").read_text())
    assert summary["steps"] == 3 and summary["accuracy_before"] is not None and summary["accuracy_after"] is not None
    assert all(row["transfer/probe_rms"] < 3e-4 and row["mismatch/max_abs"] < 1e-2 for row in rows(run))
    assert len(list((run / "completions").glob("*.jsonl"))) == 3
    from transformers import AutoModelForCausalLM

    assert AutoModelForCausalLM.from_pretrained(run / "model").config.tie_word_embeddings
    assert left_of(run) == []


def test_ray_and_one_process_give_the_same_numbers(default, tmp_path):
    same = ["policy/loss", "policy/grad_norm", "policy/entropy", "reward/mean", "tokens/sampled", "tokens/trained"]
    inline = trained(tmp_path / "run", "cluster=inline")
    for one, other in zip(rows(inline), rows(default), strict=True):
        assert {name: one.get(name) for name in same} == {name: other.get(name) for name in same}


@pytest.fixture
def short_tmp():
    """For a run that is killed, and clears nothing away; sockets in it need a short path."""
    with TemporaryDirectory(prefix="t-", ignore_cleanup_errors=True) as folder:
        yield folder


def test_a_run_that_samples_ahead_is_killed_and_resumes_where_it_was(tmp_path, short_tmp):
    """What was begun ahead is sampled again; on the way from weights in mid-decoding to engines that finish first."""
    run = tmp_path / "run"
    words = ["train", "quickstart", *SMALL, "steps=6", "rollout.refill_rounds=0", "rollout.max_staleness=1"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    environment = os.environ | {OF_RUN: str(run), "TMPDIR": short_tmp}
    started = subprocess.Popen(command(*words, f"run.folder={run}"), **quiet, env=environment)
    deadline = monotonic() + 300
    while not (run / "metrics.jsonl").exists() or len(rows_so_far(run)) < 2:
        assert started.poll() is None and monotonic() < deadline
        sleep(0.2)
    started.send_signal(signal.SIGKILL)
    started.wait()
    resumed = rlvr("resume", str(run), "rollout.update_in_flight=false")
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    done = rows(run)
    assert [row["step"] for row in done] == list(range(1, 7))
    assert max(row["staleness/max"] for row in done[-3:]) == 1 and done[-1]["staleness/updated"] == 0
    assert all(row["groups/sampled"] == 4 for row in done)
    records = [json.loads(line) for path in (run / "completions").iterdir() for line in path.read_text().splitlines()]
    trained = [(record["position"], record["index"]) for record in records]
    assert len(trained) == len(set(trained)) and {position for position, _ in trained} <= set(range(6 * 4))
    assert left_of(run) == []


def rows_so_far(run: Path) -> list[str]:
    return (run / "metrics.jsonl").read_text().splitlines()


def test_more_gpus_than_there_are_is_said_in_one_line(tmp_path):
    done = rlvr(
        "train", "quickstart", "cluster.gpus_per_engine=64", f"run.folder={tmp_path / 'run'}", "log.console=false"
    )
    assert done.returncode == 2
    said = done.stderr.strip().splitlines()[-1]
    assert "64 GPUs asked for" in said and "the cluster has " in said
    assert not (tmp_path / "run").exists()


def stepped(run: Path) -> bool:
    return (run / "metrics.jsonl").exists() and bool(rows_so_far(run))


def starts(run: Path) -> bool:
    return any("raylet" in line for line in left_of(run))


@pytest.mark.parametrize(
    ("asked", "when", "least"),
    [(signal.SIGINT, stepped, 1), (signal.SIGTERM, stepped, 1), (signal.SIGTERM, starts, 0)],
    ids=["ctrl-c", "preempted", "preempted while it starts"],
)
def test_a_signal_ends_it_with_a_checkpoint_and_nothing_left_behind(tmp_path, asked, when, least):
    run = tmp_path / "run"
    words = ["train", "quickstart", *SMALL, TRANSFORMERS, "steps=50", f"run.folder={run}"]
    quiet, environment = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}, os.environ | {OF_RUN: str(run)}
    started = subprocess.Popen(command(*words), **quiet, env=environment, start_new_session=True)
    deadline = monotonic() + 300
    while not when(run):
        assert started.poll() is None and monotonic() < deadline
        sleep(0.2)
    assert any("raylet" in line for line in left_of(run)), "it would be seen"
    os.killpg(started.pid, asked)  # as a terminal and a scheduler do: all that the run has started is in the group
    assert started.wait(timeout=120) == 3
    last = len(rows(run))
    assert last >= least and json.loads((run / "summary.json").read_text())["steps"] == last
    assert any(f"step-{last:08d}" in path.name for path in (run / "checkpoints").iterdir())
    assert left_of(run) == []


RAY = str(Path(sys.executable).with_name("ray"))


@contextmanager
def running_cluster(folder: Path):
    """A head that was started in this folder; its address."""
    head = [RAY, "start", "--head", "--port=0", "--include-dashboard=false", "--num-cpus=2", "--disable-usage-stats"]
    said = folder / "head.log"
    # in a session of its own, to end just this one: `ray stop` would end every Ray on the machine
    with said.open("w") as log:
        started = subprocess.Popen([*head, "--block"], stdout=log, stderr=log, start_new_session=True, cwd=folder)
    try:
        deadline = monotonic() + 120
        while not (found := re.search(r"--address='([\d.:]+)'", said.read_text())):
            assert started.poll() is None and monotonic() < deadline, said.read_text()[-3000:]
            sleep(0.2)
        address = found[1]
        yield address
    finally:
        started.terminate()  # it ends the processes that it has started
        started.wait(timeout=120)
    assert not [p for p in psutil.process_iter(["cmdline"]) if address in " ".join(p.info["cmdline"] or [])]


def test_workers_find_what_the_driver_finds_though_they_join_a_ray_that_was_started_elsewhere(tmp_path):
    """The model by a relative path; a verifier of the current folder; a verifier and the objective of
    docs/own_variant.md in --config-dir. The Ray is joined by its address, and goes on after the run."""
    elsewhere, work, mine = tmp_path / "elsewhere", tmp_path / "work", tmp_path / "work" / "mine"
    elsewhere.mkdir()
    (mine / "algorithm").mkdir(parents=True)
    shutil.copytree(TINY, work / "model")
    (work / "my_form.py").write_text("def form(sample):\n    return float(len(sample.completion) > 9)\n")
    (mine / "my_answer.py").write_text("def answer(sample, evaluated):\n    return float(len(sample.completion) % 2)\n")
    text = (ROOT / "docs" / "own_variant.md").read_text()
    for kind, name in (("python", "my_objective.py"), ("yaml", "algorithm/hardest_first.yaml")):
        (mine / name).write_text(re.search(rf"```{kind}\n(.*?)```", text, re.S)[1])
    own = ["--config-dir", "mine", "algorithm=hardest_first", "model.path=./model", "run.folder=run"]
    own += ["reward.parts.math.verifier=my_answer:answer", "reward.parts.format.verifier=my_form:form"]
    with running_cluster(elsewhere) as address:
        joined = [TRANSFORMERS, "cluster=ray", f"cluster.address={address}"]
        done = rlvr("train", "quickstart", *SMALL, "steps=1", "data.heldout=null", *own, *joined, cwd=work)
        assert done.returncode == 0, done.stderr[-3000:]
        with_token = os.environ | {"RAY_AUTH_MODE": "token"}
        status = [RAY, "status", f"--address={address}"]
        assert subprocess.run(status, capture_output=True, timeout=120, check=False, env=with_token).returncode == 0
    assert len(rows(work / "run")) == 1 and (work / "run" / "model" / "model.safetensors").exists()
    assert "my_objective.hardest_first" in (work / "run" / "config.yaml").read_text()
    assert [path.name for path in elsewhere.iterdir()] == ["head.log"]


def test_an_address_where_nothing_listens_is_said_at_once_and_leaves_no_folder(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    done = rlvr("train", "quickstart", "cluster=ray", f"cluster.address={address}", f"run.folder={tmp_path / 'run'}")
    assert done.returncode == 1 and f"cluster.address={address}: no Ray cluster answers there" in done.stderr
    assert not (tmp_path / "run").exists()
