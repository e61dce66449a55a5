"""On a GPU: a whole run of a real model's shape, by phases, against what `rlvr plan` says of it.

    python scripts/bench/gpu_run.py [--steps 4] [--out gpu_run.json] [key=value ...]

The recipe qwen3_0.6b_math_1gpu, as it is: engine and trainer share the GPU. Its model and data are made here: random
weights of its shape, words for tokens, and so many of them end a completion that lengths are geometric, most short, a
few long. Half of the completions please, by the last letter, so that groups teach. The first step warms up. The plan
is told the lengths, how many groups taught and how long a verdict takes; nothing else of the run.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import fmean

import planned
import torch
from gpu import BF16_PEAK, SHAPE
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

REWARD = """
defaults: [qwen3_0.6b_math_1gpu, _self_]
reward:
  parts:
    even: {verifier: regex, params: {pattern: '[02468]\\s*$'}}
"""
WARM_UP = 1
DOES_NOT_FIT = 3  # of `rlvr plan`, an exit code
PROMPT = 128  # tokens
CHAT = "{% for message in messages %}{{ message['content'] }} {% endfor %}{% if add_generation_prompt %}w3 {% endif %}"


def make_model(folder: Path, shape: dict, mean_tokens: int) -> None:
    torch.manual_seed(0)
    vocabulary = shape["vocab_size"]
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = Qwen3ForCausalLM(Qwen3Config(**shape, eos_token_id=0, pad_token_id=1)).to(torch.bfloat16)
    ends = list(range(0, vocabulary, mean_tokens))
    model.generation_config = GenerationConfig(eos_token_id=ends, pad_token_id=1)
    model.save_pretrained(folder)
    words = Tokenizer(models.WordLevel({f"w{n}": n for n in range(vocabulary)}, unk_token="w2"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=words, eos_token="w0", pad_token="w1", unk_token="w2", chat_template=CHAT
    ).save_pretrained(folder)


def make_data(path: Path, vocabulary: int, rows: int = 512) -> None:
    rng = random.Random(0)
    problems = (" ".join(f"w{rng.randrange(4, vocabulary)}" for _ in range(PROMPT)) for _ in range(rows))
    path.write_text("".join(json.dumps({"problem": text, "answer": "7"}) + "\n" for text in problems))


def command(words: list[str], fine: tuple[int, ...] = (0,)) -> str:
    whole = [sys.executable, "-m", "rlvr.cli", *words]
    done = subprocess.run(whole, capture_output=True, text=True, check=False)
    if done.returncode not in fine:
        raise SystemExit(f"{' '.join(whole)}\n{done.stdout[-2000:]}\n{done.stderr[-6000:]}")
    return done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=4, help="that are measured")
    parser.add_argument("--mean-tokens", type=int, default=700)
    parser.add_argument("--shape", type=json.loads, default={}, help="of the model, where it is not Qwen3-0.6B's")
    parser.add_argument("--gpu", help="as in `rlvr plan --gpu`; else by this one's name")
    parser.add_argument("--out", type=Path)
    parser.add_argument("overrides", nargs="*", help="of the recipe")
    a = parser.parse_args()
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    gpu = a.gpu or next((known.lower() for known in BF16_PEAK if known in name), None)
    if gpu is None:
        parser.error(f"{name}: say with --gpu what the plan is for, as in `rlvr plan --gpu`")
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        shape = SHAPE | a.shape
        make_model(folder / "model", shape, a.mean_tokens)
        make_data(folder / "train.jsonl", shape["vocab_size"])
        recipe = folder / "whole.yaml"
        recipe.write_text(REWARD)
        words = [str(recipe), f"model.path={folder / 'model'}", f"data.train={folder / 'train.jsonl'}",
                 "data.heldout=null", "data.system=null", "evaluation.every=0", *a.overrides]  # fmt: skip
        started = ["log.console=false", "checkpoint.every=1000", f"steps={a.steps + WARM_UP}"]
        command(["train", *words, *started, f"run.folder={folder / 'run'}"])
        rows = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
        measured = rows[WARM_UP:]
        lengths = planned.told(measured, PROMPT + 1)
        found = {"device": name, "torch": torch.__version__, "told": lengths, "rows": rows}
        planning = ["plan", *words, "--json", "--gpu", gpu, "--count", "1", *planned.words(lengths)]
        found["plan"] = json.loads(command(planning, (0, DOES_NOT_FIT)))
    for phase in planned.PHASES:
        real, said = fmean(row[f"time/{phase}"] for row in measured), found["plan"]["seconds"][phase]
        print(f"{phase:8} {real:.2f} s measured, {said:.2f} s planned ({said / real - 1:+.0%})")
    if a.out:
        a.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
