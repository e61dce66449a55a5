"""The recipes for real models: each fits the devices in its name, and a tiny model takes the place of the real one.

That they then run whole: tests/end_to_end/test_recipes.py.
"""

import gzip
import json
import os
import re
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
