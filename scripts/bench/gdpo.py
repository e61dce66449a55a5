"""What GDPO does that a plain sum of rewards does not: accuracy, format and length at once, on the quickstart task.

    python scripts/bench/gdpo.py [--seeds 0 1 2] [--steps 100]

Six runs a seed of recipes/quickstart_gdpo.yaml, which differ in three things only: how the parts become an advantage
(each normalised by itself, or their sum), whether length counts only for right answers, and the unit of the length
part (1 to 0, or 0 to -10). `python scripts/docs.py` makes the table of docs/ideas/gdpo.md from docs/measured/gdpo.json.
"""

import argparse
import os
from itertools import product
from pathlib import Path

from training import Run, results

ROOT = Path(__file__).resolve().parents[2]
SUM = (
    "algorithm.advantage={_target_: rlvr.objective.advantages.standardize, _partial_: true, ddof: 1, eps: 1e-6}",
    "algorithm.whitening=null",
)
FREE = ("~reward.parts.length.requires.math",)
TENFOLD = (*FREE, "+reward.parts.length.params.top=0", "+reward.parts.length.params.bottom=-10")
VARIANTS = {
    "sum": (*SUM, *FREE),
    "gdpo": FREE,
    "sum, conditioned": SUM,
    "gdpo, conditioned": (),
    "sum, tenfold length": (*SUM, *TENFOLD),
    "gdpo, tenfold length": TENFOLD,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs at a time")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "measured" / "gdpo.json")
    arguments = parser.parse_args()
    runs = [
        Run(name, seed, arguments.steps, "quickstart_gdpo", settings)
        for seed, (name, settings) in product(arguments.seeds, VARIANTS.items())
    ]
    for result in results(runs, arguments.out, arguments.jobs):
        parts = {name: f"{values[max(values)]:.3f}" for name, values in result["trained"].items() if "/" in name}
        print(f"{result['name']:18} seed {result['seed']}: {result['sampled']} {parts}", flush=True)


if __name__ == "__main__":
    main()
