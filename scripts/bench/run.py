"""Where the time of a whole run goes, and what sampling ahead and further workers bring.

    python scripts/bench/run.py [--steps 12] [--out run.json] [--only phases asynchronous engines]

Real runs of the command line: vLLM, Ray, DeepSpeed, the quickstart's tiny model and data, without evaluations, each
with one thread a worker. `phases`: the shares of a step, with the quickstart's 16 groups and with 64. `asynchronous`:
synchronous, one and two steps ahead, in turn, with both; against max(sampling, training).
`engines`: one and two, in turn, with 64 groups. The first steps of a run are left out: they warm up. All are means over
steps: sampling ahead, a step that waits alternates with one that does not.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import fmean, median

WARM_UP = 3
LARGE = 64  # groups
GROUPS = (16, LARGE)
AHEAD = (1, 2)  # steps
PHASES = (
    "time/rollout", "time/verify", "time/logprobs", "time/gradient", "time/optimizer", "time/publish", "time/driver",
)  # fmt: skip


def run(steps: int, *words: str) -> list[dict[str, float]]:
    """The steps' metrics, but for those that warm up."""
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder) / "run"
        command = [
            sys.executable, "-m", "rlvr.cli", "train", "quickstart", f"steps={steps + WARM_UP}", "data.heldout=null",
            "log.console=false", "trainer.threads=1", "trainer.schedule=constant", "trainer.learning_rate=1e-6",
            "rollout.refill_rounds=0", "checkpoint.every=1000", "sentinel=off", *words, f"run.folder={where}",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}\n{done.stderr[-3000:]}")
        rows = [json.loads(line) for line in (where / "metrics.jsonl").read_text().splitlines()]
    return rows[WARM_UP:]


def means(rows: list[dict[str, float]]) -> dict[str, float]:
    return {name: fmean(row[name] for row in rows) for name in ("time/step", "time/train", "tokens/sampled", *PHASES)}


def phases(steps: int) -> dict:
    return {"by_groups": [phases_of(groups, steps) for groups in GROUPS]}


def phases_of(groups: int, steps: int) -> dict:
    rows = run(steps, f"rollout.groups_per_step={groups}")
    print(f"{groups} groups")
    total = sum(row["time/step"] for row in rows)
    shares = {name: sum(row[name] for row in rows) / total for name in PHASES}
    waste = sum(row["packing/padding_waste"] for row in rows) / len(rows)
    for name, share in shares.items():
        print(f"{name.removeprefix('time/'):10} {share:6.1%} of a step")
    print(f"padding    {waste:6.1%} of the trainer's rows")
    print(f"goals: driver under 3% ({shares['time/driver']:.1%}), waiting for verdicts under 1% "
          f"({shares['time/verify']:.1%}), padding under 5% ({waste:.1%})")  # fmt: skip
    return {"groups": groups, "shares": shares, "padding_waste": waste, "step_s": total / len(rows)}


def asynchronous(steps: int) -> dict:
    return {"by_groups": [asynchronous_of(groups, steps) for groups in GROUPS]}


def asynchronous_of(groups: int, steps: int, pairs: int = 3) -> dict:
    found: dict[int, list[dict[str, float]]] = {k: [] for k in (0, *AHEAD)}
    for _ in range(pairs):
        for k, runs in found.items():
            size = f"rollout.groups_per_step={groups}"
            runs.append(means(run(steps, size, f"rollout.max_staleness={k}")))
    print(f"{groups} groups")
    longer = [max(one["time/rollout"], one["time/step"] - one["time/rollout"]) for one in found[0]]
    ahead = []
    for k in AHEAD:
        took = [one["time/step"] for one in found[k]]
        row = {
            "max_staleness": k,
            "of_synchronous": [t / one["time/step"] for t, one in zip(took, found[0], strict=True)],
            "of_the_longer_side": [t / side for t, side in zip(took, longer, strict=True)],
        }
        ahead.append(row)
        print(f"max_staleness={k} takes {median(row['of_synchronous']):.2f} of the time of a synchronous step, "
              f"{median(row['of_the_longer_side']):.2f} of max(sampling, training) (goal: at most 1.10)")  # fmt: skip
    return {"groups": groups, "runs": list(found.values()), "ahead": ahead}


def engines(steps: int, pairs: int = 2) -> dict:
    size = f"rollout.groups_per_step={LARGE}"
    found = [[means(run(steps, size, f"rollout.workers={n}")) for n in (1, 2)] for _ in range(pairs)]
    speed = [(two["tokens/sampled"] / two["time/rollout"]) / (one["tokens/sampled"] / one["time/rollout"])
             for one, two in found]  # fmt: skip
    print(f"2 engines sample {median(speed):.2f} times as many tokens a second as 1")
    return {"runs": found, "speed": speed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = {"phases": phases, "asynchronous": asynchronous, "engines": engines}
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--only", nargs="+", choices=parts, default=list(parts))
    parser.add_argument("--out", type=Path)
    a = parser.parse_args()
    done = json.loads(a.out.read_text()) if a.out and a.out.exists() else {}
    for name in a.only:
        done[name] = parts[name](a.steps) | {"steps": a.steps}
        if a.out:
            a.out.write_text(json.dumps(done, indent=1) + "\n")


if __name__ == "__main__":
    main()
