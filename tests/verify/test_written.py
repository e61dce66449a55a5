"""What docs/verifiers.md and docs/migrating.md show works as it is written, for somebody who types it."""

import json
import re
import shlex
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from rlvr import cli
from rlvr.config import Recipe
from rlvr.verify.plan import Plan

DOCS = Path(__file__).resolve().parents[2] / "docs"


def blocks(page: str, kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


def reward(block: str):
    recipe = OmegaConf.merge(OmegaConf.structured(Recipe), OmegaConf.create(block))
    return OmegaConf.to_object(recipe.reward)


@pytest.fixture
def typed(tmp_path, monkeypatch) -> Path:
    """A folder in which the verifier of the first page has been written."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "parity.py").write_text(blocks("verifiers.md", "python")[0])
    return tmp_path


def test_a_verifier_is_written_in_ten_lines_tried_and_tested(typed, capsys):
    assert len(blocks("verifiers.md", "python")[0].strip().splitlines()) <= 10
    echo, run, test = blocks("verifiers.md", "bash")[0].strip().splitlines()
    (typed / "samples.jsonl").write_text(shlex.split(echo)[1] + "\n")
    assert cli.main(shlex.split(run, comments=True)[1:]) == 0
    assert json.loads(capsys.readouterr().out)["reward"] == 1.0
    assert cli.main(shlex.split(test, comments=True)[1:]) == 0, capsys.readouterr().out


def test_recipes_of_the_page_are_recipes(typed):
    (typed / "strict.py").write_text("def strict(sample):\n    return True\n")
    first, _, several = blocks("verifiers.md", "yaml")
    assert Plan(reward(first)).chains["parity"][0].params == {"even": True}
    plan = Plan(reward(several))
    assert [a.reference for a in plan.chains["answer"]] == ["math", "judge"] and set(plan.audits) == {"answer"}


def test_the_whole_recipe_of_the_page_is_one(typed, capsys):
    (typed / "mine.yaml").write_text(blocks("verifiers.md", "yaml")[1])
    assert cli.main(["train", "mine.yaml", "--dry-run"]) == 0, capsys.readouterr().err
    assert "reward     parity x1" in capsys.readouterr().out


def test_the_test_of_the_page_passes(typed):
    code = next(block for block in blocks("verifiers.md", "python") if "assert_sound" in block)
    names: dict = {}
    exec(code, names)
    names["test_parity_is_sound"]()


def test_recipes_for_their_functions_are_recipes(typed):
    code = blocks("migrating.md", "python")[0]
    (typed / "rewards.py").write_text(code)
    (typed / "my_score.py").write_text("def compute_score(data_source, solution_str, ground_truth, extra_info): ...\n")
    trl, verl = (Plan(reward(block)) for block in blocks("migrating.md", "yaml"))
    assert trl.chains["accuracy"][0].verifier.name == "accuracy"
    names: dict = {}
    exec(code, names)
    assert names["style"]([[{"role": "assistant", "content": "short"}]], prompts=["q"]) == [1.0]
    assert verl.chains["score"][0].params == {"data_source": "openai/gsm8k"}
