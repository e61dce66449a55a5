"""Every reference of GSM8K and MATH-500: equal to itself and to its other spellings, and to no near miss."""

import json
import os
import re
from pathlib import Path
from time import process_time

import pytest
from rlvr_verifiers.math import math, unusable

from rlvr.verify import Sample

SHARED = Path(os.environ.get("RLVR_SHARED_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))


def rows(name: str) -> list[dict]:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{path} is not there")
    text = path.read_text()
    return json.loads(text) if name.endswith(".json") else list(map(json.loads, text.splitlines()))


def reward(gold: str, answer: str) -> float | None:
    return math(Sample("", f"Hence the answer is $\\boxed{{{answer}}}$.", gold)).reward


def test_every_gsm8k_reference_is_usable_and_equals_itself_at_thousands_a_second():
    answers = [row["answer"] for name in ("gsm8k_train.jsonl", "gsm8k_test.jsonl") for row in rows(name)]
    assert len(answers) == 7_473 + 1_319
    assert [answer for answer in answers if unusable(answer)] == []
    started = process_time()
    wrong = [answer for answer in answers if reward(answer, answer.rpartition("####")[2]) != 1.0]
    seconds = process_time() - started
    print(f"{len(answers) / seconds:.0f} verifications a CPU second")
    assert wrong == []
    assert seconds < 15, f"{seconds:.1f} CPU seconds"


def test_every_math500_reference_is_usable_and_equals_itself_and_its_solution():
    problems = rows("math500_test.json")
    assert len(problems) == 500
    assert [row["answer"] for row in problems if unusable(row["answer"]) or unusable(row["solution"])] == []
    started = process_time()
    wrong = [r["answer"] for r in problems if {reward(r[of], r["answer"]) for of in ("answer", "solution")} != {1.0}]
    seconds = process_time() - started
    print(f"{1000 / seconds:.0f} verifications a CPU second")
    assert wrong == []
    assert seconds < 15, f"{seconds:.1f} CPU seconds"


def near_misses(gold: str) -> set[str]:
    """One digit, sign, bracket, element or letter away from the reference."""
    found = set()
    for at in [match.start() for match in re.finditer(r"\d", gold)]:
        for step in (1, 9):
            found.add(gold[:at] + str((int(gold[at]) + step) % 10) + gold[at + 1 :])
        found.add(gold[:at] + gold[at : at + 1] * 2 + gold[at + 1 :])
    for at in [match.start() for match in re.finditer(r"(?<![A-Za-z])[+-]", gold)]:
        found.add(gold[:at] + {"+": "-", "-": "+"}[gold[at]] + gold[at + 1 :])
    if (
        gold != "0"
        and re.match(r"[\d.\\]", gold)
        and not gold.startswith(("\\text", "\\begin", "\\{", "\\left", "\\$"))
    ):
        found.add("-" + gold)
    if re.fullmatch(r"(\\left)?[(\[].*[)\]]", gold) and "," in gold:
        swapped = gold.translate(str.maketrans("()[]", "[]()"))
        found |= {gold[:-1] + swapped[-1], re.sub(r"[(\[]", lambda m: {"(": "[", "[": "("}[m[0]], gold, count=1)}
        opening, inside, closing = re.fullmatch(r"((?:\\left ?)?[(\[])(.*?)((?:\\right ?)?[)\]])", gold).groups()
        parts = inside.split(",")
        found |= {opening + ",".join(parts[::-1]) + closing, opening + ",".join([*parts, "0"]) + closing}
        found.add(opening + ",".join([parts[-1], *parts[1:-1], parts[0]]) + closing)
        if len(parts) > 2:
            found.add(opening + ",".join(parts[:-1]) + closing)
    if re.fullmatch(r"-?\d+(, ?-?\d+)+", gold) and not re.fullmatch(r"\d{1,3}(,\d{3})+", gold):
        found |= {gold.rpartition(",")[0], gold + ", 99", gold.partition(",")[2]}
    if "\\cup" in gold:
        found |= {gold.partition("\\cup")[0], gold.replace("\\cup", "\\cap")}
    if "\\pm" in gold:
        found |= {gold.replace("\\pm", "+"), gold.replace("\\pm", "-")}
    if "\\frac" in gold:
        flipped = re.sub(r"\\frac\{([^{}]*)\}\{([^{}]*)\}", r"\\frac{\2}{\1}", gold)
        found |= {flipped} if len(set(re.findall(r"\d+", gold))) > 1 else set()
    if "\\sqrt" in gold:
        found |= {re.sub(r"\\sqrt ?(\{[^{}]*\}|\d)", r"\1", gold)}
    if "\\pi" in gold:
        found |= {gold.replace("\\pi", ""), gold.replace("\\pi", "3.14159265358979")}
    if letter := re.search(r"(?<![\\A-Za-z])[a-z](?![A-Za-z])", gold):
        found.add(gold[: letter.start()] + ("w" if letter[0] != "w" else "v") + gold[letter.end() :])
    if re.fullmatch(r"-?\d+", gold):
        found |= {
            gold + "1",
            gold + ".5",
            gold + "x",
            f"{gold} \\text{{ or }} 77",
            f"{gold},77",
            f"x>{gold}",
            f"{gold}+1",
        }
    if re.fullmatch(r"-?\d+", gold) and gold not in ("0", "1", "-1"):
        found |= {gold + "0", gold + "i", f"\\frac{{1}}{{{gold}}}", f"{gold}^2", f"\\sqrt{{{gold}}}", f"{gold}!+1"}
    if gold.startswith("\\text{"):
        found |= {gold[:-2] + "}", gold[:-1] + "s}", "\\text{not " + gold[6:], "5"}
    return {answer for answer in found if squeezed(answer) != squeezed(gold)}


def squeezed(text: str) -> str:
    """Without spaces, leading plus signs and zeros that say nothing: what differs in those only is no miss."""
    text = re.sub(r"\s|^\+|(?<=[(,])\+", "", text)
    return re.sub(r"(\.\d*?)0+(?!\d)", r"\1", re.sub(r"(?<![\d.])0+(?=\d)", "", text))


def test_no_near_miss_of_a_math500_reference_is_accepted():
    accepted, tried = [], 0
    for gold in sorted({row["answer"] for row in rows("math500_test.json")}):
        for answer in sorted(near_misses(gold)):
            tried += 1
            if reward(gold, answer) == 1.0:
                accepted.append((gold, answer))
    print(tried, "near misses")
    assert tried > 3000
    assert accepted == []


def other_spellings(gold: str) -> set[str]:
    """What a model may write for the same answer."""
    found = {
        f"${gold}$", f"\\({gold}\\)", f" {gold} ", f"{gold}.", f"{gold}\\,", f"\\displaystyle {gold}", f"\\,{gold}",
        gold.replace("\\frac", "\\dfrac"), gold.replace("\\frac", "\\tfrac"), f"{{{gold}}}",
        re.sub(r" (?![A-Za-z])", "", gold),
        gold.replace("+", " + ").replace("=", " = "), gold.replace("(", "\\left(").replace(")", "\\right)"),
        gold.replace("\\left", "").replace("\\right", ""), gold.replace("-", "\u2212"), gold.replace("\\pi", "π"),
        gold.replace("^\\circ", "^{\\circ}"), gold.replace("^\\circ", "°"), f"\\boxed{{{gold}}}",
        re.sub(r",(?!\\|\d{3}$)", ", ", gold),  # 58, 500 is two numbers
        re.sub(r"\\sqrt ?(\d)(?!\d)", r"\\sqrt{\1}", gold), re.sub(r"\\frac ?(\d)(\d)", r"\\frac{\1}{\2}", gold),
        re.sub(r"\\frac\{(\d+)\}\{(\d+)\}", r"\1/\2", gold) if re.fullmatch(r"-?\\frac\{\d+\}\{\d+\}", gold) else gold,
        re.sub(r"\\frac\{(\d+)\}\{(\d+)\}", lambda m: f"\\frac{{{3 * int(m[1])}}}{{{3 * int(m[2])}}}", gold),
        gold.replace("pmatrix", "bmatrix"), gold.replace("\\text", "\\textbf"), gold.replace("\\text", "\\mathrm"),
        gold.replace("\\mbox", "\\text"), gold.replace("\\$", ""), gold.replace("\\$", "$"),
        re.sub(r",\\! ?", "{,}", gold),
    }  # fmt: skip
    if re.fullmatch(r"-?\d+", gold):
        found |= {
            f"{gold}.0",
            f"x = {gold}",
            f"{gold}\\text{{ units}}",
            f"\\${gold}",
            f"\\text{{{gold}}}",
            f"0 + {gold}",
        }
        found |= {
            f"{int(gold):,}",
            f"{int(gold):,}".replace(",", "{,}"),
            f"({gold})",
            f"\\frac{{{gold}}}{{1}}",
            f"+{gold}",
        }
        found -= {f"+{gold}"} if gold.startswith("-") else set()
    if re.fullmatch(r"\d+", gold):
        found |= {
            f"{gold} dollars",
            f"{gold}^\\circ",
            f"\\text{{{gold} square units}}",
            f"n={gold}",
            f"{gold}\\text{{ ways}}",
        }
    return found


def test_every_other_spelling_of_a_math500_reference_is_accepted():
    refused, tried = [], 0
    for gold in sorted({row["answer"] for row in rows("math500_test.json")}):
        for answer in sorted(other_spellings(gold)):
            tried += 1
            if reward(gold, answer) != 1.0:
                refused.append((gold, answer))
    print(tried, "spellings")
    assert tried > 3000
    assert refused == []
