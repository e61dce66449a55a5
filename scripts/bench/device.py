"""What one core of this machine does, as a device that `rlvr plan --gpu FILE` knows.

    python scripts/bench/device.py docs/measured/cpu.json [--model recipes/tiny]

Memory bandwidth by a large copy, FLOP/s by float32 matrix products, the fixed costs of a decoding step (alone and for
each sequence) by two batch sizes on the vLLM engine, those of a training pass by a small and a large micro-batch.
Medians; nothing of a whole run is fitted, so that a run can be compared with the plan.
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


def decoding(model: str) -> tuple[float, float]:
    """(seconds of a step, seconds of a sequence in it), from whole answers of fixed length."""
    from rlvr.rollout.engine import generate
    from rlvr.rollout.vllm import VllmEngine
    from rlvr.types import Prompt, Sampling

    engine = VllmEngine(model, dtype="float32", max_model_len=256, max_num_seqs=256)
    tokens = 24

    def sample(count: int) -> float:
        prompt = Prompt("p", 0, ({"role": "user", "content": "1+1"},), (3, 4, 5, 6, 7, 8), "2")
        sampling = Sampling(completions=count, max_tokens=tokens, temperature=1.0, seed=0)
        # a step a token, the prompts' prefill among them
        return seconds(lambda: list(generate(engine, [prompt], sampling)), 5) / tokens

    few, many = sample(8), sample(128)
    each = (many - few) / 120
    return max(few - 8 * each, 0.0), each


def training(model: str, flops: float) -> tuple[float, float]:
    """(seconds of a pass however small, share of `flops` that a large one reaches): forward and backward."""
    from transformers import AutoModelForCausalLM

    lm = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    size = read(model)

    def run(rows: int, length: int) -> float:
        ids = torch.randint(3, 20, (rows, length))
        return seconds(lambda: lm(input_ids=ids, labels=ids).loss.backward(), 5)

    small, large = run(1, 32), run(16, 256)
    rate = (16 * 256 - 32) * 3 * size.flops(128) / (large - small)
    return max(small - 32 * 3 * size.flops(16) / rate, 0.0), rate / flops


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default=str(TINY))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    flops, moved = matrix_flops(), bandwidth()
    train_pass, train_share = training(arguments.model, flops)
    step, sequence = decoding(arguments.model)
    cores = len(os.sched_getaffinity(0))
    device = {
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
        "prefill_efficiency": train_share,
        "pass_s": step,
        "sequence_s": sequence,
        "train_pass_s": train_pass,
        "transfer_s": 0.02,
        "reserved_gib": 2.0,
    }
    arguments.out.write_text(json.dumps(device, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(device, indent=2))


if __name__ == "__main__":
    main()
