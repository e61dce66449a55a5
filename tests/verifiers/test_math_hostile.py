"""Whatever a completion does, the math verifier decides, in time and in its memory, and the next one is graded."""

import os
import re
import subprocess
import sys
from time import perf_counter, process_time

import pytest
from rlvr_verifiers.math import math

from rlvr.reward_config import PartConfig, RewardConfig
from rlvr.types import Completion, Group, Outcome, Prompt
from rlvr.verify import Judge, Sample
from tests.verifiers.hostile_math import hostile

HOSTILE = hostile()
WALL_S = 3.0
BUSY = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))  # others' work is not the verifier's


def group(name: str, gold: str, *texts: str) -> Group:
    prompt = Prompt(name, 0, ({"role": "user", "content": "q"},), (1,), gold)
    return Group(prompt, tuple(Completion((1,), (True,), (0.0,), 0, text, "eos") for text in texts))


@pytest.fixture(scope="module")
def judge():
    made = Judge(RewardConfig({"math": PartConfig("math")}), 1)
    yield made
    made.close()


def test_no_hostile_completion_is_right_late_or_an_error_and_the_pool_stays_healthy(judge):
    wrong = []
    for name, (gold, text) in HOSTILE.items():
        started = perf_counter()
        (verdict,) = judge.verify_group(group(name, gold, text)).verdicts
        seconds = perf_counter() - started
        if verdict.reward != 0.0 or verdict.outcome not in (Outcome.OK, Outcome.REJECTED) or seconds > WALL_S * BUSY:
            wrong.append((name, verdict, seconds))
        if verdict.reason in ("timeout", "too_much_memory", "too_deep"):
            honest = judge.verify_group(group("honest", "x+1", "\\boxed{1+x}", "\\boxed{2+x}")).verdicts
            assert [v.reward for v in honest] == [1.0, 0.0], name
    assert wrong == []
    honest = judge.verify_group(group("honest", "\\frac12", "\\boxed{0.5}", "\\boxed{0.6}")).verdicts
    assert [v.reward for v in honest] == [1.0, 0.0]


def test_a_group_of_nothing_but_towers_costs_no_process(judge):
    towers = group("towers", "5", *["\\boxed{9^{9^{9^9}}}"] * 16, "\\boxed{5}")
    said = judge.verify_group(towers).verdicts
    assert [v.reason for v in said] == ["too_large"] * 16 + ["equal"]


def test_no_pattern_of_ours_backtracks_over_what_a_policy_repeats():
    """Every pattern of every math module, on strings that are repetitions of each other's pieces."""
    from rlvr_verifiers import boxes, math_algebra, math_equal, math_shapes, math_syntax, math_text, math_units, numbers
    from rlvr_verifiers import math as verifier_module

    modules = (
        boxes,
        math_algebra,
        math_equal,
        math_shapes,
        math_syntax,
        math_text,
        math_units,
        numbers,
        verifier_module,
    )
    patterns = {p for module in modules for p in vars(module).values() if isinstance(p, re.Pattern)}
    assert len(patterns) > 30
    pieces = ["1", "a", " ", "{", "}", "(", ")", ",", "\\", ".", "1,", "1,111", "\\text{", "\\text{a}", "\\frac{1}"]
    pieces += [
        "_1",
        "^",
        "{,}",
        "\\! ",
        "or ",
        "-",
        "A",
        ":1",
        "/",
        "% ",
        "answer is ",
        "\\boxed ",
        "0.1",
        "'",
        "|",
        "$",
    ]
    slow = []
    for pattern in patterns:
        for piece in pieces:
            text = (piece * 600)[:600] + "!"
            started = process_time()
            pattern.search(text)
            pattern.fullmatch(text)
            if (seconds := process_time() - started) > 0.2:
                slow.append((pattern.pattern, piece, seconds))
    assert slow == []


EARLY = """
import os, sys
FIRST = "rlvr_verifiers.math" not in sys.modules and "sympy" not in sys.modules
KNOWN = os.environ.get("SYMPY_GROUND_TYPES"), os.environ.get("MPMATH_NOGMPY")
import sympy
from sympy.external.gmpy import GROUND_TYPES
from rlvr.verify import verifier

@verifier("early")
def early(sample):
    return FIRST and KNOWN == ("python", "1") and GROUND_TYPES == "python"
"""


def test_the_arithmetic_can_be_interrupted_even_where_another_verifier_loads_sympy_first(tmp_path):
    """The judge loads its verifiers to check their options, and with them the setting, before it starts a process."""
    (tmp_path / "early.py").write_text(EARLY)
    parts = {"early": PartConfig(f"{tmp_path}/early.py:early"), "math": PartConfig("math")}
    judge = Judge(RewardConfig(parts), 1)
    try:
        (verdict,) = judge.verify_group(group("both", "x+1", "\\boxed{1+x}")).verdicts
    finally:
        judge.close()
    assert dict(verdict.parts) == {"early": 1.0, "math": 1.0}


def test_a_process_that_computes_with_gmp_is_refused_with_the_knob():
    code = (
        "import mpmath, mpmath.libmp; mpmath.libmp.BACKEND = 'gmpy'\n"
        "from rlvr_verifiers.math_algebra import check_ground_types\n"
        "check_ground_types()"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr
    assert "set SYMPY_GROUND_TYPES=python and MPMATH_NOGMPY=1" in said


def test_what_only_math_verify_reads_is_checked_once_more():
    def reward(gold, answer):
        return math(Sample("", f"\\boxed{{{answer}}}", gold)).reward

    assert reward("f(x)+2", "2+f(x)") == 1.0
    assert reward("f(x)+2", "f(x)+3") == 0.0
    assert reward("\\int_0^1 x\\,dx", "\\int_0^1 x\\,dx") == 1.0
    assert reward("f(x)", "f(y)") == 0.0
