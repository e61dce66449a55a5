"""The long-tailed workload of against_trl.py: a model of the tiny one's shape whose completions have 16 to 512 tokens.

    a completion:   a b c ... p  7 0 3 3 9 ... 4 <eos>      16 letters, then digits until a coin says stop
    a prompt:       S<number>: the coin ends after 16 digits on average;  L<number>: after 300

One prompt in 16, so one in each step, is an L. A reward for the first digit's being even teaches, and leaves the
lengths alone. Knows how to make the model and the prompts; knows neither side.
"""

import json
import random
import sys
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy
from torch.nn.utils import clip_grad_norm_

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from make_tiny_model import make_model, make_tokenizer, prompt_text

PATTERN = "^[a-p]+[02468]"
HEAD = "abcdefghijklmnop"
MEAN_DIGITS = {"S": 16, "L": 300}
MAX_TOKENS, GROUPS = 512, 16
STEPS, PEAK = 150, 4e-3
RECIPE = """
defaults: [recipe_schema, algorithm: grpo_no_kl, cluster: local, sentinel: default, _self_]
name: tail
steps: 1
model: {{path: {model}, max_context: 544}}
data: {{train: {data}, shuffle: false}}
reward: {{parts: {{even: {{verifier: regex, params: {{pattern: "{pattern}", where: all}}}}}}}}
rollout: {{groups_per_step: {groups}, group_size: 8, max_tokens: {max_tokens}, max_sequences: 128}}
trainer: {{betas: [0.9, 0.95], threads: 2}}
"""


def text(kind: str, rng: random.Random) -> str:
    digits = [str(rng.randrange(10))]
    while rng.random() > 1 / MEAN_DIGITS[kind] and len(digits) < MAX_TOKENS:
        digits.append(str(rng.randrange(10)))
    return HEAD + "".join(digits)


def loss_of(model: torch.nn.Module, tokenizer, kind: str, count: int, rng: random.Random) -> torch.Tensor:  # type: ignore
    """Of the completions' tokens alone."""
    texts = [prompt_text(f"{kind}{rng.randrange(10_000)}") + text(kind, rng) + "<eos>" for _ in range(count)]
    batch = tokenizer(texts, padding=True, padding_side="right", return_tensors="pt")
    ids = batch["input_ids"]
    answer = (ids == tokenizer.convert_tokens_to_ids("<a>")).cumsum(1).bool() & batch["attention_mask"].bool()
    logits = model(input_ids=ids[:, :-1]).logits
    return cross_entropy(
        logits.flatten(0, 1), ids[:, 1:].masked_fill(~answer[:, :-1] | (ids[:, 1:] == 0), -100).flatten()
    )


def make(folder: Path, seed: int = 0, steps: int = STEPS) -> Path:
    """Model and prompts into `folder`; returns our recipe for them."""
    torch.manual_seed(seed)
    rng = random.Random(seed)
    tokenizer = make_tokenizer()
    tokenizer.model_max_length = 1024
    model = make_model(tokenizer)
    model.config.max_position_embeddings = 1024
    tokenizer.save_pretrained(folder / "model")  # before its use, which would leave its padding in the files
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK, betas=(0.9, 0.98), weight_decay=0.01)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = PEAK * min(1, (step + 1) / 20) * (1 - step / steps)
        loss_of(model, tokenizer, "S", 24, rng).backward()
        loss_of(model, tokenizer, "L", 3, rng).backward()
        clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    model.eval().save_pretrained(folder / "model")
    rows = [{"problem": f"{'L' if n % GROUPS == 0 else 'S'}{n}", "answer": "even"} for n in range(100 * GROUPS)]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    places = {"model": folder / "model", "data": folder / "train.jsonl", "pattern": PATTERN}
    recipe = folder / "tail.yaml"
    recipe.write_text(RECIPE.format(**places, groups=GROUPS, max_tokens=MAX_TOKENS))
    return recipe
