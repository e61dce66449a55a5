"""Every algorithm on the quickstart task: held-out accuracy on the way, and how far a run falls from its best.

    python scripts/bench/presets.py [--algorithms stable dapo ...] [--seeds 0 1] [--steps 200] [--regime quickstart]

A run a (regime, algorithm, seed), each in a process of its own; what --out already holds is not run again. Nothing but
the algorithm differs. `python scripts/docs.py` makes the tables of docs/algorithms.md from docs/measured/presets.json.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import product
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EVERY = 10  # steps between evaluations

REGIMES = {
    # one optimizer step a batch, as the recipe is
    "quickstart": [],
    # eight optimizer steps a batch at twice the learning rate: importance weights, clips and masks have work to do
    "off_policy": ["trainer.epochs=2", "trainer.mini_batches=4", "trainer.learning_rate=1e-3"],
}


def run(regime: str, algorithm: str, seed: int, steps: int, threads: int) -> dict:
    """One training run; what its events and metrics say. Raises when it did not even begin."""
    with tempfile.TemporaryDirectory() as folder:
        settings = [f"algorithm={algorithm}", f"seed={seed}", f"steps={steps}", f"run.folder={folder}/run"]
        settings += [f"evaluation.every={EVERY}", "cluster=inline", "log.console=false", "log.completions_every=0"]
        settings += ["rollout.engine=transformers", f"rollout.threads={threads}", f"trainer.threads={threads}"]
        settings += ["checkpoint.every=50", *REGIMES[regime]]
        command = [sys.executable, "-m", "rlvr.cli", "train", "quickstart", *settings]
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True)
        made = Path(folder, "run")
        if not (made / "events.jsonl").exists():
            raise RuntimeError(f"{' '.join(command)} left nothing: {done.stderr[-500:]}")
        events = [json.loads(line) for line in (made / "events.jsonl").read_text().splitlines()]
        rows = [json.loads(line) for line in (made / "metrics.jsonl").read_text().splitlines()]
    evaluations = {e["fields"]["step"]: e["fields"] for e in events if e["kind"] == "evaluation"}
    return {
        "regime": regime,
        "algorithm": algorithm,
        "seed": seed,
        "steps": steps,
        "finished": done.returncode == 0,
        "rollbacks": sum(e["kind"] == "rollback" for e in events),
        "greedy": {step: e["eval/accuracy_greedy"] for step, e in evaluations.items()},
        "sampled": {step: e["eval/accuracy_sampled"] for step, e in evaluations.items()},
        "entropy": rows[-1]["policy/entropy"] if rows else None,
        "length": rows[-1]["completions/length_mean"] if rows else None,
        "sampled_groups": sum(row["groups/sampled"] for row in rows),
    }


def main() -> None:
    algorithms = sorted(path.stem for path in (ROOT / "recipes" / "algorithm").glob("*.yaml"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algorithms", nargs="+", default=algorithms, choices=algorithms)
    parser.add_argument("--regime", default="quickstart", choices=REGIMES)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs at a time")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "measured" / "presets.json")
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    results = json.loads(arguments.out.read_text()) if arguments.out.exists() else []
    have = {(r["regime"], r["algorithm"], r["seed"], r["steps"]) for r in results}
    wanted = [(arguments.regime, a, s, arguments.steps) for s, a in product(arguments.seeds, arguments.algorithms)]
    threads = max(1, (os.cpu_count() or 1) // arguments.jobs)
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for done in as_completed(pool.submit(run, *one, threads) for one in wanted if one not in have):
            result = done.result()
            results.append(result)
            arguments.out.write_text(json.dumps(results, indent=1) + "\n")
            print(f"{result['algorithm']:14} seed {result['seed']}: {result['sampled']}", flush=True)


if __name__ == "__main__":
    main()
