"""How many programs a second does the sandbox run, per core, against starting a bare Python for each?

    python scripts/bench/sandbox.py [--seconds 5] [--slots 1 2] [--without namespaces] [--out sandbox.json]

The program reads two numbers and prints their sum. Rounds of the sandbox and of `python -c pass` take turns, so that
both see the same machine. Reported are jobs a second of wall time, and jobs a second of CPU time: of this process, the
fork server and the program together, which is what a core that is busy with other things still gives.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from rlvr.sandbox import Job, Sandbox

PROGRAM = "a, b = map(int, input().split())\nprint(a + b)\n"
ROUNDS = 5


@dataclass
class Tally:
    jobs: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0

    def rates(self) -> dict[str, float]:
        per_cpu_s = {"per_cpu_s": self.jobs / self.cpu_s} if self.cpu_s else {}
        return {"jobs": self.jobs, "per_s": self.jobs / self.wall_s} | per_cpu_s


def run_jobs(sandbox: Sandbox, slots: int, seconds: float, tally: Tally) -> None:
    job = Job({"mode": "script", "program": PROGRAM}, b"40 2\n")
    ends = perf_counter() + seconds

    def worker(_: int) -> int:
        count = 0
        while perf_counter() < ends:
            result = sandbox.run(job)
            if not result.ok or result.stdout != b"42\n":
                raise SystemExit(f"a job ended as {result.end}: {result.stderr.decode()}{result.detail}")
            count += 1
        return count

    started = perf_counter()
    with ThreadPoolExecutor(slots) as pool:
        tally.jobs += sum(pool.map(worker, range(slots)))
    tally.wall_s += perf_counter() - started


def start_pythons(words: list[str], seconds: float, tally: Tally) -> None:
    started, before = perf_counter(), children_s()
    while perf_counter() - started < seconds:
        subprocess.run(words, check=True)
        tally.jobs += 1
    tally.wall_s += perf_counter() - started
    tally.cpu_s += children_s() - before


def own_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def children_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def slots_s() -> float:
    """CPU time of the fork servers and of all programs that they have run."""
    found, new = set(), {os.getpid()}
    stats = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            stats[int(name)] = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
    while new:
        new = {pid for pid, fields in stats.items() if int(fields[1]) in new} - found
        found |= new
    ticks = sum(int(field) for pid in found for field in stats[pid][11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


def measure(slots: int, seconds: float, without: list[str]) -> dict[str, Any]:
    warm, cold = Tally(), Tally()
    bare = [os.path.realpath(sys.executable), "-c", "pass"]
    with Sandbox(slots=slots, without=without, min_level="limited", allow_unsafe=True) as sandbox:
        run_jobs(sandbox, slots, 0.5, Tally())  # all slots are up
        for _ in range(ROUNDS):
            started = own_s() + slots_s()
            run_jobs(sandbox, slots, seconds / ROUNDS, warm)
            warm.cpu_s += own_s() + slots_s() - started
            start_pythons(bare, seconds / ROUNDS, cold)
        level = str(sandbox.level)
    found = {"slots": slots, "level": level, "sandbox": warm.rates(), "cold_python": cold.rates()}
    return found | {
        "times_cold": (warm.jobs / warm.wall_s) / (cold.jobs / cold.wall_s),
        "times_cold_per_cpu_s": (warm.jobs / warm.cpu_s) / (cold.jobs / cold.cpu_s),
    }


def told(row: dict[str, Any]) -> str:
    warm, cold = row["sandbox"], row["cold_python"]
    return (
        f"{row['level']}, {row['slots']} slots: {warm['per_s']:.0f} jobs/s, {warm['per_cpu_s']:.0f} per CPU second; "
        f"python -c pass, one at a time: {cold['per_s']:.0f}/s, {cold['per_cpu_s']:.0f} per CPU second; "
        f"ratio {row['times_cold']:.1f}, per CPU second {row['times_cold_per_cpu_s']:.1f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each of the two, for each number of slots")
    parser.add_argument("--slots", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--without", nargs="*", default=[], help="layers to leave out, e.g. namespaces")
    parser.add_argument("--out", type=Path, help="where the numbers go as JSON")
    arguments = parser.parse_args()
    rows = [measure(slots, arguments.seconds, arguments.without) for slots in arguments.slots]
    print("\n".join(map(told, rows)))
    load = os.getloadavg()[0]
    print(f"load average {load:.1f} on {os.cpu_count()} cores")
    if arguments.out:
        content = {"load_average": load, "cores": os.cpu_count(), "python": sys.version.split()[0], "rows": rows}
        arguments.out.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
