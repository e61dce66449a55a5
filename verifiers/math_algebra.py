r"""The door to math-verify (github.com/huggingface/Math-Verify) and sympy, for what is read by nothing stricter.

math-verify sees `\boxed{reference}` and `\boxed{answer}`, never a chain of thought, and only words that it is known to
understand: its grammar skips the others. What it finds equal must then pass checks that can only turn True into False.

Its own time limits are alarms, which raise outside the main thread; they are off. Whoever calls this does so in a
process that is killed from outside, with Python's own integers: a call into GMP cannot be interrupted, and where memory
is limited it ends the process instead of raising MemoryError.
"""

import os
import re
from functools import lru_cache
from typing import Any

from rlvr_verifiers.math_arithmetic import TooLarge

# read once, when sympy and mpmath are first imported; `check_ground_types` says so where that was too late
os.environ["SYMPY_GROUND_TYPES"] = "python"
os.environ["MPMATH_NOGMPY"] = "1"

MAX_CHARACTERS = 200  # of an answer, or twice the reference's
DIGITS = 30  # of the numerical second look
UNEVALUATED = set(re.findall(r"\w+", "int iint sum prod lim max min gcd lcm det bmod pmod mod inf sup"))
KNOWN = UNEVALUATED | set(
    re.findall(
        r"\w+",
        """
        frac sqrt binom pi infty cdot times div circ sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh ln log
        exp alpha beta gamma delta epsilon zeta eta theta kappa lambda mu nu xi rho sigma tau phi chi psi omega le ge ne
        to lfloor rfloor lceil rceil cup cap in pm begin end
        """,
    )
)
PLAIN = re.compile(r"[A-Za-z0-9\s+\-*/^_(){}\[\]|!.,=<>\\]*")
# what sympy may compute for minutes: a power of a power, large exponents, factorials
HEAVY = re.compile(r"\^ ?\{[^{}]*[\^!]|\^ ?\{? ?[0-9]{3,}|\)? ?! ?\^|! ?\)? ?!|[0-9]{4,} ?\)?!|\) ?!|\^ ?\\frac")
# what it adds, or reads as one number: 1 2, (1)2, \frac{1}{2}12, 4\frac{1}{2}\pi, 3\binom{4}{2}, 1.5.5; of 10_2+1
# it drops the base, 3!! it takes for (3!)!, and 2^3^2 for 64. In \log_2 3 the first belongs to what is before it
MISREAD = re.compile(
    r"(?<![_^0-9.])[0-9.]+(?:\s+[0-9.]|\s*\\(?:frac|binom) ?\{[0-9]+\} ?\{[0-9]+\})"
    r"|[(\[][0-9.]+[)\]]\s*[0-9.]|\}\s*[0-9.]{2}|\\binom ?\{[0-9]+\} ?\{[0-9]+\}\s*[0-9A-Za-z]"
    r"|\.[0-9]+\.|[0-9]\s*_|!\s*!|\^ ?(?:[0-9.]+|[A-Za-z]|\{[^{}]*\}) ?\^"
)
ENVIRONMENT = re.compile(r"\\(?:begin|end) ?\{[pbv]matrix\}")


def check_ground_types() -> None:
    """RuntimeError where sympy or mpmath already run on GMP in this process."""
    import mpmath
    from sympy.external.gmpy import GROUND_TYPES

    if (GROUND_TYPES, mpmath.libmp.BACKEND) != ("python", "python"):
        raise RuntimeError(
            f"sympy runs on {GROUND_TYPES}, mpmath on {mpmath.libmp.BACKEND}: something imported them before the math "
            "verifier; set SYMPY_GROUND_TYPES=python and MPMATH_NOGMPY=1, or list the math verifier first"
        )


def understood(text: str) -> bool:
    """Whether math-verify reads every word of `text`: single letters, numbers apart, commands that it knows."""
    commands, bare = re.findall(r"\\([A-Za-z]+)", text), ENVIRONMENT.sub(" ", text)
    if MISREAD.search(bare):
        return False
    plain = re.sub(r"\\[A-Za-z]+", " ", bare)
    return PLAIN.fullmatch(text) is not None and set(commands) <= KNOWN and not re.search(r"[A-Za-z]{4,}|\.\.", plain)


def by_algebra(gold: str, answer: str) -> bool | None:
    """math-verify's verdict where the checks agree; None when it cannot read the reference."""
    if not understood(gold):
        return None
    parsed_gold = parsed(gold)
    if not parsed_gold:
        return None
    new = set(re.findall(r"\\([A-Za-z]+)", answer)) & UNEVALUATED
    if not understood(answer) or new - set(re.findall(r"\\([A-Za-z]+)", gold)):
        return False  # to write the question down again is no answer
    if (HEAVY.search(answer) and not HEAVY.search(gold)) or len(answer) > max(MAX_CHARACTERS, 2 * len(gold)):
        raise TooLarge("a power, a factorial or a length that only sympy could read")
    parsed_answer = parsed(answer)
    if not parsed_answer:
        return False
    from math_verify import verify

    equal = verify(parsed_gold, parsed_answer, float_rounding=15, numeric_precision=DIGITS, timeout_seconds=None)
    return bool(equal) and not apart(parsed_gold[0], parsed_answer[0])


@lru_cache(maxsize=4096)
def parsed(text: str) -> list[Any]:
    """sympy's objects for `text`; none where math-verify would fall back on the text itself."""
    from math_verify import LatexExtractionConfig, parse
    from sympy import Basic, MatrixBase

    # without an anchor it would look for a fraction in what it could not read
    configuration = [LatexExtractionConfig(boxed_match_priority=0, try_extract_without_anchor=False)]
    found = parse(f"\\boxed{{{text}}}", configuration, fallback_mode="no_fallback", parsing_timeout=None)
    return [expression for expression in found if isinstance(expression, (Basic, MatrixBase))]


def vanishes(text: str) -> bool:
    """Whether `text` is zero, as math-verify sees it; False when it cannot read it."""
    from math_verify import verify

    found = parsed(text) if understood(text) else []
    return bool(found) and bool(verify(found, parsed("0"), numeric_precision=DIGITS, timeout_seconds=None))


def apart(gold: Any, answer: Any) -> bool:
    """Other symbols, or two numbers that differ by more than rounding, however small both are."""
    from sympy import Expr

    if getattr(gold, "free_symbols", None) != getattr(answer, "free_symbols", None):
        return True
    if not (isinstance(gold, Expr) and isinstance(answer, Expr)) or gold.free_symbols:
        return False
    one, other = gold.evalf(DIGITS), answer.evalf(DIGITS)
    if not (one.is_Float or one.is_Integer) or not (other.is_Float or other.is_Integer):
        return False
    return bool(abs(one - other) > abs(one) * 10 ** (5 - DIGITS))
