"""What one core of this machine does, as a device that `rlvr plan --gpu FILE` knows.

    python scripts/bench/device.py my.json [--model recipes/tiny]

Memory bandwidth by a large copy, FLOP/s by float32 matrix products. The rest from steps of our own engine (vLLM) and
trainer, a few sequences against many: what a step costs however small, and what each sequence or token adds. Medians;
nothing of a whole run is fitted, so that a run can be compared with the plan.
"""

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter

import psutil
import torch

from rlvr.plan.model import read

TINY = Path(__file__).resolve().parents[2] / "recipes" / "tiny"


def seconds(run: Callable[[], object], repeat: int = 7) -> float:
    """The median; the first call warms up."""
    run()
    taken = []
    for _ in range(repeat):
        started = perf_counter()
        run()
        taken.append(perf_counter() - started)
    return median(taken)


def matrix_flops(size: int = 512) -> float:
    a, b = torch.randn(size, size), torch.randn(size, size)
    return 2 * size**3 / seconds(lambda: a @ b, 15)


def bandwidth(megabytes: int = 256) -> float:
    """Read and write of a copy, counted as both."""
    source = torch.ones(megabytes * 2**18)
    target = torch.empty_like(source)
    return 2 * source.numel() * 4 / seconds(lambda: target.copy_(source))


def sampling(model: str, flops: float) -> tuple[float, float, float]:
    """(seconds of a decoding step, seconds of a sequence in it, share of `flops` that reading prompts reaches)."""
    from rlvr.rollout.engine import requests_of
    from rlvr.rollout.vllm import VllmEngine
    from rlvr.types import Prompt, Sampling

    engine, length = VllmEngine(model, dtype="float32", max_model_len=256, max_num_seqs=256), 64
    taken: dict[str, list[tuple[int, float]]] = {"reading": [], "decoding": []}

    def sample(count: int) -> None:
        """As hot as vLLM allows: few of them end soon."""
        prompt = Prompt("p", 0, ({"role": "user", "content": "1+1"},), tuple(3 + n % 20 for n in range(length)), "2")
        engine.add(requests_of([prompt], Sampling(count, max_tokens=32, temperature=2.0)))
        kind = "reading"
        while running := engine.running:
            started = perf_counter()
            engine.step()
            taken[kind].append((running, perf_counter() - started))
            kind = "decoding"

    sample(128)
    for steps in taken.values():
        steps.clear()  # the first ones warm up
    for _ in range(5):
        sample(8)
        sample(64)
        sample(128)
    (few, few_s), (many, many_s) = (
        (median(n for n, _ in found), median(s for _, s in found))
        for found in (
            [(n, s) for n, s in taken["decoding"] if n <= 8],
            [(n, s) for n, s in taken["decoding"] if n > 96],
        )
    )
    each = max(many_s - few_s, 0.0) / (many - few)
    step = max(few_s - few * each, 0.0)
    read_s = median(s for n, s in taken["reading"] if n == 64) - step - 64 * each
    return step, each, 64 * length * read(model).flops(length / 2) / read_s / flops


def training(model: str, flops: float) -> tuple[float, float]:
    """(seconds of a pass however small, share of `flops` that many tokens reach): steps of our own trainer."""
    from packing import GRPO, batch_of

    from rlvr.config import ModelConfig, TrainerConfig
    from rlvr.plan.work import work_of
    from rlvr.train.deepspeed import DeepSpeedTrainer
    from rlvr.train.packing import layout

    cfg, architecture = TrainerConfig(threads=1), read(model)
    trainer = DeepSpeedTrainer(ModelConfig(path=model, max_context=1024), cfg, 1.0)
    prompt, length = 8, 24

    def step(completions: int) -> tuple[float, float]:
        """(seconds, FLOPs)"""
        batch, lengths = batch_of([length] * completions, prompt), [prompt + length] * completions
        packed = layout(lengths, 1, cfg.row_tokens, cfg.micro_batch_tokens, architecture.attention_tokens)
        work = work_of(packed, lengths, prompt, hidden=True)
        taken = seconds(lambda: trainer.step(batch, GRPO, 1e-6), 5)
        return taken, 3 * architecture.forward(work.tokens, work.attended)

    (few_s, few), (many_s, many) = step(8), step(128)
    rate = (many - few) / (many_s - few_s)
    return max(few_s - few / rate, 0.0), rate / flops


def measured(model: str) -> dict[str, float | str]:
    """The fields of a `rlvr.plan.devices.Device`."""
    torch.set_num_threads(1)
    flops, moved = matrix_flops(), bandwidth()
    train_pass, train_share = training(model, flops)
    step, sequence, prefill_share = sampling(model, flops)
    cores = len(os.sched_getaffinity(0))
    return {
        "name": "cpu core",
        "memory_gib": psutil.virtual_memory().total / 2**30,
        "flops": flops,
        "bandwidth": moved,
        "link": moved / 2,
        "host": moved / 2,
        "network": 1.25e9,
        "price": 0.05,
        "node": cores,
        "cpu": True,
        "dtype_bytes": 4,
        "train_efficiency": train_share,
        "prefill_efficiency": prefill_share,
        "pass_s": step,
        "sequence_s": sequence,
        "train_pass_s": train_pass,
        "transfer_s": 0.02,
        "reserved_gib": 2.0,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default=str(TINY))
    arguments = parser.parse_args()
    device = measured(arguments.model)
    arguments.out.write_text(json.dumps(device, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(device, indent=2))


if __name__ == "__main__":
    main()
