"""On a GPU: tokens a second and model-FLOPs utilisation of a trainer step, against transformers' plain training step.

    python scripts/bench/gpu.py [--out gpu.json] [--profile profile.txt]

A random model of Qwen3-0.6B's shape, in bfloat16. Both train on the same completions, in turn, in this process: `even`
are all as long as one another, `tail` are mostly short, a few long. The plain step pads each micro-batch of completions
to its longest, takes the loss from the model itself, and updates bfloat16 weights with fused AdamW; ours packs, has
GRPO's loss, compiles the layers, and updates float32 weights through DeepSpeed. Both may have as many tokens in a
pass, padding included, and neither recomputes activations. FLOPs are those of the real tokens: two for each weight of a
matrix and four for each element of attention, three times that with the backward pass.
"""

import argparse
import json
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
from packing import GRPO, batch_of
from torch import Tensor
from transformers import AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM

from rlvr.config import ModelConfig, TrainerConfig
from rlvr.plan.model import read
from rlvr.train.deepspeed import DeepSpeedTrainer

PROMPT = 128
BF16_PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "B200": 2250e12}  # dense, data sheets
SHAPE = {
    "vocab_size": 151_936, "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28,
    "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "tie_word_embeddings": True,
    "max_position_embeddings": 8192,
}  # fmt: skip


def make_model(folder: str) -> None:
    torch.manual_seed(0)
    with torch.device("cuda"):
        Qwen3ForCausalLM(Qwen3Config(**SHAPE)).to(torch.bfloat16).save_pretrained(folder)


def lengths(kind: str, count: int) -> list[int]:
    rng = random.Random(0)
    if kind == "even":
        return [896] * count
    return [min(4096 - PROMPT, max(64, int(rng.lognormvariate(5.8, 0.9)))) for _ in range(count)]


def matrix_flops(size: int = 8192) -> float:
    a, b = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    return 2 * size**3 / timed(lambda: a @ b, 20)


def timed(run: Callable[[], object], repeats: int) -> float:
    """Seconds of one; the first three warm up."""
    for _ in range(3):
        run()
    torch.cuda.synchronize()
    started = perf_counter()
    for _ in range(repeats):
        run()
    torch.cuda.synchronize()
    return (perf_counter() - started) / repeats


class Plain:
    """transformers as its documentation trains with it."""

    def __init__(self, path: str, tokens: int):
        self.lm = AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16, attn_implementation="sdpa").cuda()
        self.lm.config.use_cache = False
        self.optimizer = torch.optim.AdamW(self.lm.parameters(), lr=1e-6, fused=True)
        self.tokens = tokens

    def step(self, ids_BT: Tensor, ends_B: Tensor, mask_BT: Tensor) -> float:
        total, computed = float(mask_BT.sum()), 0
        for rows in self.passes(ends_B.tolist()):
            width = int(ends_B[rows].max())
            ids = ids_BT[rows, :width].cuda()
            attention = (torch.arange(width)[None] < ends_B[rows, None]).cuda()
            labels = torch.where(mask_BT[rows, :width].cuda() > 0, ids, -100)
            out = self.lm(input_ids=ids, attention_mask=attention.long(), labels=labels, num_items_in_batch=total)
            out.loss.backward()
            computed += ids.numel()
        torch.nn.utils.clip_grad_norm_(self.lm.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return 1 - float(ends_B.sum()) / computed

    def passes(self, ends: list[int]) -> list[slice]:
        """In the order they come, each as many completions as the budget allows."""
        cuts = [0]
        for n in range(1, len(ends)):
            if (n + 1 - cuts[-1]) * max(ends[cuts[-1] : n + 1]) > self.tokens:
                cuts.append(n)
        return [slice(a, b) for a, b in zip(cuts, [*cuts[1:], len(ends)], strict=True)]


def measured(step: Callable[[], object], warm: int, repeats: int) -> dict:
    for _ in range(warm):
        step()
    torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(repeats):
        torch.cuda.synchronize()
        started = perf_counter()
        step()
        torch.cuda.synchronize()
        seconds.append(perf_counter() - started)
    return {"seconds": seconds, "peak_gb": torch.cuda.max_memory_allocated() / 1e9}


def profiled(step: Callable[[], object], out: Path) -> None:
    kinds = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=kinds) as profile:
        step()
        torch.cuda.synchronize()
    averages = profile.key_averages()
    tables = [
        averages.table(sort_by=f"self_{on}_time_total", row_limit=45, max_name_column_width=90)
        for on in ("cuda", "cpu")
    ]
    out.write_text("\n".join(tables), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=8192, help="of a forward and backward pass")
    parser.add_argument("--completions", type=int, default=64)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--attention", default="auto", help="model.attention of ours")
    parser.add_argument("--eager", action="store_true", help="trainer.compile=false of ours")
    parser.add_argument("--workloads", nargs="+", default=["even", "tail"])
    parser.add_argument("--profile", type=Path, help="where to write what a step of ours spends its time on")
    parser.add_argument("--out", type=Path)
    a = parser.parse_args()
    device = torch.cuda.get_device_name()
    peak = next((flops for name, flops in BF16_PEAK.items() if name in device), None)
    reached = matrix_flops()
    print(f"{device}: {reached / 1e12:.0f} TFLOP/s in a large bf16 product", flush=True)
    done: dict = {
        "device": device,
        "torch": torch.__version__,
        "product_flops": reached,
        "peak_flops": peak,
        "runs": [],
    }
    with tempfile.TemporaryDirectory() as path:
        make_model(path)
        size = read(path)
        plain = Plain(path, a.tokens)
        cfg = TrainerConfig(micro_batch_tokens=a.tokens, zero_stage=1, threads=8, compile=not a.eager)
        ours = DeepSpeedTrainer(ModelConfig(path, dtype="bfloat16", attention=a.attention), cfg, 1.0)
    for kind in a.workloads:
        batch = batch_of(lengths(kind, a.completions), PROMPT)
        ends_B, tokens = batch.lengths_B, int(batch.lengths_B.sum())
        flops = sum(3 * size.flops((n + 1) / 2) * n for n in ends_B.tolist())
        wasted = {}

        def of_plain(batch=batch, wasted=wasted) -> None:
            wasted["plain"] = plain.step(batch.token_ids_BT, batch.lengths_B, batch.mask_BT)

        def of_ours(batch=batch, wasted=wasted) -> None:
            wasted["rlvr"] = ours.step(batch, GRPO, 1e-6)["packing/padding_waste"]

        for turn in range(a.turns):
            for side, step in (("plain", of_plain), ("rlvr", of_ours)):
                one = measured(step, 2 if turn == 0 else 1, a.repeats)
                rate = tokens / median(one["seconds"])
                one |= {"side": side, "workload": kind, "turn": turn, "tokens": tokens, "tokens_per_s": rate}
                one |= {"flops_per_s": flops / median(one["seconds"]), "padding": wasted[side]}
                done["runs"].append(one)
                share = one["flops_per_s"] / (peak or reached)
                print(
                    f"{kind:5} {side:5} {rate:9,.0f} tokens/s, {share:.1%} of {'peak' if peak else 'the product'}, "
                    f"padding {one['padding']:.1%}, {one['peak_gb']:.1f} GB", flush=True,
                )  # fmt: skip
        pairs = [
            [r["tokens_per_s"] for r in done["runs"] if r["workload"] == kind and r["side"] == s]
            for s in ("rlvr", "plain")
        ]
        ratios = [x / y for x, y in zip(*pairs, strict=True)]
        done[f"times_plain_{kind}"] = ratios
        said = f"{median(ratios):.2f} times the plain step's tokens a second ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"{kind}: {said}", flush=True)
        if a.profile:
            profiled(of_ours, a.profile.with_stem(f"{a.profile.stem}-{kind}"))
    torch.distributed.destroy_process_group()
    if a.out:
        a.out.write_text(json.dumps(done, indent=1) + "\n")


if __name__ == "__main__":
    main()
