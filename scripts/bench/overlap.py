"""Does verifying a batch slow down the generation of the next one?

    python scripts/bench/overlap.py [--rounds 8] [--processes 1] [--out overlap.json]

The real vLLM engine, one thread, samples the tiny model's completions: 16 prompts of 64. Turn by turn it does so alone,
and while the batch before it is verified, over and over until the generation ends (so the overlap is whole, whatever
is faster). The judge is in a process of its own, as it is in a run. Verifiers: math, and programs in the sandbox.

"A machine with a core to spare" is made: the engine keeps to one core, the judge and all that it starts to the others.
What is left is what they share: caches, memory, the kernel. Reported for each verifier: the median, over pairs of
turns, of the time of generation beside a judge over that alone, by the clock and in CPU time.
"""

import argparse
import json
import os
import sys
import time
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from rlvr.compose import compose_recipe, typed
from rlvr.config import Recipe
from rlvr.data.prompts import Renderer, load_prompts
from rlvr.rollout import engine as engines
from rlvr.rollout.build import build_engine
from rlvr.rollout.engine import Engine
from rlvr.types import Ended, Group, Prompt, Sampling
from rlvr.verify import Judge

PROMPTS, GROUP = 16, 64
RECIPES = {"math": "quickstart", "code": "quickstart_code"}


class Times(NamedTuple):
    """Of one generation."""

    wall_s: float
    cpu_s: float


def recipe(name: str, processes: int) -> Recipe:
    settings = ["rollout.threads=1", "rollout.max_sequences=128", f"verify.processes={processes}"]
    return typed(compose_recipe(name, settings))[0]


def judging(pipe: Connection, cfg: Recipe, cores: set[int]) -> None:
    """A process: groups come, and are verified again and again until the next message. Says how many completions, in
    how many seconds, and how many of them passed."""
    os.sched_setaffinity(0, cores)
    judge, main = Judge(cfg.reward, cfg.verify.processes), next(iter(cfg.reward.parts))
    pipe.send("ready")
    while (groups := pipe.recv()) is not None:
        judge.verify_group(groups[0])  # everything is warm
        pipe.send("begun")
        done = passed = 0
        started = time.perf_counter()
        while not pipe.poll(0):
            verdicts = judge.verify_group(groups[done // GROUP % PROMPTS]).verdicts
            done, passed = done + len(verdicts), passed + sum(v.parts[main] == 1.0 for v in verdicts)
        pipe.recv()
        pipe.send((done, time.perf_counter() - started, passed))
    judge.close()


def generate(engine: Engine, prompts: list[Prompt], sampling: Sampling) -> tuple[list[Ended], Times]:
    started, cpu = time.perf_counter(), time.process_time()
    found = [ended for step in engines.generate(engine, prompts, sampling) for ended in step]
    return found, Times(time.perf_counter() - started, time.process_time() - cpu)


def as_groups(prompts: list[Prompt], ended: list[Ended]) -> list[Group]:
    by_prompt: list[list[Any]] = [[None] * GROUP for _ in prompts]
    for one in ended:
        by_prompt[one.prompt][one.index] = one.completion
    return [Group(prompt, tuple(row)) for prompt, row in zip(prompts, by_prompt, strict=True)]


def measure(name: str, engine: Engine, rounds: int, processes: int, spare: set[int]) -> dict[str, Any]:
    cfg = recipe(RECIPES[name], processes)
    prompts = load_prompts(cfg.data.train, "data.train", cfg.data, Renderer(cfg.model), 128)[:PROMPTS]
    sampling = Sampling(GROUP, 1.0, cfg.rollout.max_tokens, (), 0)
    ours, theirs = get_context("spawn").Pipe()
    worker = get_context("spawn").Process(target=judging, args=(theirs, cfg, spare))
    worker.start()
    assert ours.recv() == "ready"
    groups = as_groups(prompts, generate(engine, prompts, sampling)[0])  # everything is warm
    turns: dict[str, list[Times]] = {"alone": [], "beside": []}
    verified = []
    for n in range(rounds):
        for turn in ("alone", "beside") if n % 2 else ("beside", "alone"):
            if turn == "beside":
                ours.send(groups)
                assert ours.recv() == "begun"
            ended, took = generate(engine, prompts, sampling)
            turns[turn].append(took)
            if turn == "beside":
                ours.send("enough")
                verified.append(ours.recv())
        groups = as_groups(prompts, ended)
    ours.send(None)
    worker.join()
    done, seconds = sum(v[0] for v in verified), sum(v[1] for v in verified)
    pairs = list(zip(turns["alone"], turns["beside"], strict=True))
    return {
        "verifier": name,
        "completions": PROMPTS * GROUP,
        "tokens": sum(len(one.completion.token_ids) for one in ended),
        "ratio": median(beside.wall_s / alone.wall_s for alone, beside in pairs),
        "ratio_of_cpu": median(beside.cpu_s / alone.cpu_s for alone, beside in pairs),
        **{f"{turn}_s": [round(t.wall_s, 3) for t in took] for turn, took in turns.items()},
        "verified_per_s": done / seconds,
        "passed": sum(v[2] for v in verified) / done,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8, help="pairs of turns for each verifier")
    parser.add_argument("--processes", type=int, default=1, help="of the judge")
    parser.add_argument("--verifiers", nargs="+", default=list(RECIPES), choices=RECIPES)
    parser.add_argument("--out", type=Path, help="where the numbers go as JSON")
    arguments = parser.parse_args()
    cores = os.sched_getaffinity(0)
    if len(cores) < 2:
        raise SystemExit("there is no core to spare: one for the engine, at least one for the judge")
    os.sched_setaffinity(0, {min(cores)})
    engine = build_engine(recipe("quickstart", arguments.processes))
    spare = cores - {min(cores)}
    rows = [measure(name, engine, arguments.rounds, arguments.processes, spare) for name in arguments.verifiers]
    for row in rows:
        print(
            f"{row['verifier']}: generation takes {row['ratio']:.3f} of its time, {row['ratio_of_cpu']:.3f} of its "
            f"CPU time: {row['alone_s']} s, {row['beside_s']} s beside {row['verified_per_s']:.0f} verdicts/s"
        )
    load = os.getloadavg()[0]
    print(f"load average {load:.1f} on {os.cpu_count()} cores, {arguments.processes} processes of the judge")
    if arguments.out:
        content = {
            "cores": os.cpu_count(),
            "load_average": load,
            "processes": arguments.processes,
            "python": sys.version.split()[0],
            "rows": rows,
        }
        arguments.out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
