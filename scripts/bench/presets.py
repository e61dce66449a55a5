"""Every algorithm on the quickstart task: held-out accuracy on the way, and how far a run falls from its best.

    python scripts/bench/presets.py [--algorithms stable dapo ...] [--seeds 0 1] [--steps 200] [--regime quickstart]

Nothing but the algorithm differs. What --out already holds is not run again. `python scripts/docs.py` makes the tables
of docs/algorithms.md from docs/measured/presets.json.
"""

import argparse
import os
from itertools import product
from pathlib import Path

from training import Run, results

ROOT = Path(__file__).resolve().parents[2]

REGIMES = {
    # one optimizer step a batch, as the recipe is
    "quickstart": (),
    # eight optimizer steps a batch at twice the learning rate: importance weights, clips and masks have work to do
    "off_policy": (
        "rollout.refill_rounds=1",
        "trainer.epochs=2",
        "trainer.mini_batches=4",
        "trainer.learning_rate=1e-3",
    ),
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
    regime = arguments.regime
    runs = [
        Run(algorithm, seed, arguments.steps, settings=(f"algorithm={algorithm}", *REGIMES[regime]), regime=regime)
        for seed, algorithm in product(arguments.seeds, arguments.algorithms)
    ]
    for result in results(runs, arguments.out, arguments.jobs):
        print(f"{result['name']:14} seed {result['seed']}: {result['sampled']}", flush=True)


if __name__ == "__main__":
    main()
