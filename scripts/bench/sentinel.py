"""What the sentinel costs a step, how often it errs, and how soon it sees.

    python scripts/bench/sentinel.py [seeds]

The runs are those of tests/sentinel/runs.py: one group a step (the noisiest there is) and sixteen. CPU time, so that a
busy machine does not count.
"""

import sys
from pathlib import Path
from statistics import median
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


def main(seeds: int) -> int:
    spent = cost()
    print(f"{spent:.2f} ms of CPU a step with {SentinelConfig().memory} steps in memory (limit {LIMIT_MS:g} ms)\n")
    watch = Watch(SentinelConfig())
    print("| healthy run | groups | runs | false alarms |\n|---|---|---|---|")
    for groups in (1, 16):
        for name, (schedule, steps) in HEALTHY.items():
            found = [first_alarm(watch, schedule, steps, seed, groups, 1) for seed in range(100, 100 + seeds)]
            wrong = [alarm.detector for alarm in found if alarm]
            print(f"| {name} | {groups} | {seeds} | {len(wrong)} {' '.join(wrong)} |", flush=True)
    print("\n| broken run | groups | runs | missed | steps until seen, median and worst | onset off by, median |")
    print("|---|---|---|---|---|---|")
    for groups in (1, 16):
        for name, (schedule, onset, within, _) in BROKEN.items():
            found = [first_alarm(watch, schedule, onset + within, s, groups, onset) for s in range(100, 100 + seeds)]
            seen = [alarm for alarm in found if alarm]
            late = [alarm.step - onset for alarm in seen] or [0]
            off = [alarm.onset - onset for alarm in seen] or [0]
            missed = seeds - len(seen)
            line = f"| {name} | {groups} | {seeds} | {missed} | {median(late):g}, {max(late)} | {median(off):+g} |"
            print(line, flush=True)
    return 0 if spent <= LIMIT_MS else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 5))
