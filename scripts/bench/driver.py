"""What a group of 8 costs the one driver process, by the length of its completions: CPU time, whatever the others do.

    python scripts/bench/driver.py [--groups 64] [--turns 5] [--out driver.json]

Through Ray, as in a run: completions come from engine actors that have nothing to decode, go to a verifier worker, make
a batch, which goes to trainer ranks that have nothing to train, and are written down. They come alone, as long ones
do, or up to 16 in a message, as short ones that end together. By the clock: how long the trainer waits between the
last verdict and the batch in its ranks' hands.
"""

import argparse
import gc
import json
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

import numpy as np
import torch

from rlvr.cluster.actors import DECODE, RolloutWorker
from rlvr.cluster.batches import Sent, received
from rlvr.cluster.calls import ray
from rlvr.cluster.home import Home
from rlvr.cluster.pipeline import RayPipeline
from rlvr.cluster.seats import Seats
from rlvr.cluster.trainer import RayTrainer
from rlvr.cluster.verifying import VerifierWorker
from rlvr.collate import collate
from rlvr.compose import compose_recipe, typed
from rlvr.objective import Objective
from rlvr.observe.files import json_line, write_atomic
from rlvr.records import completion_records
from rlvr.rollout import serving
from rlvr.rollout.engine import Done, Request
from rlvr.types import Completion, Prompt, Sampling

SIZE, ENGINES, RANKS = 8, 8, 2
PROMPT, VOCABULARY = 200, 150_000  # tokens
LENGTHS = (30, 1_500, 8_000)  # means; single ones are log-normal, as in rlvr/plan ...
LONGEST = 4  # ... and at most so many times the mean
TOGETHER = (1, serving.MOST)  # completions in a message, at most


class ReadyEngine:
    """Completions of random tokens, there at once; the same for the same request."""

    max_num_seqs, max_model_len, policy_version = 64, 1_000_000, 0

    def __init__(self) -> None:
        self.waiting: list[Request] = []

    @property
    def running(self) -> int:
        return len(self.waiting)

    def add(self, requests: list[Request]) -> None:
        self.waiting += requests

    def step(self) -> list[Done]:
        request = self.waiting.pop()
        rng = np.random.default_rng((request.prompt.position, request.index))
        most = request.sampling.max_tokens
        length = max(2, min(int(most / LONGEST * rng.lognormal(-0.245, 0.7)), most))
        ids = rng.integers(1, VOCABULARY, length).tolist()
        text = "word " * length + f"\\boxed{{{rng.integers(2)}}}"
        completion = Completion(ids, (True,) * length, (-rng.exponential(0.3, length)).tolist(), 0, text, "eos")
        return [(request.key, completion)]


class ReadyWorker(RolloutWorker):
    def __init__(self) -> None:
        self.server = serving.Server(ReadyEngine())  # type: ignore[arg-type]

    def send_together(self, most: int) -> None:
        serving.MOST = most


class IdleRank:
    """Takes the batch, and looks whether it is whole."""

    def step(self, sent: Sent, objective: Objective, learning_rate: float) -> dict[str, float]:
        batch = received(sent)
        assert int(batch.lengths_B.sum()) == int(batch.token_ids_BT.count_nonzero()), "token 0 is none of these"
        return {}


def prompts(count: int) -> list[Prompt]:
    rng = random.Random(0)
    asked = ({"role": "user", "content": "how many? " * 50},)
    return [Prompt(str(n), n, asked, tuple(rng.choices(range(1, VOCABULARY), k=PROMPT)), "1") for n in range(count)]


class Driver:
    """What a run has, with nothing behind it."""

    def __init__(self) -> None:
        self.cfg, self.objective = typed(compose_recipe("quickstart", [f"rollout.group_size={SIZE}"]))
        torch.set_num_threads(1)  # as in a run
        ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level="ERROR", num_cpus=2)
        engine = ray.remote(concurrency_groups={DECODE: 1})(ReadyWorker).options(num_cpus=0)
        verifier = ray.remote(VerifierWorker).options(num_cpus=0)
        rank = ray.remote(IdleRank).options(num_cpus=0)
        cluster, home = self.cfg.cluster, Home.here()
        self.engines = Seats("engine", cluster, lambda n: engine.remote(), ENGINES)
        verifiers = Seats("verifier worker", cluster, lambda n: verifier.remote(self.cfg, home), 1)
        ray.get([*self.engines.begin(), *verifiers.begin()])
        self.pipeline = RayPipeline(self.engines, verifiers, self.cfg)
        for seat in self.engines.all:
            self.pipeline.pump.joined(seat, seat.lives)  # it holds the weights
        self.trainer = RayTrainer(self.cfg, lambda n: rank.remote())
        self.trainer.ranks = [self.trainer.make(n) for n in range(RANKS)]

    def turn(self, groups: int, mean: int, together: int) -> dict[str, Any]:
        """Of a group: milliseconds by stage, of the driver's CPU and by the clock, and its tokens."""
        ray.get([seat.actor.send_together.remote(together) for seat in self.engines.all])
        asked = prompts(groups)
        cpu: dict[str, float] = {}
        wall: dict[str, float] = {}

        @contextmanager
        def stage(name: str) -> Iterator[None]:
            gc.collect()
            cpu_s, wall_s = process_time(), perf_counter()
            yield
            cpu[name], wall[name] = (process_time() - cpu_s) * 1e3 / groups, (perf_counter() - wall_s) * 1e3 / groups

        with stage("sampled"):
            done = list(self.pipeline.groups(asked, Sampling(SIZE, 1.0, LONGEST * mean)))
        with stage("collated"):
            batch = collate(done, self.objective, self.cfg.reward.weights())
        with stage("sent"):
            self.trainer.step(batch, self.objective, 0.0)
        with stage("written"), tempfile.TemporaryDirectory(prefix="rlvr-bench-") as folder:
            records = completion_records(done, [[0.0] * SIZE] * groups)
            write_atomic(Path(folder, "step.jsonl"), map(json_line, records))
        assert len(done) == groups and all(v.trainable for group in done for v in group.verdicts)
        tokens = sum(len(c.token_ids) for group in done for c in group.completions)
        return {"tokens": tokens / groups, "cpu": cpu, "wait": wall["collated"] + wall["sent"]}

    def close(self) -> None:
        self.pipeline.close()
        ray.shutdown()


def row(mean: int, together: int, turns: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians."""
    stages = {f"{name}_ms": median(one["cpu"][name] for one in turns) for name in turns[0]["cpu"]}
    seen = {name: median(one[name] for one in turns) for name in ("tokens", "wait")}
    total = {"driver_ms": sum(stages.values()), "wait_ms": seen["wait"]}
    return {"mean_tokens": mean, "together": together, "group_tokens": seen["tokens"]} | stages | total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", type=int, default=64)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    driver = Driver()
    cases = [(mean, together) for mean in LENGTHS for together in TOGETHER]
    driver.turn(SIZE, 30, 1)  # everything is warm
    turns: dict[tuple[int, int], list[dict[str, Any]]] = {case: [] for case in cases}
    for _ in range(args.turns):
        for case in cases:
            turns[case].append(driver.turn(args.groups, *case))
    driver.close()
    rows = [row(*case, seen) for case, seen in turns.items()]
    for found in rows:
        print({key: round(value, 2) for key, value in found.items()})
    if args.out:
        args.out.write_text(json.dumps({"size": SIZE, "groups": args.groups, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
