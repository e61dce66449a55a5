"""Whole training runs of the tiny model, several at a time, each in a process of its own. What the benchmarks share.

The transformers engine samples from the same distribution as vLLM and starts in seconds; results do not depend on it.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean

EVERY = 25  # steps between evaluations
WINDOW = 10  # steps that a training metric is averaged over
WATCHED = ("accuracy", "completions/length_mean", "policy/entropy", "policy/clipped", "policy/grad_norm")


@dataclass(frozen=True)
class Run:
    """`name` says what differs, `settings` are the recipe's overrides that make it so."""

    name: str
    seed: int
    steps: int
    recipe: str = "quickstart"
    settings: tuple[str, ...] = ()
    regime: str = ""  # what several runs have in common, for the tables


def measure(run: Run, threads: int) -> dict:
    """What the run's events and metrics say. RuntimeError when it did not even begin."""
    with tempfile.TemporaryDirectory() as folder:
        settings = [*run.settings, f"seed={run.seed}", f"steps={run.steps}", f"run.folder={folder}/run"]
        settings += [f"evaluation.every={EVERY}", "cluster=inline", "log.console=false", "log.completions_every=0"]
        settings += ["rollout.engine=transformers", f"rollout.threads={threads}", f"trainer.threads={threads}"]
        command = [sys.executable, "-m", "rlvr.cli", "train", run.recipe, *settings, "checkpoint.every=50"]
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True)
        made = Path(folder, "run")
        if not (made / "events.jsonl").exists():
            raise RuntimeError(f"{' '.join(command)} left nothing: {done.stderr[-500:]}")
        events = [json.loads(line) for line in (made / "events.jsonl").read_text().splitlines()]
        rows = [json.loads(line) for line in (made / "metrics.jsonl").read_text().splitlines()]
    evaluations = {e["fields"]["step"]: e["fields"] for e in events if e["kind"] == "evaluation"}
    windows = {rows[end - 1]["step"]: rows[end - WINDOW : end] for end in range(WINDOW, len(rows) + 1, WINDOW)}
    watched = [*WATCHED, *sorted(name for name in (rows[0] if rows else {}) if name.startswith("reward/"))]
    return asdict(run) | {
        "finished": done.returncode == 0,
        "rollbacks": sum(e["kind"] == "rollback" for e in events),
        "greedy": {step: e["eval/accuracy_greedy"] for step, e in evaluations.items()},
        "sampled": {step: e["eval/accuracy_sampled"] for step, e in evaluations.items()},
        "trained": {
            name: {step: mean(row[name] for row in window if name in row) for step, window in windows.items()}
            for name in watched
            if all(any(name in row for row in window) for window in windows.values())
        },
        "sampled_groups": sum(row["groups/sampled"] for row in rows),
    }


def results(runs: Sequence[Run], out: Path, jobs: int) -> Iterator[dict]:
    """Each as it ends, added to `out`; what is there already is not run again."""
    out.parent.mkdir(parents=True, exist_ok=True)
    have = json.loads(out.read_text()) if out.exists() else []
    done = {(r["name"], r["seed"], r["steps"], r["recipe"], tuple(r["settings"])) for r in have}
    wanted = [run for run in runs if (run.name, run.seed, run.steps, run.recipe, run.settings) not in done]
    threads = max(1, (os.cpu_count() or 1) // jobs)
    with ThreadPoolExecutor(jobs) as pool:
        for ended in as_completed(pool.submit(measure, run, threads) for run in wanted):
            have.append(ended.result())
            out.write_text(json.dumps(have, indent=1) + "\n")
            yield have[-1]
