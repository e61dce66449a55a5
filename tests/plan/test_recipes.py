"""The recipes for real models: each composes, fits the devices in its name, and runs whole with a tiny model put in."""

import gzip
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rlvr import config
from rlvr.cli import main
from rlvr.compose import compose_recipe, typed

ROOT = Path(__file__).resolve().parents[2]
REAL = sorted(path.stem for path in (ROOT / "recipes").glob("qwen3_*.yaml"))
DATA = Path(os.environ.get("RLVR_SHARED_DATA", ROOT.parent / "shared" / "data"))


def tiny_for(name: str) -> str:
    return "tiny_code" if "_code_" in name else "tiny"


@pytest.mark.parametrize("name", REAL)
def test_a_recipe_fits_the_80_gb_devices_that_its_name_says(name, capsys):
    (size, kind) = re.search(r"_(\d)(gpu|nodes)$", name).groups()
    count = int(size) * (8 if kind == "nodes" else 1)
    assert main(["plan", name, "--gpu", "h100", "--count", str(count)]) == 0, capsys.readouterr().out
    if re.search("_(4b|8b|32b)_", name):
        assert main(["plan", name, "--gpu", "rtx4090", "--count", str(count)]) == 3


@pytest.mark.parametrize("name", REAL)
def test_the_tiny_model_takes_the_place_of_the_real_one_and_leaves_the_rest_alone(name):
    real, _ = typed(compose_recipe(name, []))
    cfg, objective = typed(compose_recipe(name, [f"model={tiny_for(name)}", "cluster=inline", "cluster.address=null"]))
    config.check(cfg)
    assert cfg.model.path == str(ROOT / "recipes" / "tiny")
    assert cfg.data.train.startswith(str(ROOT / "recipes" / "tiny"))
    assert cfg.reward.parts.keys() == real.reward.parts.keys()
    for kept in ("learning_rate", "zero_stage", "gradient_checkpointing", "warmup_steps", "betas"):
        assert getattr(cfg.trainer, kept) == getattr(real.trainer, kept)
    assert cfg.sentinel == real.sentinel and objective.no_signal == "refill"


@pytest.mark.parametrize("name", REAL)
def test_a_header_says_what_was_seen_of_a_recipe(name):
    header = (ROOT / "recipes" / f"{name}.yaml").read_text().partition("defaults:")[0]
    assert "untested" in header or "measured" in header


def test_the_data_columns_are_those_of_the_data_sets():
    if not DATA.is_dir():
        pytest.skip(f"{DATA} is not here")
    math = json.loads((DATA / "math500_test.json").read_text())[0]
    with gzip.open(DATA / "HumanEval.jsonl.gz") as lines:
        code = json.loads(lines.readline())
    gsm8k = json.loads((DATA / "gsm8k_test.jsonl").read_text().partition("\n")[0])
    rows = {"math": math, "gsm8k": gsm8k, "code": code}
    for name in REAL:
        data = typed(compose_recipe(name, []))[0].data
        assert {data.prompt, data.answer} <= rows[name.split("_")[2]].keys()


@pytest.mark.slow
def test_recipes_run_whole_with_the_tiny_model(tmp_path):
    """Two at once, a core each. Started again they go on: here, with nothing left to do."""
    names = ("qwen3_8b_math_8gpu", "qwen3_1.7b_code_8gpu")
    for _ in range(2):
        runs = [start(name, tmp_path / name) for name in names]
        for run in runs:
            _, said = run.communicate(timeout=400)
            assert run.returncode == 0, said[-2000:]
    for name in names:
        rows = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        assert [row["step"] for row in rows] == [1, 2]
        assert (tmp_path / name / "model" / "config.json").is_file()


def start(name: str, folder: Path) -> subprocess.Popen:
    words = [f"model={tiny_for(name)}", "cluster=inline", "rollout.engine=transformers", "log.console=false"]
    command = [sys.executable, "-m", "rlvr.cli", "train", name, *words, f"run.folder={folder}", "--resume"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
