"""Six accidents, with the sentinel off and on, from the same healthy run: docs/divergences.md says what came of it.

    python scripts/divergences [--accidents sign nan ...] [--seeds 0 1 2] [--sentinel off default] [--out FILE]

Ruined: without the sentinel, it ends below half of its best held-out accuracy. Saved: with it, within 2 points of its
best, and within 1.5 times the steps, those that were undone included.

What --out already holds is not run again. `python scripts/docs.py` makes the table from docs/measured/divergences.json.
A run takes a minute or less of one core; as many are made at once as there are cores.
"""

import argparse
import json
import os
import shutil
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from accidents import ACCIDENTS, ROOT
from trials import STEPS, accident_folder, healthy, suffer

from rlvr.compose import sentinel_settings
from rlvr.sentinel.columns import find_columns
from rlvr.sentinel.replay import read_records, replay, steps_of
from rlvr.sentinel.watch import Watch


def first_alarm(folder: Path) -> dict | None:
    """What the default sentinel would have said of a run that went on without one."""
    records = read_records(folder)
    steps = steps_of(records, find_columns(dict.fromkeys(name for record in records for name in record)))
    alarm = next(iter(replay(steps, Watch(sentinel_settings("default", [])))), None)
    return alarm and {"detector": alarm.detector, "step": alarm.step, "onset": alarm.onset}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--accidents", nargs="+", default=list(ACCIDENTS), choices=ACCIDENTS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--sentinel", nargs="+", default=["off", "default"], choices=["off", "default"])
    parser.add_argument("--steps", type=int, default=STEPS, help="of a run that an accident happens to")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "measured" / "divergences.json")
    parser.add_argument("--keep", type=Path, help="leave the run folders here")
    arguments = parser.parse_args()
    results = json.loads(arguments.out.read_text()) if arguments.out.exists() else []
    done = {(r["accident"], r["seed"], r["sentinel"]) for r in results}
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as temporary, ProcessPoolExecutor(cores, get_context("fork")) as pool:
        runs = (arguments.keep or Path(temporary)).resolve()
        for seed in arguments.seeds:
            asked = [(n, s) for n in arguments.accidents for s in arguments.sentinel if (n, seed, s) not in done]
            if asked and not (runs / f"healthy-{seed}").exists():
                healthy(runs / f"healthy-{seed}", seed)
            for result in pool.map(partial(suffered, runs, seed, arguments.steps), *zip(*asked, strict=True)):
                results.append(result)
                arguments.out.write_text(json.dumps(results, indent=1) + "\n")
                name, sentinel, best, end = (result[key] for key in ("accident", "sentinel", "best", "end"))
                print(f"{name:14} seed {seed} {sentinel:8} best {best:.1%}, end {end:.1%}", flush=True)


def suffered(runs: Path, seed: int, steps: int, name: str, sentinel: str) -> dict[str, Any]:
    folder = runs / f"{name}-{seed}-{sentinel}"
    for left in (folder, accident_folder(folder)):  # of a run that was interrupted
        shutil.rmtree(left, ignore_errors=True)
    accident = ACCIDENTS[name]
    settings = (f"sentinel.enabled={str(sentinel != 'off').lower()}", f"steps={steps}")
    result = {"accident": name, "title": accident.title, "life": accident.life, "seed": seed, "sentinel": sentinel}
    result |= suffer(name, runs / f"healthy-{seed}", folder, settings)
    return result | {"first_alarm": first_alarm(folder) if sentinel == "off" else None}


if __name__ == "__main__":
    main()
