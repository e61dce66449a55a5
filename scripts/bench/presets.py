"""Every algorithm on the quickstart task: held-out accuracy on the way, and how far a run falls from its best.

    python scripts/bench/presets.py [--algorithms stable dapo ...] [--seeds 0 1] [--steps 200] [--out presets.json]

A run a (algorithm, seed), each in a process of its own; what --out already holds is not run again. Nothing but the
algorithm differs. `python scripts/docs.py` makes the table of docs/algorithms.md from docs/measured/presets.json.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EVERY = 10  # steps between evaluations


def run(algorithm: str, seed: int, steps: int) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        settings = [f"algorithm={algorithm}", f"seed={seed}", f"steps={steps}", f"run.folder={folder}/run"]
        settings += [f"evaluation.every={EVERY}", "cluster=inline", "log.console=false", "log.completions_every=0"]
        settings += [f"trainer.threads={os.cpu_count()}", "checkpoint.every=50"]
        done = subprocess.run([sys.executable, "-m", "rlvr.cli", "train", "quickstart", *settings], check=False)
        events = [json.loads(line) for line in Path(folder, "run", "events.jsonl").read_text().splitlines()]
        rows = [json.loads(line) for line in Path(folder, "run", "metrics.jsonl").read_text().splitlines()]
    evaluations = {e["fields"]["step"]: e["fields"] for e in events if e["kind"] == "evaluation"}
    return {
        "algorithm": algorithm,
        "seed": seed,
        "steps": steps,
        "finished": done.returncode == 0,
        "rollbacks": sum(e["kind"] == "rollback" for e in events),
        "greedy": {step: e["eval/accuracy_greedy"] for step, e in evaluations.items()},
        "sampled": {step: e["eval/accuracy_sampled"] for step, e in evaluations.items()},
        "entropy": rows[-1]["policy/entropy"] if rows else None,
        "length": rows[-1]["completions/length_mean"] if rows else None,
    }


def main() -> None:
    algorithms = sorted(path.stem for path in (ROOT / "recipes" / "algorithm").glob("*.yaml"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algorithms", nargs="+", default=algorithms, choices=algorithms)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "measured" / "presets.json")
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    results = json.loads(arguments.out.read_text()) if arguments.out.exists() else []
    for seed in arguments.seeds:
        for algorithm in arguments.algorithms:
            if any((r["algorithm"], r["seed"], r["steps"]) == (algorithm, seed, arguments.steps) for r in results):
                continue
            results.append(run(algorithm, seed, arguments.steps))
            arguments.out.write_text(json.dumps(results, indent=1) + "\n")
            last = results[-1]
            print(f"{algorithm:14} seed {seed}: sampled {last['sampled']}", flush=True)


if __name__ == "__main__":
    main()
