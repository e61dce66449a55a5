"""A model is evaluated and exported with real Ray, vLLM and DeepSpeed, and says what its run said of it."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.test_deaths import actors, events, finish, rlvr, until

pytestmark = pytest.mark.slow
TINY = Path(__file__).resolve().parents[2] / "recipes" / "tiny"


def evaluation(run: Path, step: int) -> dict:
    told = map(json.loads, (run / "events.jsonl").read_text().splitlines())
    return next(e["fields"] for e in told if e["kind"] == "evaluation" and e["fields"]["step"] == step)


def test_an_engine_dies_in_mid_evaluation_and_the_model_is_as_good_as_its_run_said(tmp_path):
    run, out = tmp_path / "run", tmp_path / "found"
    words = ["steps=2", "evaluation.samples=4", "trainer.threads=1", "rollout.groups_per_step=4"]
    finish(rlvr("train", "quickstart", *words, f"run.folder={run}"))
    log = tmp_path / "log"
    command = [sys.executable, "-m", "rlvr.cli", "evaluate", str(run), "--out", str(out)]
    with log.open("w") as stdout:
        again = subprocess.Popen(command, stdout=stdout, stderr=subprocess.STDOUT, cwd=tmp_path)
    until(again, lambda: "evaluating on 200 problems: 200/400" in log.read_text())  # the greedy half
    assert not actors(again, "TrainerRank"), "nothing is trained"
    actors(again, "RolloutWorker")[0].send_signal(signal.SIGKILL)
    assert again.wait(400) == 0, log.read_text()
    assert "engine 0 died" in log.read_text() and "it is replaced" in log.read_text()
    assert "\x1b" not in log.read_text() and "raylet" not in log.read_text()
    own, found = evaluation(run, 2), json.loads((out / "summary.json").read_text())
    same = ("eval/problems", "eval/accuracy_greedy", "eval/accuracy_sampled", "eval/pass_at_4", "eval/length_mean")
    assert {name: own[name] for name in same} == {name: found["metrics"][name] for name in same}
    texts = [[json.loads(line)["completion"] for line in path.read_text().splitlines()]
             for path in (run / "evaluations" / "step-000002.jsonl", out / "completions.jsonl")]  # fmt: skip
    assert texts[0] == texts[1] and len(texts[0]) == 5 * 200
    finish(rlvr("export", str(run), "--step", "0", "--to", str(tmp_path / "zero")))
    assert (tmp_path / "zero" / "model.safetensors").read_bytes() == (TINY / "model.safetensors").read_bytes()
    assert not events(run, "error")
