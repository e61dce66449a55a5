"""Killed in every phase of a step, of a save and of a rollback: the run ends bitwise as the one that was left alone."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
# with the real DeepSpeed and verifier processes; the reference engine, as it starts in no time
RECIPE = [
    "cluster=inline", "rollout.engine=transformers", "rollout.groups_per_step=4", "rollout.group_size=8",
    "rollout.refill_rounds=0", "rollout.max_tokens=40", "checkpoint.every=2", "checkpoint.probation=1",
    "data.heldout=null", "steps=7", "trainer.threads=1", "sentinel.remedies=[lower_learning_rate,anchor]",
]  # fmt: skip
# a rollback from step 6 to step 4 is in between; what is counted begins anew with each start
KILLS = [
    ("writing", 1), ("sampling", 2), ("backward", 3), ("optimizer", 2), ("transfer", 3), ("writing", 2),
    ("verifying", 4), ("loading", 2), ("note", 3), ("scoring", 9),
]  # fmt: skip


@pytest.fixture
def start(tmp_path):
    """Return code of a run that is killed where it is told to be."""
    said = tmp_path / "said.log"
    command = [sys.executable, "-m", "tests.end_to_end.kill_at"]
    with said.open("w") as log:
        runs = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, cwd=Path(__file__).parents[2]
        )
    assert runs.stdin and runs.stdout

    def one(phase: str, count: int, *words: str) -> int:
        runs.stdin.write(json.dumps([phase, count, *words]) + "\n")
        runs.stdin.flush()
        code = int(runs.stdout.readline())
        assert code in (0, -9), said.read_text()[-3000:]
        return code

    yield one
    runs.stdin.close()
    assert runs.wait(timeout=60) == 0


def steps(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_run_killed_in_every_phase_ends_bitwise_as_one_left_alone(start, tmp_path):
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    assert start("none", 1, "train", "quickstart", *RECIPE, f"run.folder={alone}") == 0
    events = [json.loads(line) for line in (alone / "events.jsonl").read_text().splitlines()]
    assert [(e["fields"]["step"], e["fields"]["to"]) for e in events if e["kind"] == "rollback"] == [(5, 4)]

    deaths = []
    words = ["train", "quickstart", *RECIPE, f"run.folder={killed}"]
    for phase, count in KILLS:
        deaths += [phase] * (start(phase, count, *words) == -9)
        if (killed / "config.yaml").exists():
            words = ["resume", str(killed)]
    assert start("none", 1, *words) == 0
    assert len(deaths) >= 8, deaths

    assert sum(row["tokens/trained"] > 0 for row in steps(alone)) >= 5
    weights = [(run / "model" / "model.safetensors").read_bytes() for run in (alone, killed)]
    assert weights[0] == weights[1]
    rows = [steps(alone), steps(killed)]
    assert [row["step"] for row in rows[1]] == list(range(1, 8))
    for one, other in zip(*rows, strict=True):
        same = ("policy/loss", "policy/grad_norm", "reward/mean", "tokens/sampled", "tokens/trained", "policy/lr")
        assert {name: one.get(name) for name in same} == {name: other.get(name) for name in same}
