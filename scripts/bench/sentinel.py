"""What the sentinel costs a step, how often it errs, and how soon it sees.

    python scripts/bench/sentinel.py [seeds] [--out docs/measured/sentinel.json]

The runs are those of tests/sentinel/runs.py: one group a step (the noisiest there is) and sixteen. CPU time, so that a
busy machine does not count.
"""

import argparse
import json
import sys
from pathlib import Path
from time import process_time

from rlvr.sentinel.history import Alarm
from rlvr.sentinel.watch import Watch
from rlvr.sentinel_config import SentinelConfig

sys.path.append(str(Path(__file__).parents[2]))

from tests.sentinel.runs import BROKEN, HEALTHY, Schedule, rows, steady

LIMIT_MS = 10.0  # 1 % of a step of one second


def cost(steps: int = 200) -> float:
    """CPU milliseconds of watch and inspect, with a full memory."""
    watch = Watch(SentinelConfig())
    made = list(rows(steady, watch.memory + steps, seed=0))
    history = [watch.watch(m["step"], m) for m in made[: watch.memory]]
    started = process_time()
    for metrics in made[watch.memory :]:
        row = watch.watch(metrics["step"], metrics)
        watch.inspect(row, history)
        history.append(row)
    return 1000 * (process_time() - started) / steps


def first_alarm(watch: Watch, schedule: Schedule, steps: int, seed: int, groups: int, begin: int) -> Alarm | None:
    history: list = []
    for metrics in rows(schedule, steps, seed, groups):
        row = watch.watch(metrics["step"], metrics)
        if metrics["step"] >= begin and (alarm := watch.inspect(row, history)):
            return alarm
        history.append(row)
    return None


def alarms(watch: Watch, schedule: Schedule, steps: int, seeds: int, groups: int, begin: int) -> list[Alarm | None]:
    return [first_alarm(watch, schedule, steps, seed, groups, begin) for seed in range(100, 100 + seeds)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seeds", type=int, nargs="?", default=5)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    seeds, spent, watch = arguments.seeds, cost(), Watch(SentinelConfig())
    print(f"{spent:.2f} ms of CPU a step with {SentinelConfig().memory} steps in memory (limit {LIMIT_MS:g} ms)\n")
    healthy: list[dict] = []
    broken: list[dict] = []
    for groups in (1, 16):
        for name, (schedule, steps) in HEALTHY.items():
            found = alarms(watch, schedule, steps, seeds, groups, 1)
            wrong = [alarm.detector for alarm in found if alarm]
            healthy.append({"name": name, "groups": groups, "runs": seeds, "steps": steps, "false_alarms": wrong})
            print(healthy[-1], flush=True)
    for groups in (1, 16):
        for name, (schedule, onset, within, _) in BROKEN.items():
            seen = [alarm for alarm in alarms(watch, schedule, onset + within, seeds, groups, onset) if alarm]
            late, off = ([getattr(alarm, of) - onset for alarm in seen] for of in ("step", "onset"))
            row = {"name": name, "groups": groups, "runs": seeds, "missed": seeds - len(seen), "late": late, "off": off}
            broken.append(row)
            print(row, flush=True)
    if arguments.out:
        done = {"ms_a_step": spent, "memory": SentinelConfig().memory, "healthy": healthy, "broken": broken}
        arguments.out.write_text(json.dumps(done, indent=1) + "\n")
    return 0 if spent <= LIMIT_MS else 1


if __name__ == "__main__":
    sys.exit(main())
