"""`rlvr export`: which checkpoint becomes a model, and where it lies."""

import json
import os
import signal
from contextlib import contextmanager
from pathlib import Path

import pytest

from rlvr import cli
from tests import toy
from tests.cli.conftest import refusal


@pytest.fixture
def run(run_folder, monkeypatch):
    """A run of 9 steps with checkpoints every 3, whose trainer is a toy."""
    cfg = toy.recipe(9, every=3)
    cfg.checkpoint.keep = 9
    toy.run(run_folder / "checkpoints", cfg)

    @contextmanager
    def training(cfg):
        yield toy.ToyTrainer(set()), False

    monkeypatch.setattr("rlvr.export_checkpoint.training", training)
    return run_folder


def weights(folder) -> list[float]:
    return json.loads((folder / "weights.json").read_text())


def saved(run, step: int) -> list[float]:
    (folder,) = (run / "checkpoints").glob(f"step-{step:08d}-*")
    return weights(folder / "trainer")


def test_the_newest_checkpoint_or_the_one_of_a_step_becomes_a_model(capsys, tmp_path, run):
    assert cli.main(["export", str(run)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(run / "model-00000009")
    assert weights(run / "model-00000009") == saved(run, 9)
    assert cli.main(["export", str(run), "--step", "3", "--to", str(tmp_path / "three")]) == 0
    assert weights(tmp_path / "three") == saved(run, 3) != saved(run, 9)
    assert not (run / "model").exists(), "the run's own is not touched"


def test_what_cannot_be_exported_is_refused_in_a_line_and_nothing_is_lost(capsys, tmp_path, run):
    assert f"--step 4: {run} has no checkpoint of that step; it has 0, 3, 6, 9" in refusal(
        capsys, "export", str(run), "--step", "4"
    )
    (tmp_path / "there").mkdir()
    assert "there exists" in refusal(capsys, "export", str(run), "--to", str(tmp_path / "there"))
    assert "is no run folder" in refusal(capsys, "export", str(tmp_path / "there"))
    (folder,) = (run / "checkpoints").glob("step-00000006-*")
    (folder / "trainer" / "weights.json").write_text("[0, 0]")
    assert cli.main(["export", str(run), "--step", "6"]) in (1, 2)
    assert f"checkpoint {folder.name} is damaged" in capsys.readouterr().err
    assert folder.is_dir(), "whoever wants to resume is to find it as it was"
    assert not (run / "model-00000006").exists()


def test_what_the_recipe_cannot_have_is_refused_before_anything_starts(capsys, run):
    """Ranks of one process would wait for one another for ever."""
    two = ("cluster.kind=inline", "trainer.ranks=2")
    assert "cluster=inline is one process: trainer.ranks=2" in refusal(capsys, "export", str(run), *two)
    assert "trainer.zero_stage=7" in refusal(capsys, "export", str(run), "trainer.zero_stage=7")
    assert "model.path=/nowhere" in refusal(capsys, "export", str(run), "model.path=/nowhere")
    assert cli.main(["export", str(run), "rollout.workers=3", "rollout.max_staleness=2", "cluster.kind=inline"]) == 0


def test_an_export_that_is_interrupted_leaves_nothing(capsys, run, monkeypatch):
    def export(trainer, folder):
        folder = Path(folder)
        folder.mkdir()
        (folder / "half").write_text("")
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(toy.ToyTrainer, "export", export)
    before = {path.name for path in run.iterdir()}
    assert cli.main(["export", str(run)]) == 130
    assert {path.name for path in run.iterdir()} - before <= {".lock", "metrics.jsonl", "events.jsonl"}


def test_a_run_without_checkpoints_has_nothing_to_export(capsys, run_folder):
    assert f"{run_folder} has no checkpoints" in refusal(capsys, "export", str(run_folder))
    assert not (run_folder / "checkpoints").exists()
