"""How far off the plan is: `rlvr plan` for the cores of this machine against runs of the same minutes.

    python scripts/bench/planned.py [--steps 40] [--turns 2] [--out planned.json]

A turn measures this machine as a device (device.py) and then runs the quickstart (run.py: vLLM, Ray, DeepSpeed, one
thread a worker), with 16 groups and with 64. The plan is told what a recipe cannot say: the lengths of prompts and
completions, how many groups taught, how long a verdict takes. Nothing else of a run goes into it.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import fmean, median

from device import TINY
from run import LARGE, run

from rlvr.compose import compose_recipe, typed
from rlvr.data.prompts import Renderer, load_prompts

PHASES = ("rollout", "train", "publish", "step")
SIZES = (16, LARGE)  # groups
SETTINGS = ("trainer.threads=1", "rollout.refill_rounds=0")  # of run.py, as far as a plan knows them


def prompt_tokens() -> float:
    cfg = typed(compose_recipe("quickstart", []))[0]
    prompts = load_prompts(cfg.data.train, "data.train", cfg.data, Renderer(cfg.model), 128)
    return fmean(len(prompt.token_ids) for prompt in prompts)


def told(rows: list[dict[str, float]], prompt_tokens: float) -> dict[str, float]:
    """What a recipe cannot say, by the options of `rlvr plan`; from the metrics of a run's steps."""
    return {
        "tokens": fmean(row["completions/length_mean"] for row in rows),
        "prompt-tokens": prompt_tokens,
        "trained": fmean(1 - row["groups/no_signal"] for row in rows),
        "verify-s": fmean(sum(x for name, x in row.items() if name.startswith("verify_seconds/")) for row in rows),
    }


def words(options: dict[str, float]) -> list[str]:
    return [word for name, value in options.items() for word in (f"--{name}", str(value))]


def planned(device: Path, groups: int, rows: list[dict[str, float]]) -> dict[str, float]:
    options = words(told(rows, prompt_tokens()))
    command = [sys.executable, "-m", "rlvr.cli", "plan", "quickstart", "--json", "--gpu", str(device), "--count", "2"]
    done = subprocess.run(
        [*command, *options, f"rollout.groups_per_step={groups}", *SETTINGS], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)["seconds"]


def turn(groups: int, steps: int, device: Path) -> dict:
    rows = run(steps, f"rollout.groups_per_step={groups}")
    took = {phase: fmean(row[f"time/{phase}"] for row in rows) for phase in PHASES}
    seconds = planned(device, groups, rows)
    return {"groups": groups, "measured": took, "planned": {phase: seconds[phase] for phase in PHASES}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--out", type=Path)
    a = parser.parse_args()
    found = []
    for _ in range(a.turns):
        with tempfile.TemporaryDirectory() as folder:
            device = Path(folder) / "core.json"
            # a process of its own: an engine that stays would be beside the runs
            subprocess.run([sys.executable, Path(__file__).with_name("device.py"), device, "--model", TINY], check=True)
            found += [{"device": json.loads(device.read_text()), **turn(n, a.steps, device)} for n in SIZES]
    for groups in SIZES:
        turns = [row for row in found if row["groups"] == groups]
        for phase in PHASES:
            real, said = (median(row[kind][phase] for row in turns) for kind in ("measured", "planned"))
            print(f"{groups} groups, {phase:8} {real:.2f} s measured, {said:.2f} s planned ({said / real - 1:+.0%})")
    if a.out:
        a.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
