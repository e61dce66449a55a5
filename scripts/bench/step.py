"""The trainer's step: what its parts cost, how it grows with the tokens, what a second rank brings.

    python scripts/bench/step.py [--out step.json] [--millions 15]

One run, on lengths as they come (16 to 512 tokens, most short, a few long), with a random model made on the spot and
one thread a rank: the share of each phase and of padding; seconds for 1 to 10 times the tokens, in turn; tokens per
second of 1 and of 2 data-parallel ranks, in turn, each rank a process with a core of its own.
"""

import argparse
import json
import random
import socket
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
import torch.multiprocessing as mp
from packing import GRPO, batch_of
from transformers import Qwen3Config, Qwen3ForCausalLM

from rlvr.config import ModelConfig, TrainerConfig
from rlvr.observe.metrics import aggregate
from rlvr.train.deepspeed import DeepSpeedTrainer

PHASES = ("time/logprobs", "time/gradient", "time/optimizer")
PROMPT = 12


def make_model(folder: str, millions: float) -> None:
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=4096, hidden_size=384, intermediate_size=1152, num_attention_heads=6, num_key_value_heads=6,
        head_dim=64, num_hidden_layers=max(1, round((millions - 1.6) / 1.92)), tie_word_embeddings=True,
    )  # fmt: skip
    Qwen3ForCausalLM(config).save_pretrained(folder)


def lengths(count: int, seed: int) -> list[int]:
    rng = random.Random(seed)
    return [512 if rng.random() < 0.05 else min(512, max(16, int(rng.lognormvariate(3.5, 0.8)))) for _ in range(count)]


def steps(trainer: DeepSpeedTrainer, count: int, repeats: int) -> dict:
    """Medians over `repeats` steps of `count` completions, of different lengths each."""
    rows, seconds, tokens = [], [], []
    for step in range(repeats):
        torch.manual_seed(step)
        batch = batch_of(lengths(count, step), PROMPT)
        started = perf_counter()
        rows.append(trainer.step(batch, GRPO, 1e-6))
        seconds.append(perf_counter() - started)
        tokens.append(int(batch.lengths_B.sum()))
    means = aggregate(rows)
    return {
        "tokens": median(tokens),
        "seconds": median(seconds),
        "us_per_token": median(s / t for s, t in zip(seconds, tokens, strict=True)) * 1e6,
        "padding_waste": max(row["packing/padding_waste"] for row in rows),
        "phases": {name: means[name] / means["time/train"] for name in PHASES},
    }


def rank(number: int, ranks: int, port: int, path: str, count: int, repeats: int, out: str) -> None:
    cfg = TrainerConfig(ranks=ranks, zero_stage=1 if ranks > 1 else 0, threads=1)
    trainer = DeepSpeedTrainer(ModelConfig(path, dtype="float32"), cfg, 1.0, number, f"127.0.0.1:{port}")
    steps(trainer, count, 1)  # warms up
    measured = steps(trainer, count, repeats)
    if number == 0:
        Path(out).write_text(json.dumps(measured))


def on_ranks(ranks: int, path: str, count: int, repeats: int) -> dict:
    with socket.socket() as probe, tempfile.NamedTemporaryFile() as out:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        mp.start_processes(rank, (ranks, port, path, count, repeats, out.name), nprocs=ranks, start_method="spawn")
        return json.loads(Path(out.name).read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--millions", type=float, default=15)
    parser.add_argument("--completions", type=int, default=32, help="of the smallest step; the largest has 10 times")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    a = parser.parse_args()
    done: dict = {"settings": {name: value for name, value in vars(a).items() if name != "out"}}
    with tempfile.TemporaryDirectory() as path:
        make_model(path, a.millions)
        pairs = [[on_ranks(ranks, path, 4 * a.completions, a.repeats) for ranks in (1, 2)] for _ in range(2)]
        done["ranks"] = [{"1": one, "2": two} for one, two in pairs]
        trainer = DeepSpeedTrainer(ModelConfig(path, dtype="float32"), TrainerConfig(threads=1), 1.0)
        steps(trainer, a.completions, 1)
        done["growth"] = {k: steps(trainer, k * a.completions, a.repeats) for k in (1, 2, 5, 10)}
        torch.distributed.destroy_process_group()
    first, last = done["growth"][1], done["growth"][10]
    print("a step: " + ", ".join(f"{name.removeprefix('time/')} {share:.1%}" for name, share in last["phases"].items()))
    print(f"padding: at most {max(one['padding_waste'] for one in done['growth'].values()):.1%} (goal: under 5%)")
    for times, one in done["growth"].items():
        print(
            f"{times:3} x: {one['tokens']:8.0f} tokens, {one['seconds']:6.2f} s, {one['us_per_token']:.1f} us a token"
        )
    print(f"a token of 10 times as many costs {last['us_per_token'] / first['us_per_token']:.2f} of one of as many")
    gain = [one["seconds"] / two["seconds"] for one, two in pairs]
    print(f"2 ranks are {median(gain):.2f} times as fast as 1 ({min(gain):.2f} to {max(gain):.2f})")
    done |= {"per_token_10x": last["us_per_token"] / first["us_per_token"], "speedup_2_ranks": gain}
    if a.out:
        a.out.write_text(json.dumps(done, indent=1) + "\n")


if __name__ == "__main__":
    main()
