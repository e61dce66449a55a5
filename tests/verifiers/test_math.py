"""The math verifier: right pairs, wrong pairs, its options, and where an answer is looked for."""

import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from itertools import combinations, permutations
from pathlib import Path

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rlvr_verifiers import math_text, math_values, numbers
from rlvr_verifiers.math import math, unusable, warm_up

from rlvr.verify import Outcome, Sample

SHARED = Path(os.environ.get("RLVR_SHARED_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
OURS = [json.loads(line) for line in (Path(__file__).parent / "math_pairs.jsonl").read_text().splitlines()]


def judged(gold: str, completion: str, **options):
    return math(Sample("", completion, gold), **options)


@pytest.mark.parametrize("category", sorted({pair["category"] for pair in OURS}))
def test_every_pair_of_our_own_is_judged_right(category):
    pairs = [pair for pair in OURS if pair["category"] == category]
    wrong = []
    for pair in pairs:
        verdict = judged(pair["gold"], f"\\boxed{{{pair['answer']}}}", **pair.get("options", {}))
        if (verdict.reward == 1.0) != pair["equal"]:
            wrong.append((pair["gold"], pair["answer"], verdict.reason))
    assert pairs
    assert wrong == []


def test_the_tables_of_the_page_are_true():
    page = (Path(__file__).parents[2] / "docs" / "math.md").read_text()
    table = page.partition("## Equal, and not")[2].partition("##")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| `")]
    said = [
        (gold[1:-1], answer, equal)
        for gold, right, wrong in rows
        for cell, equal in ((right, True), (wrong, False))
        for answer in re.findall("`([^`]+)`", cell)
    ]
    assert len(said) > 100
    assert [pair for pair in said if (judged(pair[0], f"\\boxed{{{pair[1]}}}").reward == 1.0) != pair[2]] == []


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


def test_no_answer_of_our_pairs_is_accepted_for_another_reference():
    """Any answer against any reference of its category that is not its own: equal only where values say so."""
    answers = [pair for pair in OURS if pair["equal"] and pair["category"] in ("polynomial", "radical", "trig", "log")]
    golds = sorted({pair["gold"] for pair in answers})
    equal = {
        (pair["gold"], gold)
        for pair in answers
        for gold in golds
        if gold != pair["gold"] and judged(gold, f"\\boxed{{{pair['answer']}}}").reward == 1.0
    }
    assert equal == set()


def test_the_last_box_behind_the_thoughts_counts():
    assert judged("4", "\\boxed{3}. Wait, no. It is \\boxed{4}").reward == 1.0
    assert judged("3", "\\boxed{3}. Wait, no. It is \\boxed{4}").reward == 0.0
    assert judged("4", "\\boxed{\\boxed{4}}").reward == 1.0
    assert judged("4", "\\boxed{x = \\fbox{4}}").reward == 1.0
    assert judged("4", "\\boxed{4} and \\boxed{4}").reward == 1.0
    assert judged("1,2", "\\boxed{1}, \\boxed{2}").reward == 1.0
    assert judged("2", "\\boxed{1} or \\boxed{2}").reward == 0.0
    assert judged("7", "<think>\\boxed{7}</think> I do not know").outcome == Outcome.REJECTED
    assert judged("7", "<think>\\boxed{7}").reason == "no_answer"
    assert math(Sample("", "\\boxed{7}, or is it", "7", thinking=True)).reason == "no_answer"
    assert math(Sample("", "\\boxed{6}?</think>\\boxed{7}", "7", thinking=True)).reward == 1.0
    assert judged("7", "thoughts without a start \\boxed{6} </think> \\boxed{7}").reward == 1.0
    assert judged("\\frac{1}{2}", "\\boxed{\\frac{1}{2}} \\boxed{\\frac{").reward == 1.0


def test_what_the_policy_caused_is_rejected_and_what_the_data_caused_abstains():
    assert (judged("5", "5").outcome, judged("5", "5").reason) == (Outcome.REJECTED, "no_box")
    for answer in ("9" * 301, "9," * 1_500, "(" * 51 + "5" + ")" * 51):
        verdict = judged("5", f"\\boxed{{{answer}}}")
        assert (verdict.outcome, verdict.reason) == (Outcome.REJECTED, "too_long")
    assert judged("5", "\\boxed{9^{9^{9^9}}}").reason == "too_large"
    for gold in (
        "",
        "$ $",
        "\\frac{1}{",
        "\\frac{1}{0}",
        "9" * 301,
        "\\begin{cases} 1 \\\\ 2 \\end{cases}",
        "9^{9^{9^9}}",
        "()",
        "-\\to\\frac{1}{2}",
        "3\\text{ dozens}",
    ):
        assert unusable(gold), gold
        assert judged(gold, "\\boxed{5}").outcome == Outcome.ABSTAIN
    for gold in ("5", "\\text{east}", "1, 2, \\ldots, n", "C", "#### 5", "so \\boxed{x^2}", "f(x)+2"):
        assert unusable(gold) is None, gold


@pytest.mark.parametrize("one", ["3", 3, 0.5, "\\frac{1}{2}", "\\text{east}", "C", "#### 5", "1, 2", "[1, 2]"])
def test_a_list_of_one_reference_is_that_one(one):
    for listed in ([one], (one,), numpy.array([one])):
        assert unusable(listed) is None
        for answer in ("3", "0.5", "\\text{east}", "(C)", "5", "2, 1", "[1,2]", f"[{one}]", "4"):
            said = [judged(gold, f"\\boxed{{{answer}}}") for gold in (one, listed)]
            assert [(v.reward, v.reason) for v in said[:1]] == [(v.reward, v.reason) for v in said[1:]], answer


@pytest.mark.parametrize(
    ("several", "why"),
    [
        ([1, 2], "a list of 2: one text"), (["1", "2"], "a list of 2"), (["\\frac{1}{2}", "0.5"], "a list of 2"),
        ([1.0, 2.0, 3.0], "a list of 3"), ([], "a list of 0"), ([None], "is empty"), ([[1]], "is a list"),
        ({"x": 1}, "is a dict"), ('["3"]', "the text of a JSON list"), (' [ "1", "2"]', "the text of a JSON list"),
        (None, "is empty"), ([""], "is empty"), (["\\frac{1}{0}"], "has no value"), (float("nan"), "is empty"),
        ([float("nan")], "is empty"), (numpy.array([1, 2]), "a list of 2"), (numpy.array([]), "a list of 0"),
    ],
)  # fmt: skip
def test_several_references_may_mean_all_or_any_and_are_none(several, why):
    assert why in unusable(several)
    for answer in ("1", "2", "1, 2", "[1,2]", "(1,2)", "\\{1,2\\}", "0.5", "3", "[1,2,3]"):
        verdict = judged(several, f"\\boxed{{{answer}}}")
        assert (verdict.outcome, verdict.reason) == (Outcome.ABSTAIN, "gold_unparsed"), answer
    assert unusable("[1, 2]") is None and judged("[1, 2]", "\\boxed{1\\le x\\le 2}").reward == 1.0


@pytest.mark.parametrize(
    ("two", "others"),
    [
        ("1 2", ("3", "12")), ("3 4", ("7", "12", "34")), ("2 3 4", ("9", "24", "234")), ("[1 2]", ("3", "12")),
        ("1\\quad 2", ("3", "12")), ("x+3 4", ("x+7", "x+12")), ("2 3x", ("6x", "5x")), ("\\{1 2\\}", ("\\{3\\}",)),
        ("x=1 2", ("x=3", "3", "12")), ("x+10 000", ("x+10", "x")), ("y=x+2 1/2", ("y=x+3/2", "x+5/2")),
        ("4\\frac{1}{2}\\pi", ("2\\pi", "2")), ("x=2\\frac{1}{2}y", ("x=y", "y")), ("4\\frac{3}{2}", ("5.5", "6")),
        ("\\frac{1}{2}12", ("\\frac{3}{2}", "6")), ("2(3)4", ("9", "24")), ("(1)2", ("3", "2")), ("(12)34", ("46",)),
        ("\\binom{4}{2}3", ("9", "18")), ("\\pi 2\\binom{4}{2}", ("8\\pi", "12\\pi")), ("1.5.5", ("0.75",)),
        ("3!!", ("720", "3")), ("2^3^2", ("64", "512")), ("x^{2}^{3}", ("x^6",)), ("101_2+1", ("102", "6")),
        ("x+101_2", ("x+101",)), ("1_x", ("1",)),
    ],
)  # fmt: skip
def test_two_numbers_side_by_side_are_no_other_number(two, others):
    """math-verify adds them, multiplies them, reads them as one, or passes over a base."""
    assert "cannot be read" in unusable(two)
    for other in others:
        assert (judged(two, f"\\boxed{{{other}}}").reward, judged(other, f"\\boxed{{{two}}}").reward) == (None, 0.0)
    assert judged("x^2 3", "\\boxed{3x^2}").reward == 1.0
    for gold, same in (("x+\\log_2 3", "\\log_2 3+x"), ("1 000", "1000")):
        assert judged(gold, f"\\boxed{{{same}}}").reward == judged(same, f"\\boxed{{{gold}}}").reward == 1.0


@pytest.mark.parametrize(
    ("gold", "same", "other"),
    [
        ("\\log_2 3", "\\log_{2}3", "\\log_{23} 3"), ("\\log_{2}12", "\\frac{\\ln 12}{\\ln 2}", "\\log_{21} 2"),
        ("2^{35}", "2^35", "2^{3}5"), ("x_{12}", "x_12", "x_{1}2"),
        ("x^\\pi y", "x^{\\pi}y", "x^{\\pi y}"), ("x^n y", "x^{n}y", "x^{ny}"),
    ],
)  # fmt: skip
def test_braces_part_an_index_from_what_follows(gold, same, other):
    for one, two in ((gold, same), (same, gold)):
        assert judged(one, f"\\boxed{{{two}}}").reward == 1.0
        assert judged(one, f"\\boxed{{{other}}}").reward == 0.0


def test_arithmetic_that_fails_is_the_answers_fault_and_masks_nothing(monkeypatch):
    for error in (ZeroDivisionError("nothing"), OverflowError("too much")):
        monkeypatch.setattr("rlvr_verifiers.math_equal.math_values.same_value", lambda *_, error=error: throw(error))
        assert (judged("5", "\\boxed{x+5}").outcome, judged("5", "\\boxed{5}").reward) == (Outcome.REJECTED, 1.0)


def throw(error: Exception):
    raise error


def test_a_json_number_as_the_reference_is_the_number_that_it_spells():
    for gold, right, wrong in ((1e-05, "0.00001", "e-5"), (1e16, "10^{16}", "10^{15}"), (2.5e-07, "0.00000025", "2.5")):
        assert [judged(gold, f"\\boxed{{{answer}}}").reward for answer in (right, wrong)] == [1.0, 0.0], gold


@given(number=st.floats(min_value=1e-50, max_value=1e50), sign=st.sampled_from([1, -1]))
@settings(deadline=None)
def test_every_json_number_equals_itself_as_a_fraction(number, sign):
    assert judged(sign * number, f"\\boxed{{{Fraction(str(sign * number))}}}").reward == 1.0


def test_a_reference_in_its_own_words_needs_no_reader():
    """What is no set of numbers, or has no value at any point that is tried, is usable all the same."""
    for gold in (r"\{2k \mid 1\le k\le 5\}", r"\{x\in\mathbb{Z} : 1\le x\le5\}", r"\langle 25,234\rangle"):
        assert unusable(gold) is None, gold
    assert unusable("7 twelfths")  # once the number 7


EVENS = r"\{2k \mid k\in\mathbb{Z}\}"


def test_a_set_builder_that_differs_in_a_piece_may_be_the_same_set_and_is_masked_unless_no_set_is_said():
    assert unusable(EVENS) is None
    for answer in (r"\{-2k \mid k\in\mathbb{Z}\}", r"\{2n+2 \mid n\in\mathbb{Z}\}", r"\{2,4\}", r"(0,2)", "1<x<2"):
        for gold in (EVENS, rf"x\in {EVENS}", rf"{EVENS}\cup\{{1\}}"):
            verdict = judged(gold, f"\\boxed{{{answer}}}")
            assert (verdict.outcome, verdict.reason) == (Outcome.ABSTAIN, "gold_unparsed"), (gold, answer)
    for answer in ("5", "2k", r"\text{even}", r"\{2k \mid", "1:2"):
        assert judged(EVENS, f"\\boxed{{{answer}}}").reward == 0.0, answer


NAMES = "abcdfghjklmnopqrstuvwxyzABCDFGHJKLMNOPQRSTUVWXYZ"  # e, i, E and I may be numbers


def test_no_two_letters_have_the_same_signs_or_parities_wherever_they_are_tried():
    wrong = [
        (gold, answer)
        for a, b in combinations(NAMES, 2)
        for gold, answer in (
            (f"(-1)^{{{a}}} {a}{b}", f"(-1)^{{{b}}} {a}{b}"),
            (f"(-1)^{{{a}}} {a}{b}", f"-(-1)^{{{b}}} {a}{b}"),
            (f"{a}{b}", f"|{a}{b}|"),
            (f"{a}{b}", f"-|{a}{b}|"),
        )
        if judged(gold, f"\\boxed{{{answer}}}").reward != 0.0
    ]
    wrong += [a for a in NAMES if judged(f"(-1)^{{{a}({a}+1)/2}}{a}", f"\\boxed{{(-1)^{{{a}}}{a}}}").reward != 0.0]
    assert wrong == []


def test_where_only_half_of_the_natural_points_count_they_still_tell_two_letters_apart():
    alike = []
    for a, b in permutations(NAMES, 2):
        points = [(at[a], at[b]) for at in math_values._naturals(frozenset((a, b))) if at[a] <= at[b]]
        if len({(one + other) % 2 for one, other in points}) < 2 or len(points) < 8:
            alike.append((a, b))
    assert alike == []


@given(letter=st.sampled_from(NAMES), other=st.sampled_from(NAMES), head=st.sampled_from(["2#", "#^2+1", "(#,2#)"]))
@settings(deadline=None)
def test_a_set_builder_is_the_same_whatever_its_letter(letter, other, head):
    one, two = (rf"\{{{head.replace('#', name)} \mid {name}\in\mathbb{{Z}}\}}" for name in (letter, other))
    assert judged(one, f"\\boxed{{{two}}}").reward == 1.0


terms = st.sampled_from(["x", "-y", "2", "-n!", "(-1)^n", "-2^n", "\\sqrt{x-7}", "-\\ln(y-20)", "\\binom{n}{2}"])


@given(pieces=st.lists(terms, min_size=2, max_size=4, unique=True), data=st.data())
@settings(deadline=None)
def test_a_sum_equals_itself_in_any_order_whatever_its_domain_and_no_other_sum(pieces, data):
    def written(parts):
        return "+".join(parts).replace("+-", "-")

    gold, turned = written(pieces), written(data.draw(st.permutations(pieces)))
    assert judged(gold, f"\\boxed{{{turned}}}").reward in (1.0, None)  # None: some sums have a value nowhere
    assert judged(gold, f"\\boxed{{{turned}+1}}").reward != 1.0
    assert judged(gold, f"\\boxed{{{written(pieces[1:])}}}").reward != 1.0


PIECES = re.findall(
    r"\S+",
    r"""
    ( ) [ ] { } \{ \} 1 2 0 10 x i e + - * / ^ _ = < , ; . ... ! | % $ \frac \sqrt \pm \cup \in \setminus \infty \pi cm
    \text{ \text{or} \le \approx \log \ln \binom \lfloor \rfloor ^\circ : & \\ \to \circ \div () {} [] million 1.5
    3:4 10_2 \frac{1}{2} \frac{1}{0} 0^0 \ln0
    """,
)
ANY_OPTIONS = [
    {},
    {"tolerance": "digits"},
    {"tolerance": 0.01},
    {"evaluated": True},
    {"units": "required"},
    {"percent": "value", "units": "ignored"},
]
ANY_GOLDS = re.findall(r"\S+", r"5 1.50 \sqrt2 \frac12 (1,2) x=5 \{1,2\} 5\text{cm} 25\% x>2 B \text{red}")


@given(
    pieces=st.lists(st.sampled_from(PIECES), min_size=1, max_size=6),
    gold=st.sampled_from(ANY_GOLDS),
    options=st.sampled_from(ANY_OPTIONS),
)
@settings(deadline=None, max_examples=400)
def test_nothing_that_stands_in_the_box_is_masked_whatever_the_options(pieces, gold, options):
    assert judged(gold, "\\boxed{" + " ".join(pieces) + "}", **options).trainable


def test_a_verdict_says_the_answer_and_which_rung_decided():
    verdict = judged("\\frac12", "\\boxed{0.5}")
    assert (verdict.answer, verdict.reason, verdict.detail) == ("0.5", "equal", "decided as number")
    assert judged("B", "\\boxed{(B) 12}").detail == "decided as choice"


def test_an_answer_without_a_box_counts_only_where_that_is_asked_for():
    for text in ("so\n#### 18", "The answer is 18.", "The final answer is: $18$.", "Answer: 18", "**Answer:** \\$18"):
        assert judged("18", text).reason == "no_box"
        assert judged("18", text, unboxed=True).reward == 1.0, text
    for shown in ("**18**.", "**18.**", "**$18**.", "*18*", "`18`.", "__18__.", "**`18`**", "***18***.", "**$18$**."):
        for text in (f"The answer is {shown}", f"**The answer is {shown}**", f"Answer: {shown}", f"#### {shown}"):
            assert judged("18", text, unboxed=True).reward == 1.0, text
            assert judged("17", text, unboxed=True).reward == 0.0, text
    assert judged("0.18", "The answer is 0.18...", unboxed=True).reward == 0.0
    assert judged("18", "The answer is **.**", unboxed=True).reward == 0.0
    assert judged("18", "The answer is 18 or 19.", unboxed=True).reward == 0.0
    assert judged("18", "The answer is 18. No, it may be anything.\nI give up", unboxed=True).reason == "no_box"
    assert judged("18", "The answer is 17: \\boxed{18}", unboxed=True).reward == 1.0
    assert judged("B", "The answer is (B).").reward == 1.0  # choices need no box
    assert judged("B", "The answer is (C).").reward == 0.0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tolerance": "loose"}, "tolerance='loose'"), ({"tolerance": 2.0}, "tolerance=2.0"),
        ({"percent": "maybe"}, "optional, value, literal"), ({"units": "no"}, "optional, required, ignored"),
        ({"choices": "abc"}, "capital letters"),
    ],
)  # fmt: skip
def test_a_wrong_option_is_said_before_the_first_completion(options, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        warm_up(**options)


@pytest.mark.parametrize(
    ("module", "shortcut", "read"),
    [(numbers, "SIMPLE", numbers.quantity), (math_text, "PLAIN", math_text.normalised)],
)
@given(data=st.data())
@settings(deadline=None)
def test_what_is_read_sooner_is_read_as_it_would_be_later(module, shortcut, read, data):
    text = data.draw(st.from_regex(getattr(module, shortcut), fullmatch=True))
    sooner = read(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, shortcut, re.compile("(?!)"))
        assert read(text) == sooner


def test_it_says_the_same_in_threads():
    pairs = [pair for pair in OURS if not pair.get("options")][::3]
    with ThreadPoolExecutor(4) as threads:
        said = list(threads.map(lambda p: judged(p["gold"], f"\\boxed{{{p['answer']}}}").reward == 1.0, pairs))
    assert said == [pair["equal"] for pair in pairs]
