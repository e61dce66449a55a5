"""Does verifying a batch slow down the generation of the next one?

    python scripts/bench/overlap.py [--rounds 6] [--processes 1] [--out overlap.json]

The real vLLM engine, one thread, samples the tiny model's completions: 16 prompts of 64. Turn by turn it does so alone,
and while the batch before it is verified, over and over until the generation ends (so the overlap is whole, whatever
is faster). The judge is in a process of its own, as it is in a run. Verifiers: math, and programs in the sandbox.

Reported for each: the median, over pairs of turns, of the time of generation with a judge over that without. The
machine must have as many cores as the engine has threads, and one more: what is measured is the interference.
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
from typing import Any

from rlvr.compose import compose_recipe, typed
from rlvr.config import Recipe
from rlvr.data.prompts import Renderer, load_prompts
from rlvr.rollout.build import build_engine
from rlvr.rollout.engine import Engine
from rlvr.types import Ended, Group, Prompt, Sampling, Verdict
from rlvr.verify import Judge

PROMPTS, GROUP = 16, 64
RECIPES = {"math": "quickstart", "code": "quickstart_code"}


def recipe(name: str, processes: int) -> Recipe:
    settings = ["rollout.threads=1", "rollout.max_sequences=128", f"verify.processes={processes}"]
    return typed(compose_recipe(name, settings))[0]


def judging(pipe: Connection, cfg: Recipe) -> None:
    """A process: groups come, and are verified again and again until the next message. Says how many completions."""
    judge = Judge(cfg.reward, cfg.verify.processes)
    pipe.send("ready")
    while (groups := pipe.recv()) is not None:
        judge.verify_groups(groups[:1])  # everything is warm
        pipe.send("begun")
        done, rounds, started, verdicts = 0, 0, time.perf_counter(), list[Verdict]()
        while not pipe.poll(0):
            verdicts = [v for group in judge.verify_groups(groups) for v in group.verdicts]
            done, rounds = done + len(verdicts), rounds + 1
        pipe.recv()
        pipe.send((done, time.perf_counter() - started, rounds, sum(v.reward == 1.1 for v in verdicts)))
    judge.close()


def generate(engine: Engine, prompts: list[Prompt], sampling: Sampling) -> tuple[list[Ended], float]:
    started = time.perf_counter()
    found = [ended for step in engine.generate(prompts, sampling) for ended in step]
    return found, time.perf_counter() - started


def as_groups(prompts: list[Prompt], ended: list[Ended]) -> list[Group]:
    by_prompt: list[list[Any]] = [[None] * GROUP for _ in prompts]
    for one in ended:
        by_prompt[one.prompt][one.index] = one.completion
    return [Group(prompt, tuple(row)) for prompt, row in zip(prompts, by_prompt, strict=True)]


def measure(name: str, engine: Engine, rounds: int, processes: int) -> dict[str, Any]:
    cfg = recipe(RECIPES[name], processes)
    prompts = load_prompts(cfg.data.train, "data.train", cfg.data, Renderer(cfg.model), 128)[:PROMPTS]
    sampling = Sampling(GROUP, 1.0, cfg.rollout.max_tokens, (), 0)
    ours, theirs = get_context("spawn").Pipe()
    worker = get_context("spawn").Process(target=judging, args=(theirs, cfg))
    worker.start()
    assert ours.recv() == "ready"
    generate(engine, prompts, sampling)  # everything is warm
    pairs, verified = [], []
    for _ in range(rounds):
        ended, alone_s = generate(engine, prompts, sampling)
        ours.send(as_groups(prompts, ended))
        assert ours.recv() == "begun"
        _, beside_s = generate(engine, prompts, sampling)
        ours.send("enough")
        pairs.append((alone_s, beside_s))
        verified.append(ours.recv())
    ours.send(None)
    worker.join()
    done, seconds = sum(v[0] for v in verified), sum(v[1] for v in verified)
    return {
        "verifier": name,
        "completions": PROMPTS * GROUP,
        "tokens": sum(len(one.completion.token_ids) for one in ended),
        "alone_s": [round(a, 3) for a, _ in pairs],
        "beside_s": [round(b, 3) for _, b in pairs],
        "ratio": median(b / a for a, b in pairs),
        "verified_per_s": done / seconds,
        "batches_verified_meanwhile": sum(v[2] for v in verified) / rounds,
        "passed": verified[-1][3] / (PROMPTS * GROUP),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6, help="pairs of turns for each verifier")
    parser.add_argument("--processes", type=int, default=1, help="of the judge")
    parser.add_argument("--verifiers", nargs="+", default=list(RECIPES), choices=RECIPES)
    parser.add_argument("--out", type=Path, help="where the numbers go as JSON")
    arguments = parser.parse_args()
    engine = build_engine(recipe("quickstart", arguments.processes))
    rows = [measure(name, engine, arguments.rounds, arguments.processes) for name in arguments.verifiers]
    for row in rows:
        print(
            f"{row['verifier']}: generation takes {row['ratio']:.3f} of its time alone "
            f"({row['alone_s']} s alone, {row['beside_s']} s beside {row['verified_per_s']:.0f} verifications/s)"
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
