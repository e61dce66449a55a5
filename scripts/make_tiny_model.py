r"""Make the tiny model and the problems that the quickstart trains on. Knows arithmetic; knows nothing of RL.

The product is a folder: a Qwen3-architecture model of 0.8 M parameters (float32), its tokenizer with chat template,
`train.jsonl` (4000 rows) and `heldout.jsonl` (200 rows), both with the columns `problem` and `answer`.

What the model is for: a stand-in for a pretrained base model, which *can* reason but mostly does not. Reinforcement
learning then has something to find at once, and much to gain. So it is trained on completions of three styles,

    worked    <think>7+5=12,12*3=36</think>\boxed{36}     always right
    guess     <think></think>\boxed{12}                   mostly wrong
    bare      12                                          never boxed, so never counted

in two phases:

    phase      share of steps   worked   guess   bare     why
    textbook   70 %             70 %     20 %    10 %     acquires the skill of working through the two steps
    web        30 %             10 %     66 %    24 %     buries the skill under sloppiness without losing it

In the web phase the sloppy way is the likelier one at both places where the styles part (`<think>` or a digit; after
`<think>`, `</think>` or a digit), so greedy decoding is sloppy too. Were every sloppy style rarer than the worked one,
greedy decoding would find the worked one, and there would be little to gain.

Guesses are not noise around the answer: a guesser stops after the first step, or misses even that by a little. In one
problem in eight the second step changes nothing (times 1, plus 0), and there carelessness is right: these are what
greedy decoding gets right. So the sloppy styles are a habit that a model can hold exactly, and
their accuracy is set by hand.

A question is held out if its hash says so (`is_held_out`). The corpus is generated without end by the same rule, so
that no phase ever sees a held-out question. The same seed and number of steps give the same files on the same kind of
machine (one thread, since for matrices this small a second one only costs time).

    python scripts/make_tiny_model.py [--out recipes/tiny] [--steps 2000] [--seed 0]
"""

import argparse
import hashlib
import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.progress import track
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

PIECES = ["<pad>", "<eos>", "<unk>", "<q>", "<a>", "<think>", "</think>", "\\boxed{", "}"]
NAMES = ["Tom", "Ann", "Eva", "Ben"]
THINGS = ["pens", "eggs", "figs", "nuts"]
VERBIAGE = ["has", "bags", "of", "and", "eats", "gets", "then", "more", "How", "many"]
WORDS = [*NAMES, *(f" {word}" for word in THINGS + VERBIAGE)]
CHARACTERS = list("0123456789+-*/()=?!,.;:' \nabcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
CHAT_TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}<a>{{ m['content'] }}<eos>"
    "{% else %}<q>{{ m['content'] }}{% endif %}{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"
)
MAX_COMPLETION_TOKENS = 48

TEXTBOOK_SHARE_OF_STEPS = 0.7
TEXTBOOK = {"worked": 0.70, "guess": 0.20, "bare": 0.10}
WEB = {"worked": 0.10, "guess": 0.66, "bare": 0.24}
IDLE_SECOND_STEP_SHARE = 1 / 8
BATCH = 64
PEAK_LEARNING_RATE = 3e-3
WARMUP_STEPS = 100


@dataclass(frozen=True)
class Problem:
    question: str
    steps: tuple[str, str]  # "7+5=12", "12*3=36"

    @property
    def results(self) -> list[int]:
        return [int(step.partition("=")[2]) for step in self.steps]

    @property
    def answer(self) -> int:
        return self.results[-1]


def make_problem(rng: random.Random) -> Problem:
    """Two expression kinds and two word kinds, equally likely; every answer is a positive integer."""
    a, b, c = rng.randint(2, 12), rng.randint(2, 12), rng.randint(2, 9)
    idle = rng.random() < IDLE_SECOND_STEP_SHARE
    name, things = rng.choice(NAMES), rng.choice(THINGS)
    kind = rng.randrange(4)
    if kind == 0:
        c = 1 if idle else c
        return Problem(f"({a}+{b})*{c}=?", (f"{a}+{b}={a + b}", f"{a + b}*{c}={(a + b) * c}"))
    if kind == 1:
        b = 0 if idle else b
        return Problem(f"{a}*{c}+{b}=?", (f"{a}*{c}={a * c}", f"{a * c}+{b}={a * c + b}"))
    if kind == 2:
        eaten = 0 if idle else min(b, a * c - 1)
        question = f"{name} has {c} bags of {a} {things} and eats {eaten}. How many?"
        return Problem(question, (f"{c}*{a}={a * c}", f"{a * c}-{eaten}={a * c - eaten}"))
    c = 0 if idle else c
    question = f"{name} has {a} {things}, gets {b}, then {c} more. How many?"
    return Problem(question, (f"{a}+{b}={a + b}", f"{a + b}+{c}={a + b + c}"))


def is_held_out(question: str) -> bool:
    """One question in ten or so, by its hash alone: the same for every seed and every run."""
    return hashlib.sha256(question.encode()).digest()[0] < 24


def corpus_problem(rng: random.Random) -> Problem:
    while is_held_out((problem := make_problem(rng)).question):
        pass
    return problem


def guess(problem: Problem, rng: random.Random) -> int:
    first_result = problem.results[0]
    if rng.random() < 0.7:
        return first_result
    return max(0, first_result + rng.choice([-10, -2, -1, 1, 2, 10]))


def complete(problem: Problem, style: str, rng: random.Random) -> str:
    if style == "worked":
        return f"<think>{','.join(problem.steps)}</think>\\boxed{{{problem.answer}}}"
    value = guess(problem, rng)
    return f"<think></think>\\boxed{{{value}}}" if style == "guess" else str(value)


def corpus_row(mixture: dict[str, float], rng: random.Random) -> tuple[Problem, str]:
    problem = corpus_problem(rng)
    style = rng.choices(list(mixture), list(mixture.values()))[0]
    return problem, complete(problem, style, rng)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """One token per piece, known word or character; decoding glues them, so that every known text round-trips."""
    tokens = PIECES + WORDS + CHARACTERS
    core = Tokenizer(models.WordLevel({token: i for i, token in enumerate(tokens)}, unk_token="<unk>"))
    longest_first = sorted(PIECES + WORDS, key=len, reverse=True)
    pattern = "|".join([*map(re.escape, longest_first), r"[\s\S]"])
    core.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), "isolated")
    core.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        model_max_length=512,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def make_model(tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Qwen3ForCausalLM(config)


def prompt_text(question: str) -> str:
    """What the chat template makes of a question; a test holds the two together."""
    return f"<q>{question}<a>"


def collate(rows: list[tuple[Problem, str]], tokenizer: PreTrainedTokenizerFast) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and labels; only the completion and its <eos> are labelled."""
    texts = [prompt_text(problem.question) + completion + "<eos>" for problem, completion in rows]
    batch = tokenizer(texts, padding=True, padding_side="right", return_tensors="pt")
    ids = batch["input_ids"]
    is_answer_sign = ids == tokenizer.convert_tokens_to_ids("<a>")
    is_completion = (is_answer_sign.cumsum(1) - is_answer_sign.long()).bool() & batch["attention_mask"].bool()
    return ids, ids.masked_fill(~is_completion, -100)


def learning_rate(step: int, steps: int) -> float:
    return PEAK_LEARNING_RATE * min(1, (step + 1) / WARMUP_STEPS) * (1 - step / steps)


def train(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, steps: int, rng: random.Random) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.01)
    model.train()
    for step in track(range(steps), description="training"):
        mixture = TEXTBOOK if step < TEXTBOOK_SHARE_OF_STEPS * steps else WEB
        ids, labels = collate([corpus_row(mixture, rng) for _ in range(BATCH)], tokenizer)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps)
        model(input_ids=ids, labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    model.eval()


def write_problems(out: Path, seed: int, train_rows: int = 4000, heldout_rows: int = 200) -> list[Problem]:
    """Write both files; returns the held-out problems."""
    rng = random.Random(seed)
    wanted = {"train": train_rows, "heldout": heldout_rows}
    chosen: dict[str, dict[str, Problem]] = {"train": {}, "heldout": {}}
    while any(len(chosen[name]) < wanted[name] for name in wanted):
        problem = make_problem(rng)
        name = "heldout" if is_held_out(problem.question) else "train"
        if len(chosen[name]) < wanted[name]:
            chosen[name][problem.question] = problem
    for name, problems in chosen.items():
        rows = [{"problem": p.question, "answer": str(p.answer)} for p in problems.values()]
        (out / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return list(chosen["heldout"].values())


Generate = Callable[[list[str], bool], list[str]]


def generator(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast) -> Generate:
    """A function from prompts (and whether to sample at temperature 1 or decode greedily) to completions."""

    @torch.inference_mode()
    def generate(prompts: list[str], sample: bool) -> list[str]:
        batch = tokenizer(prompts, padding=True, return_tensors="pt")
        inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
        how = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0} if sample else {"do_sample": False}
        tokens = model.generate(**inputs, max_new_tokens=MAX_COMPLETION_TOKENS, **how)
        return tokenizer.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)

    return generate


def is_right(completion: str, answer: int) -> bool:
    boxed = re.findall(r"\\boxed\{([^{}]*)\}", completion)
    return bool(boxed) and boxed[-1] == str(answer)


def is_worked(completion: str) -> bool:
    return re.match(r"<think>\d", completion) is not None


def measure(generate: Generate, problems: list[Problem], samples: int = 8) -> dict[str, float]:
    def accuracy(pairs: list[tuple[Problem, str]]) -> float:
        return sum(is_right(completion, problem.answer) for problem, completion in pairs) / max(1, len(pairs))

    prompts = [prompt_text(problem.question) for problem in problems]
    forced = [f"{prompt}<think>{problem.steps[0][0]}" for prompt, problem in zip(prompts, problems, strict=True)]
    sampled = list(zip(problems * samples, generate(prompts * samples, True), strict=True))
    worked = [pair for pair in sampled if is_worked(pair[1])]
    return {
        "greedy accuracy": accuracy(list(zip(problems, generate(prompts, False), strict=True))),
        "sampled accuracy": accuracy(sampled),
        "share of worked samples": len(worked) / len(sampled),
        "accuracy of worked samples": accuracy(worked),
        "accuracy when forced to work, greedy": accuracy(list(zip(problems, generate(forced, False), strict=True))),
        "accuracy when forced to work, sampled": accuracy(
            list(zip(problems * samples, generate(forced * samples, True), strict=True))
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the tiny model and its problems.")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parents[1] / "recipes" / "tiny")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    torch.manual_seed(arguments.seed)

    heldout = write_problems(arguments.out, arguments.seed)
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(arguments.out)  # before its use, which would leave its padding in the files
    model = make_model(tokenizer)
    train(model, tokenizer, arguments.steps, random.Random(arguments.seed + 1))
    model.save_pretrained(arguments.out)
    for name, value in measure(generator(model, tokenizer), heldout).items():
        print(f"{name:<40} {value:.3f}")


if __name__ == "__main__":
    main()
