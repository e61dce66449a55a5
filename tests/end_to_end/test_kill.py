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
# From one checkpoint to the next, and each of them is known to come: none is so late after its start that more than one
# checkpoint, or the rollback from step 6, could have come between. What is counted begins anew with each start; from
# step 4 on, what is loaded the second time is loaded by that rollback.
KILLS = {
    2: [("sampling", 2), ("verifying", 2), ("writing", 1)],
    4: [("optimizer", 1), ("backward", 2)],
    7: [("loading", 2), ("transfer", 3), ("note", 1), ("scoring", 3)],
}


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
        assert code in (0, 3, -9), said.read_text()[-3000:]
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

    words = ["train", "quickstart", *RECIPE, f"run.folder={killed}"]
    for step, deaths in KILLS.items():
        for phase, count in deaths:
            assert start(phase, count, *words) == -9, f"{phase} {count}, on the way to step {step}"
            if (killed / "config.yaml").exists():
                words = ["resume", str(killed)]
        if step < 7:
            assert start("stop", step, *words) in (3, -9)
            states = [json.loads(path.read_text())["state"] for path in killed.glob("checkpoints/*/state.json")]
            assert max(state["step"] for state in states) == step
    assert start("none", 1, *words) == 0

    assert sum(row["tokens/trained"] > 0 for row in steps(alone)) >= 5
    weights = [(run / "model" / "model.safetensors").read_bytes() for run in (alone, killed)]
    assert weights[0] == weights[1]
    rows = [steps(alone), steps(killed)]
    assert [row["step"] for row in rows[1]] == list(range(1, 8))
    for one, other in zip(*rows, strict=True):
        same = ("policy/loss", "policy/grad_norm", "reward/mean", "tokens/sampled", "tokens/trained", "policy/lr")
        assert {name: one.get(name) for name in same} == {name: other.get(name) for name in same}
