"""The recipes for real models run whole, with the tiny model put in: as they are but for it, on a CPU."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.end_to_end.test_deaths import finish, rlvr
from tests.plan.test_recipes import REAL, tiny_for

pytestmark = pytest.mark.slow
TWO = ["rollout.workers=2", "trainer.ranks=2"]
SHARED = ["cluster.placement=colocated"]  # model=tiny sets them apart, as one process has to


def start(name: str, folder: Path, *words: str) -> subprocess.Popen:
    own = [f"model={tiny_for(name)}", *words, f"run.folder={folder}", "log.console=false"]
    return rlvr("train", name, *own, "--resume")


def complete(folder: Path) -> None:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2]
    assert all(row["transfer/probe_rms"] < 3e-4 for row in rows)
    assert (folder / "model" / "config.json").is_file()


def test_one_process_each_and_started_again_they_go_on(tmp_path):
    """Two at once, a core each. The second time there is nothing left to do."""
    names = ("qwen3_8b_math_8gpu", "qwen3_1.7b_code_8gpu")
    for _ in range(2):
        runs = [start(name, tmp_path / name, "cluster=inline", "rollout.engine=transformers") for name in names]
        for run in runs:
            finish(run)
    for name in names:
        complete(tmp_path / name)


@pytest.mark.long
@pytest.mark.parametrize("name", REAL)
def test_through_ray_with_vllm_in_the_placement_of_the_recipe(request, tmp_path, name):
    """One GPU is shared by engine and trainer; else two engines and two ranks, on this machine or on three nodes."""
    words = SHARED if name.endswith("_1gpu") else TWO
    if name.endswith("nodes"):
        words = [*TWO, f"cluster.address={request.getfixturevalue('nodes').address}"]
    finish(start(name, tmp_path / "run", *words))
    complete(tmp_path / "run")
