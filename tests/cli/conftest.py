"""A recipe of one's own, a run folder, and a run that is none; and what a refusal says."""

import json
import os
import re
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from rlvr import cli, sweep
from rlvr.compose import compose_recipe
from tests.data.tokenizers import model_folder

ALGORITHMS = ", ".join(sorted(p.stem for p in (Path(__file__).parents[2] / "recipes/algorithm").glob("*.yaml")))

RECIPE = """
defaults:
  - recipe_schema
  - algorithm: grpo
  - cluster: inline
  - _self_
name: mine
steps: 3
model: {path: nowhere}
data: {train: nothing.jsonl}
reward:
  parts:
    math: {verifier: math}
"""

ALGORITHM = """
_target_: rlvr.objective.Objective
advantage: {_partial_: true, _target_: my_objective.twice_the_mean}
ratio: {_partial_: true, _target_: rlvr.objective.ratios.token}
surrogate: {_partial_: true, _target_: rlvr.objective.surrogates.clip, low: 0.2, high: 0.2}
weighting: {_partial_: true, _target_: rlvr.objective.weightings.sequence_mean}
no_signal: keep
"""

MODULE = """
def twice_the_mean(rewards):
    return 2 * rewards.total_NG
"""


@pytest.fixture(autouse=True)
def untouched(monkeypatch):
    """What a command changes in its own process."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))


@pytest.fixture
def own(tmp_path) -> Path:
    """A user's own folder: a recipe, an algorithm, the Python behind it."""
    folder = tmp_path / "own"
    (folder / "algorithm").mkdir(parents=True)
    (folder / "mine.yaml").write_text(RECIPE)
    (folder / "algorithm" / "twice.yaml").write_text(ALGORITHM)
    (folder / "my_objective.py").write_text(MODULE)
    return folder


@pytest.fixture
def inputs(tmp_path) -> list[str]:
    """Overrides that give the recipe a model and data to look at."""
    for name, questions in (("train", ("1 + 1", "1 + 2", "2 + 2")), ("heldout", ("3 + 1",))):
        rows = [json.dumps({"problem": question, "answer": "2"}) for question in questions]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows))
    return [
        f"model.path={model_folder(tmp_path / 'model')}",
        f"data.train={tmp_path / 'train.jsonl'}",
        f"data.heldout={tmp_path / 'heldout.jsonl'}",
    ]


@pytest.fixture
def run_folder(tmp_path, inputs) -> Path:
    """As a run leaves it behind."""
    folder = tmp_path / "run"
    folder.mkdir()
    composed = compose_recipe("quickstart", inputs)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(composed, resolve=True))
    return folder


def refusal(capsys, *argv: str) -> str:
    """The one line that the command says before it exits with 2."""
    assert cli.main(list(argv)) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("rlvr: ") and said.err.count("\n") == 1
    return said.err.removeprefix("rlvr: ").rstrip("\n")


class Launched:
    """Stands in for the run itself: what it was asked to do, and how it ended."""

    def __init__(self, ends: str | BaseException) -> None:
        self.ends = ends

    def __call__(self, cfg, objective, inputs, folder, display):
        from rlvr.observe.summary import Summary

        self.cfg, self.inputs, self.folder = cfg, inputs, folder
        if isinstance(self.ends, BaseException):
            raise self.ends
        summary = Summary(cfg.name, cfg.seed, self.ends, cfg.steps, 1.0, 2.0, 3.0)
        folder.write_summary(summary)
        return summary


def launched(monkeypatch, ends: str | BaseException) -> Launched:
    from rlvr import run

    monkeypatch.setattr(run, "launch", launch := Launched(ends))
    return launch


# Stands in for `rlvr train`: ends as it is told, and as a run does when it is asked to stop.
TRAIN = """
import json, os, signal, sys, time
from pathlib import Path

folder = Path(next(w for w in sys.argv if w.startswith("run.folder=")).partition("=")[2].strip("'"))
does = json.loads(os.environ.get("DOES", "{}")).get(folder.name, "finished")
heard = []

def end(status, code):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "summary.json").write_text(json.dumps({"status": status, "wall_s": 60.0}))
    os._exit(code)

def asked(number, _):
    heard.append(number)
    with open(os.environ["LOG"] + ".heard", "a") as log:
        log.write(f"{number}\\n")
    if len(heard) == 2 and does != "deaf":
        os._exit(130)

for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, asked)
Path(os.environ["LOG"] + ".pid").write_text(str(os.getpid()))
with open(os.environ["LOG"], "a") as log:
    log.write(json.dumps(sys.argv[1:]) + "\\n")
print(folder.name, "runs", flush=True)
while does in ("wait", "late", "slow", "deaf"):
    time.sleep(0.3)  # a second signal of the same Ctrl-C would come by then
    if heard and does == "wait":
        end("interrupted", 3)
    if heard and does == "late":
        end("finished", 0)
if does in ("finished", "stopped", "interrupted"):
    end(does, 0 if does == "finished" else 3)
if does == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
sys.exit(int(does))
"""


@pytest.fixture
def train(tmp_path, monkeypatch):
    """A fake of it; `train({name: ...})` says what runs do that do not just finish."""
    script = tmp_path / "fake_train.py"
    script.write_text(TRAIN)
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    monkeypatch.setattr(sweep, "TRAIN", [sys.executable, str(script)])
    # whose verifiers need no process to look at the references
    monkeypatch.setattr("rlvr.inputs.leave_out", lambda plan, data: (list(data.values()), []))
    monkeypatch.chdir(tmp_path)
    return lambda does: monkeypatch.setenv("DOES", json.dumps(does))


def started(tmp_path) -> list[list[str]]:
    """The words of each `rlvr train`."""
    log = tmp_path / "log"
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def started_names(tmp_path) -> list[str]:
    return [re.search(r"run\.folder='(?:.*/)?(.*)'", " ".join(words))[1] for words in started(tmp_path)]
