"""Six accidents, with the sentinel off and on, from the same healthy run: docs/divergences.md says what came of it.

    python scripts/divergences [--accidents sign nan ...] [--seeds 0 1 2] [--sentinel off default] [--out FILE]

Ruined: without the sentinel, it ends below half of its best held-out accuracy. Saved: with it, within 2 points of its
best, and within 1.5 times the steps, those that were undone included.

What --out already holds is not run again. `python scripts/docs.py` makes the table from docs/measured/divergences.json.
A run takes a minute or less of one core.
"""

import argparse
import json
import shutil
import tempfile
from itertools import product
from pathlib import Path

from accidents import ACCIDENTS, ROOT
from trials import accident_folder, healthy, suffer

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
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "measured" / "divergences.json")
    parser.add_argument("--keep", type=Path, help="leave the run folders here")
    arguments = parser.parse_args()
    results = json.loads(arguments.out.read_text()) if arguments.out.exists() else []
    done = {(r["accident"], r["seed"], r["sentinel"]) for r in results}
    with tempfile.TemporaryDirectory() as temporary:
        runs = (arguments.keep or Path(temporary)).resolve()
        for seed, name, sentinel in product(arguments.seeds, arguments.accidents, arguments.sentinel):
            if (name, seed, sentinel) in done:
                continue
            begun = runs / f"healthy-{seed}"
            if not begun.exists():
                healthy(begun, seed)
            folder = runs / f"{name}-{seed}-{sentinel}"
            for left in (folder, accident_folder(folder)):  # of a run that was interrupted
                shutil.rmtree(left, ignore_errors=True)
            accident = ACCIDENTS[name]
            result = {"accident": name, "title": accident.title, "life": accident.life}
            result |= {"seed": seed, "sentinel": sentinel}
            result |= suffer(name, begun, folder, (f"sentinel.enabled={str(sentinel != 'off').lower()}",))
            result["first_alarm"] = first_alarm(folder) if sentinel == "off" else None
            results.append(result)
            arguments.out.write_text(json.dumps(results, indent=1) + "\n")
            print(f"{name:14} seed {seed} {sentinel:8} best {result['best']:.1%}, end {result['end']:.1%}", flush=True)


if __name__ == "__main__":
    main()
