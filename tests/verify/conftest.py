"""Verifiers of one's own, and a run that was judged by them."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from rlvr.observe.files import to_json
from rlvr.records import completion_records
from rlvr.reward_config import PartConfig, RewardConfig
from rlvr.types import Completion, Group, Prompt
from rlvr.verify import Judge

PLUGIN = """
from rlvr.verify import verifier

def unusable(answer, word="four"):
    return f"it says {word}" if answer == word else None

@verifier("ends", check_answer=unusable)
def ends(sample, scale: float = 1.0):
    return scale * sample.completion.endswith(str(sample.answer) + sample.row.get("tail", ""))

def always(sample):
    return 1.0

@verifier("longest", scope="batch")
def longest(samples):
    most = max(len(sample.completion) for sample in samples)
    return [float(len(sample.completion) == most) for sample in samples]
"""

CONFIG = """
name: mine
steps: 1
model: {path: nowhere}
data: {train: nothing.jsonl}
reward: {parts: {ends: {verifier: "%s:ends"}, half: {verifier: "%s:ends", params: {scale: 0.5}}}}
algorithm:
  _target_: rlvr.objective.Objective
  advantage: {_partial_: true, _target_: rlvr.objective.advantages.standardize}
  ratio: {_partial_: true, _target_: rlvr.objective.ratios.token}
  surrogate: {_partial_: true, _target_: rlvr.objective.surrogates.clip, low: 0.2, high: 0.2}
  weighting: {_partial_: true, _target_: rlvr.objective.weightings.sequence_mean}
"""


@pytest.fixture(autouse=True)
def own_path(monkeypatch):
    """Commands add the folder that they are started in."""
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture
def own(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(PLUGIN)
    return tmp_path


@pytest.fixture
def run_folder(own) -> Path:
    """A run that recorded two groups, whose second verdict was forged afterwards."""
    folder = own / "run"
    (folder / "completions").mkdir(parents=True)
    (folder / "config.yaml").write_text(CONFIG % (own / "mine.py", own / "mine.py"))
    parts = {
        "ends": PartConfig(f"{own}/mine.py:ends"),
        "half": PartConfig(f"{own}/mine.py:ends", {"scale": 0.5}),
    }
    completions = tuple(Completion((1, 2), (True,) * 2, (0.0,) * 2, 0, text, "eos") for text in ("5!", "6"))
    prompts = [Prompt(f"p{n}", n, ({"role": "user", "content": "q"},), (1,), "5", row={"tail": "!"}) for n in range(2)]
    judge = Judge(RewardConfig(parts), 1)
    groups = judge.verify_groups([Group(prompt, completions) for prompt in prompts])
    judge.close()
    forged = groups[0].verdicts[1]
    where = replace(forged.provenance[0], reward=1.0, reason="right")
    forged = replace(forged, reward=1.5, provenance=(where, *forged.provenance[1:]))
    groups[0] = replace(groups[0], verdicts=(groups[0].verdicts[0], forged))
    lines = [to_json(record) for record in completion_records(groups)]
    (folder / "completions" / "step-000003.jsonl").write_text("\n".join(lines) + "\n")
    return folder
