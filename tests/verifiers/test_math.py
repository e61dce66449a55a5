"""The math verifier: right pairs, wrong pairs, and where an answer is looked for."""

import json
import os
from pathlib import Path

import pytest
from rlvr_verifiers.math import math

from rlvr.verify import Outcome, Sample

SHARED = Path(os.environ.get("RLVR_SHARED_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))


def judged(gold: str, completion: str):
    return math(Sample("", completion, gold))


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("5", "5"), ("5", "5.0"), ("1000", "1,000"), ("0.5", "\\frac12"), ("\\frac{7}{3}", "2\\frac{1}{3}"),
        ("#### 72", "72"), ("so \\boxed{9}", "9"), ("x+1", "1+x"), ("B", "\\text{(B)}"), ("15\\text{ cm}", "15"),
        ("25\\%", "0.25"), ("0.\\overline{3}", "\\frac{1}{3}"), ("{1,2}", "2,1"), ("y=3", "3"), ("-7", "\u22127"),
    ],
)  # fmt: skip
def test_equal_answers_are_right(gold, answer):
    assert judged(gold, f"<think>a</think>\\boxed{{{answer}}}").reward == 1.0


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("5", "6"), ("5", "5,6"), ("5", "7=5"), ("\\frac13", "0.333"), ("10^{-20}", "10^{-21}"), ("7", "7 = 8"),
        ("\\text{ab}", "\\text{ba}"), ("(1,2)", "(2,1)"), ("0.25", "0.25\\%"), ("15\\text{ cm}", "15\\text{ m}"),
        ("12:00", "1:00"), ("7", "7 \\lor 8"), ("5", ""), ("B", "A"),
    ],
)  # fmt: skip
def test_other_answers_are_wrong(gold, answer):
    assert judged(gold, f"\\boxed{{{answer}}}").reward == 0.0


def test_the_last_box_behind_the_thoughts_counts():
    assert judged("4", "\\boxed{3}. Wait, no. It is \\boxed{4}").reward == 1.0
    assert judged("3", "\\boxed{3}. Wait, no. It is \\boxed{4}").reward == 0.0
    assert judged("4", "\\boxed{\\boxed{4}}").reward == 1.0
    assert judged("7", "<think>\\boxed{7}</think> I do not know").outcome == Outcome.REJECTED
    assert judged("7", "<think>\\boxed{7}").reason == "no_answer"


def test_what_the_policy_caused_is_rejected_and_what_the_data_caused_abstains():
    assert (judged("5", "5").outcome, judged("5", "5").reason) == (Outcome.REJECTED, "no_box")
    assert judged("5", "\\boxed{" + "9" * 301 + "}").reason == "too_long"
    assert judged("", "\\boxed{5}").outcome == Outcome.ABSTAIN


def test_every_shared_pair_is_judged_right():
    pairs = SHARED / "math_pairs.jsonl"
    if not pairs.exists():
        pytest.skip(f"{pairs} is not there")
    wrong = [
        pair
        for pair in map(json.loads, pairs.read_text().splitlines())
        if not pair["policy"] and (judged(pair["gold"], pair["pred"]).reward == 1.0) != pair["expected"]
    ]
    assert wrong == []
