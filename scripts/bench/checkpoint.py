"""What nobody-watches costs a run: the sentinel's share of the time, and how long a checkpoint keeps training waiting.

    python scripts/bench/checkpoint.py [--out docs/measured/checkpoint.json] [--millions 10 40 160]

First the quickstart, inline, over two whole default intervals of checkpoints: seconds within `save` and `settle`, and
within the sentinel, as shares of the wall time. Then random models of several sizes, with Adam's state: seconds that
training waits in `save` and `settle`, the writing apart, against allocating and copying the same bytes once in the same
process.
"""

import argparse
import json
import tempfile
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from time import perf_counter, sleep
from typing import Any

import torch
from packing import GRPO, batch_of
from sentinel import cost
from step import PROMPT, make_model

import rlvr.run
from rlvr import cli
from rlvr.checkpoint.disk import DiskCheckpoints
from rlvr.checkpoint.files import size
from rlvr.config import CheckpointConfig, ModelConfig, TrainerConfig
from rlvr.loop import train
from rlvr.state import State
from rlvr.train.deepspeed import DeepSpeedTrainer

INTERVALS = 2
FEW = [16, 24, 32, 40]  # tokens of the completions that make Adam's state


class Timed:
    """What it stands for, with the seconds spent in each method."""

    def __init__(self, real: Any, spent: Counter):
        self.real, self.spent = real, spent

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.real, name)
        if not callable(found):
            return found

        def timed(*args: Any) -> Any:
            started = perf_counter()
            try:
                return found(*args)
            finally:
                self.spent[name] += perf_counter() - started

        return timed


class Clock(Timed):
    """The rollouts: a step begins where it takes its groups. Notes what had been spent by then."""

    def __init__(self, real: Any, spent: Counter):
        super().__init__(real, Counter())
        self.of_others = spent
        self.begun: list[tuple[float, Counter]] = []

    def take(self, state: State) -> Any:
        self.begun.append((perf_counter(), Counter(self.of_others)))
        return self.real.take(state)


def of_a_run() -> dict:
    """Shares of the wall time between the first step and the one behind the last whole interval."""
    spent: Counter = Counter()
    clocks: list[Clock] = []
    every = CheckpointConfig().every

    def ours(cfg: Any, objective: Any, parts: Any) -> State:
        clocks.append(Clock(parts.rollouts, spent))
        timed = {name: Timed(getattr(parts, name), spent) for name in ("checkpoints", "sentinel")}
        return train(cfg, objective, replace(parts, rollouts=clocks[0], **timed))

    rlvr.run.train = ours  # type: ignore[assignment]
    with tempfile.TemporaryDirectory() as folder:
        words = ["cluster=inline", f"steps={INTERVALS * every + 2}", "data.heldout=null", "log.console=false"]
        code = cli.main(["train", "quickstart", *words, f"run.folder={folder}/run"])
    assert code == 0, f"exit code {code}"
    begun = clocks[0].begun[: INTERVALS * every + 1]
    elapsed, used = begun[-1][0] - begun[0][0], begun[-1][1] - begun[0][1]
    steps = [after - now for (now, _), (after, _) in pairwise(begun)]
    return {
        "steps": len(steps),
        "step_s": median(steps),
        "checkpoints": INTERVALS,
        "checkpoint_share": (used["save"] + used["settle"]) / elapsed,
        "sentinel_share": (used["watch"] + used["inspect"]) / elapsed,
    }


def of_a_size(millions: float, repeats: int = 3) -> dict:
    """Of one rank: medians over `repeats` checkpoints, the first, which touches new memory and files, apart."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_model(str(folder / "model"), millions)
        trainer = DeepSpeedTrainer(ModelConfig(str(folder / "model"), dtype="float32"), TrainerConfig(threads=1), 1.0)
        trainer.step(batch_of(FEW, PROMPT), GRPO, 1e-6)
        checkpoints = DiskCheckpoints(folder / "run", CheckpointConfig(keep=1), [1, 2, 3], lambda kind, said: None)
        state = checkpoints.first(trainer)
        waits, writes, copies = [], [], []
        for _ in range(repeats):
            state = state.advance(0, {}, 64)
            started = perf_counter()
            checkpoints.save(trainer, state)
            waited = perf_counter() - started
            while checkpoints.pending:
                sleep(0.02)  # a step
                began = perf_counter()
                checkpoints.settle(trainer, state.step)
                waited += perf_counter() - began
            waits.append(waited)
            writes.append(perf_counter() - started - waited)
            bytes_ = size(folder / "run" / checkpoints.ledger.usable()[-1])
            source = torch.ones(bytes_ // 4)
            began = perf_counter()
            source.clone()
            copies.append(perf_counter() - began)
            del source
    return {
        "millions": millions,
        "gb": bytes_ / 1e9,
        "wait_s": median(waits),
        "write_s": median(writes),
        "copies": median(w / c for w, c in zip(waits, copies, strict=True)),
        "gb_per_s": bytes_ / 1e9 / median(waits),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--millions", type=float, nargs="+", default=[10, 40, 160])
    parser.add_argument("--out", type=Path)
    a = parser.parse_args()
    with get_context("spawn").Pool(1, maxtasksperchild=1) as processes:  # DeepSpeed starts once a process
        sizes = processes.map(of_a_size, a.millions, chunksize=1)
    run = of_a_run()
    run["sentinel_share_full_memory"] = cost() / 1000 / run["step_s"]
    print(
        f"the sentinel: {run['sentinel_share']:.3%} of the time of {run['steps']} steps of {run['step_s']:.2f} s "
        f"(goal: under 1%); {run['sentinel_share_full_memory']:.3%} with 1,000 steps in memory"
    )
    print(f"checkpoints: {run['checkpoint_share']:.2%} of the time at the default interval (goal: under 5%)")
    for one in sizes:
        print(
            f"{one['millions']:5g} million parameters, {one['gb']:.2f} GB: training waits {one['wait_s']:.2f} s, "
            f"{one['copies']:.1f} copies of the same bytes; {one['write_s']:.2f} s of writing beside the steps"
        )
    if a.out:
        a.out.write_text(json.dumps({"run": run, "sizes": sizes}, indent=1) + "\n")


if __name__ == "__main__":
    main()
