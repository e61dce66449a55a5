"""How much faster is a trainer step with completions packed end to end, and with prompts shared by a group of 8, than
with one completion a row?

    python scripts/bench/packing.py [--steps 10] [--prompts 12 64] [--model recipes/tiny] [--out packing.json]

And how much of the rows is padding, on paper, for many batches. The trainers take the same batches in turn, in this
process, on lengths drawn like those of a real run: most completions short, some at the limit. Reported are medians,
ratios, and each one's padding. Same gradients either way: tests/train/test_policy.py.
"""

import argparse
import json
import random
from collections.abc import Callable
from pathlib import Path
from statistics import mean, median
from time import perf_counter

import torch

from rlvr.config import ModelConfig, TrainerConfig
from rlvr.objective import Batch, Objective
from rlvr.objective.advantages import standardize
from rlvr.objective.ratios import token
from rlvr.objective.surrogates import clip
from rlvr.objective.weightings import token_mean
from rlvr.train.deepspeed import DeepSpeedTrainer
from rlvr.train.packing import layout

ATTENTION_TOKENS = 768.0  # of the tiny model
GRPO = Objective(standardize, token, lambda w, A, lp: clip(w, A, lp, low=0.2, high=0.2), token_mean)


def batch_of(lengths: list[int], prompt: int, group: int = 1) -> Batch:
    """`group` completions in a row begin with the same prompt."""
    B, T = len(lengths), max(lengths) + prompt
    ids_BT = torch.randint(3, 20, (B, T))
    ids_BT[:, :prompt] = ids_BT[::group, :prompt].repeat_interleave(group, 0)[:B]
    at_T = torch.arange(T)
    ends_B = torch.tensor(lengths) + prompt
    mask_BT = ((at_T >= prompt) & (at_T < ends_B[:, None])).float()
    zeros_BT = torch.zeros(B, T)
    return Batch(
        ids_BT,
        ends_B,
        mask_BT,
        zeros_BT - 1,
        torch.randn(B, 1),
        token_mean(mask_BT, mask_BT),
        mask_BT,
        torch.zeros(B, 1),
        prompts_B=torch.full((B,), prompt),
    )


def padding(draws: int) -> list[dict]:
    """Of batches of 128 completions as the trainer's defaults lay them out; prompts are not shared."""
    kinds: dict[str, Callable[[random.Random], int]] = {
        "16 to 512 tokens, long-tailed": lambda rng: 512 if rng.random() < 0.05 else tailed(rng, 16),
        "33 to 49 tokens, as the quickstart's": lambda rng: 21 + rng.randint(12, 28),
    }
    cfg, found = TrainerConfig(), []
    for name, drawn in kinds.items():
        for ranks in (1, 2):
            rng = random.Random(0)
            waste = [
                layout(
                    [drawn(rng) for _ in range(128)], ranks, cfg.row_tokens, cfg.micro_batch_tokens, ATTENTION_TOKENS
                ).padding_waste
                for _ in range(draws)
            ]
            found.append({"lengths": name, "ranks": ranks, "draws": draws, "mean": mean(waste), "worst": max(waste)})
            print(f"{name}, {ranks} ranks: padding {mean(waste):.1%}, at worst {max(waste):.1%}")
    return found


def tailed(rng: random.Random, least: int) -> int:
    return min(512, max(least, int(rng.lognormvariate(3.5, 0.8))))


def side_by_side(arguments: argparse.Namespace, prompt: int) -> dict:
    rng = random.Random(0)
    trainers = {
        "shared": TrainerConfig(threads=arguments.threads),
        "packed": TrainerConfig(threads=arguments.threads, share_prompts=False),
        "one a row": TrainerConfig(threads=arguments.threads, share_prompts=False, row_tokens=1),
    }
    model = ModelConfig(path=arguments.model, max_context=1024)
    built = {name: DeepSpeedTrainer(model, cfg, 1.0) for name, cfg in trainers.items()}
    seconds: dict[str, list[float]] = {name: [] for name in trainers}
    waste: dict[str, list[float]] = {name: [] for name in trainers}
    for step in range(arguments.steps + 2):  # the first two warm up
        lengths = [min(512, max(4, int(rng.lognormvariate(3.5, 1.0)))) for _ in range(128)]
        batch = batch_of(lengths, prompt=prompt, group=8)
        for name, trainer in built.items():
            started = perf_counter()
            metrics = trainer.step(batch, GRPO, 1e-6)
            if step >= 2:
                seconds[name].append(perf_counter() - started)
                waste[name].append(metrics["packing/padding_waste"])
    print(f"prompts of {prompt} tokens")
    for name in trainers:
        print(f"{name:10} {median(seconds[name]):.3f} s a step, padding {median(waste[name]):.1%}")
    for name in ("packed", "one a row"):
        ratios = [slow / fast for fast, slow in zip(seconds["shared"], seconds[name], strict=True)]
        print(f"shared is {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) times as fast as {name}")
    return {"prompt": prompt, "seconds": seconds, "padding": waste}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--model", default=str(Path(__file__).resolve().parents[2] / "recipes" / "tiny"))
    parser.add_argument("--prompts", type=int, nargs="+", default=[12, 64], help="tokens")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    done = {"padding": padding(arguments.draws)}
    done["steps"] = [side_by_side(arguments, prompt) for prompt in arguments.prompts]
    if arguments.out:
        arguments.out.write_text(json.dumps(done, indent=1) + "\n")


if __name__ == "__main__":
    main()
