"""The shipped tiny model and its problems are what the script that makes them says they are."""

import importlib.util
import json
import random
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = Path(__file__).resolve().parents[1]
ASSET = ROOT / "recipes" / "tiny"


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_tiny_model", ROOT / "scripts" / "make_tiny_model.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up by name
    spec.loader.exec_module(module)
    return module


script = load_script()


def rows(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (ASSET / f"{name}.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(ASSET)


@pytest.fixture(scope="module")
def generate(tokenizer):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(ASSET, dtype=torch.float32)
    yield script.generator(model.eval(), tokenizer)
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def heldout() -> list:
    """The held-out problems with their steps, made anew; they must be the shipped ones."""
    rng, wanted, found = random.Random(0), {row["problem"] for row in rows("heldout")}, {}
    while len(found) < len(wanted):
        problem = script.make_problem(rng)
        if problem.question in wanted:
            found[problem.question] = problem
    return list(found.values())


def independent_answer(question: str) -> int:
    """Read off the question alone, without the script's worked steps."""
    numbers = [int(number) for number in re.findall(r"\d+", question)]
    if question.endswith("=?"):
        left, operator, right = re.fullmatch(r"(.+)([+*])(\d+)=\?", question).groups()
        a, b = numbers[:2]
        inner = a * b if "*" in left else a + b
        return inner * int(right) if operator == "*" else inner + int(right)
    if "bags" in question:
        return numbers[0] * numbers[1] - numbers[2]
    return sum(numbers)


def test_the_asset_is_small_and_complete():
    files = {path.name: path.stat().st_size for path in ASSET.iterdir()}
    wanted = {"model.safetensors", "config.json", "generation_config.json", "tokenizer.json", "chat_template.jinja"}
    assert wanted <= files.keys()
    assert sum(files.values()) <= 4_000_000


def test_the_rows_are_distinct_split_by_hash_and_numerous():
    train, heldout = ([row["problem"] for row in rows(name)] for name in ("train", "heldout"))
    assert (len(set(train)), len(set(heldout))) == (len(train), len(heldout)) == (4000, 200)
    assert not any(map(script.is_held_out, train))
    assert all(map(script.is_held_out, heldout))


@pytest.mark.parametrize("name", ["train", "heldout"])
def test_every_answer_is_right_by_an_independent_evaluation(name):
    wrong = [row for row in rows(name) if row["answer"] != str(independent_answer(row["problem"]))]
    assert not wrong


def test_the_corpus_never_contains_a_held_out_question():
    rng = random.Random(3)
    mixtures = [script.TEXTBOOK, script.WEB]
    questions = {script.corpus_row(mixture, rng)[0].question for mixture in mixtures for _ in range(10_000)}
    assert len(questions) > 10_000
    assert not any(map(script.is_held_out, questions))
    assert not questions & {row["problem"] for row in rows("heldout")}


def test_worked_completions_are_true_step_by_step_and_sloppy_ones_mostly_wrong():
    rng = random.Random(4)
    problems = [script.corpus_problem(rng) for _ in range(2000)]
    for problem in problems:
        completion = script.complete(problem, "worked", rng)
        first, second = re.fullmatch(r"<think>(.+)=(\d+),(.+)</think>\\boxed\{\d+\}", completion).group(2, 3)
        assert second.startswith(first)
        assert script.is_right(completion, independent_answer(problem.question))
    guesses = [script.is_right(script.complete(problem, "guess", rng), problem.answer) for problem in problems]
    assert 0.05 < sum(guesses) / len(guesses) < 0.2


def test_a_bare_number_or_an_earlier_box_is_not_counted():
    assert not script.is_right("36", 36)
    assert not script.is_right(r"\boxed{36}\boxed{35}", 36)
    assert script.is_right(r"\boxed{35}\boxed{36}", 36)


def test_every_completion_and_prompt_round_trips_through_the_shipped_tokenizer(tokenizer):
    rng = random.Random(5)
    for _ in range(300):
        problem = script.make_problem(rng)
        for style in script.WEB:
            text = script.prompt_text(problem.question) + script.complete(problem, style, rng)
            ids = tokenizer.encode(text)
            assert tokenizer.unk_token_id not in ids
            assert tokenizer.decode(ids) == text
            assert len(ids) < script.MAX_COMPLETION_TOKENS + 32


def test_the_chat_template_makes_the_prompt_of_the_corpus(tokenizer):
    question = rows("heldout")[0]["problem"]
    messages = [{"role": "user", "content": question}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert prompt == script.prompt_text(question)
    reply = [*messages, {"role": "assistant", "content": "7"}]
    assert tokenizer.apply_chat_template(reply, tokenize=False) == prompt + "7<eos>"


def test_unknown_characters_become_unk_and_special_tokens_are_special(tokenizer):
    assert tokenizer.convert_ids_to_tokens(tokenizer.encode("1é2")) == ["1", "<unk>", "2"]
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (0, 1)
    assert tokenizer.decode(tokenizer.encode("<think>1</think><eos><pad>"), skip_special_tokens=True) == (
        "<think>1</think>"
    )


def test_only_the_completion_and_its_end_are_learned(tokenizer):
    problem = script.make_problem(random.Random(6))
    ids, labels = script.collate([(problem, "36"), (problem, r"<think></think>\boxed{36}")], tokenizer)
    learned = [tokenizer.decode(row[row != -100]) for row in labels]
    assert learned == ["36<eos>", r"<think></think>\boxed{36}<eos>"]
    assert (ids[labels != -100] == labels[labels != -100]).all()


def test_the_model_is_a_tied_qwen3_of_less_than_a_million_parameters(tokenizer):
    model = AutoModelForCausalLM.from_pretrained(ASSET)
    assert model.config.model_type == "qwen3"
    assert model.config.tie_word_embeddings
    assert model.config.vocab_size == len(tokenizer)
    assert (model.config.eos_token_id, model.config.pad_token_id) == (1, 0)
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
    assert sum(parameter.numel() for parameter in model.parameters()) < 1_000_000


def test_greedy_decoding_is_sloppy_and_mostly_wrong(generate, heldout):
    completions = generate([script.prompt_text(problem.question) for problem in heldout], False)
    right = [script.is_right(text, p.answer) for text, p in zip(completions, heldout, strict=True)]
    assert 0.08 <= sum(right) / len(right) <= 0.22
    assert sum(map(script.is_worked, completions)) < 0.05 * len(completions)


def test_some_samples_work_the_problem_and_those_are_right(generate, heldout):
    torch.manual_seed(0)
    measured = script.measure(generate, heldout, samples=3)
    assert measured["share of worked samples"] >= 0.08
    assert 0.10 <= measured["sampled accuracy"] <= 0.25
    assert measured["accuracy of worked samples"] > 0.9
    assert measured["accuracy when forced to work, sampled"] > 0.9
