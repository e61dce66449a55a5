"""Is the boxed answer mathematically equal to the reference? A ladder: the cheap and exact rungs first.

    text after thoughts -> last box -> caps -> same string -> exact numbers -> choice, text -> math-verify + post-checks

math-verify (https://github.com/huggingface/Math-Verify) and sympy only see `\\boxed{gold}` and `\\boxed{answer}`, never
a chain of thought, and only run here, in a process that is killed when an answer costs too much.
"""

import os
import re
from functools import lru_cache
from typing import Any

from rlvr_verifiers import numbers
from rlvr_verifiers.boxes import after_thoughts, last_answer

from rlvr.verify import Outcome, Sample, Verdict, verifier

# calls into GMP cannot be interrupted, and behave differently where it is not installed
os.environ.setdefault("SYMPY_GROUND_TYPES", "python")
os.environ.setdefault("MPMATH_NOGMPY", "1")

MAX_CHARACTERS, MAX_DIGITS, MAX_NESTING = 2_000, 300, 50
DIGITS = 30  # of the numerical second look
WORDY = r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox|operatorname)"


def warm_up() -> None:
    by_algebra("x+1", "1+x")


@verifier("math", version="1", timeout_s=2.5, memory_gib=2.0, setup=warm_up)
def math(sample: Sample) -> Verdict:
    """1 when the last box after the thoughts equals `sample.answer`, else 0."""
    gold = gold_answer(str(sample.answer))
    if not gold:
        return Verdict(None, Outcome.ABSTAIN, reason="gold_unparsed", detail="the reference is empty")
    region = after_thoughts(sample.completion)
    if region is None:
        return rejected("no_answer", "the thoughts are never closed")
    answer = last_answer(region)
    if answer is None and is_choice(gold):
        found = re.search(r"answer is:?\s*\(?([A-J])\)?\s*\.?\s*$", region)
        answer = found[1] if found else None
    if answer is None:
        return rejected("no_box", "no closed \\boxed{} after the thoughts")
    if limit := too_large(answer):
        return rejected("too_long", limit)
    answer = normalised(answer)
    equal = same(gold, answer)
    if equal is None:
        return Verdict(None, Outcome.ABSTAIN, reason="gold_unparsed", detail=f"reference {gold!r}", answer=answer)
    return Verdict(float(equal), Outcome.OK, reason="equal" if equal else "differs", answer=answer)


def rejected(reason: str, detail: str) -> Verdict:
    return Verdict(0.0, Outcome.REJECTED, reason=reason, detail=detail)


@lru_cache(maxsize=4096)
def gold_answer(gold: str) -> str:
    """The reference proper: behind GSM8K's `####`, out of a solution's box, or as it is."""
    if "####" in gold:
        gold = gold.rpartition("####")[2]
    return normalised(last_answer(gold) or gold)


def too_large(answer: str) -> str | None:
    """Why an answer is not worth a look, in words."""
    if len(answer) > MAX_CHARACTERS:
        return f"{len(answer)} characters > {MAX_CHARACTERS}"
    if found := re.search(rf"\d{{{MAX_DIGITS + 1},}}", answer.replace(",", "")):
        return f"a number of {len(found[0])} digits > {MAX_DIGITS}"
    depth = deepest = 0
    for character in answer:
        depth += (character in "{([") - (character in "})]")
        deepest = max(deepest, depth)
    return f"nested {deepest} deep > {MAX_NESTING}" if deepest > MAX_NESTING else None


def normalised(text: str) -> str:
    """The same answer in one spelling: no delimiters, spacing commands or sizes; ASCII minus; one name for a thing."""
    text = text.strip().strip("$").strip()
    text = re.sub(r"^\\[(\[](.*)\\[)\]]$", r"\1", text, flags=re.DOTALL)
    text = text.replace("\u2212", "-").replace("\u2013", "-").replace("{,}", ",").replace("\\$", "$")
    text = text.replace("\\%", "%").replace("\\varnothing", "\\emptyset").replace("\\dfrac", "\\frac")
    text = text.replace("\\tfrac", "\\frac").replace("\\leq", "\\le").replace("\\geq", "\\ge").replace("\\neq", "\\ne")
    text = re.sub(r"\\(?:left|right|big|Big|bigg|Bigg)(?=[\s()\[\]|.\\])|\\displaystyle|\\[!,;:]|\\ (?=.)|~", " ", text)
    text = re.sub(r"\s+", " ", text).strip()
    return text.rstrip(".").rstrip() if not text.endswith("..") else text


def compact(text: str) -> str:
    return re.sub(r"\s+", "", text)


def plain(text: str) -> str:
    """Words without their LaTeX dress, in lower case."""
    return compact(re.sub(WORDY + r"\s*\{([^{}]*)\}", r"\1", text)).lower()


def is_choice(gold: str) -> bool:
    return re.fullmatch(r"\(?[A-J]\)?", bare(gold)) is not None


def bare(text: str) -> str:
    return re.sub(WORDY + r"\s*\{([^{}]*)\}", r"\1", text).strip()


def is_text(gold: str) -> bool:
    """Words: letters do not commute in them."""
    if re.search(r"\\(?:ldots|dots|cdots)|\.\.\.|\u2026", gold):
        return True
    whole = re.fullmatch(WORDY + r"\s*\{([^{}]*)\}", gold)
    words = whole[1] if whole else gold
    return re.fullmatch(r"[A-Za-z][A-Za-z' -]*", words) is not None and (bool(whole) or len(words) > 2)


def same(gold: str, answer: str) -> bool | None:
    """Equal or not; None when the reference itself makes no sense."""
    if not plain(answer):
        return False
    if compact(gold) == compact(answer):
        return True
    if is_choice(gold):
        letter = re.match(r"\(?([A-J])(?:\)|[.:,)]|\s|$)", bare(answer))
        return letter is not None and letter[1] == bare(gold).strip("()")
    answer = assigned(gold, answer)
    if answer is None:
        return False
    left, right = (
        numbers.quantity(assigned("", gold) or gold),
        numbers.quantity(answer) or numbers.quantity(bare(answer)),
    )
    if left and right:
        return numbers.equal(left, right)
    if is_text(gold):
        return plain(gold) == plain(answer)
    ratios = [numbers.ratio(side) or numbers.rational(side) for side in (gold, answer)]
    if ":" in gold + answer:
        return None not in ratios and ratios[0] == ratios[1]
    if re.match(WORDY, answer) and is_text(answer):
        return False
    return by_algebra(gold, answer)


def assigned(gold: str, answer: str) -> str | None:
    """`x = 4` says 4 where the reference names no variable. Every further link of a chain must hold, else None."""
    if "=" not in answer or re.search(r"[<>]|\\[lg]e|\\ne", answer):
        return answer
    links = [link.strip() for link in answer.split("=")]
    if len(links) > 2 or re.fullmatch(r"[\d.,+\-*/ ]+", links[0]):
        start = 0 if numbers.quantity(links[0]) else 1
        for one, other in zip(links[start:], links[start + 1 :], strict=False):
            if not same(normalised(one), normalised(other)):
                return None
        return links[-1] if "=" not in gold else f"{links[0]}={links[-1]}"
    named = re.fullmatch(r"[A-Za-z](?:_\{?\w+\}?)?(?:\([A-Za-z]\))?|\\[a-z]+", links[0])
    return links[1] if named and "=" not in gold else answer


def by_algebra(gold: str, answer: str) -> bool | None:
    """math-verify, then checks that can only turn True into False."""
    parsed_gold = parsed(gold)
    if not parsed_gold:
        return None
    parsed_answer = parsed(answer)
    if not parsed_answer:
        return False
    from math_verify import verify

    equal = verify(parsed_gold, parsed_answer, float_rounding=15, numeric_precision=DIGITS, timeout_seconds=None)
    if not equal and re.search(r"[\[(].*[\])]", gold) and re.search(r"[<>]|\\[lg]e|\\ne", answer):
        # an interval as reference and an inequality as answer: math-verify only knows the other way round
        equal = verify(parsed_answer, parsed_gold, float_rounding=15, numeric_precision=DIGITS, timeout_seconds=None)
    if not equal and "\\sqrt[" in gold + answer:
        return not far_apart(real_roots(parsed_gold[0]), real_roots(parsed_answer[0]), unknown=True)
    return bool(equal) and not far_apart(parsed_gold[0], parsed_answer[0])


def real_roots(expression: Any) -> Any:
    """Odd roots of negative numbers as schools mean them: real, not sympy's principal complex ones."""
    from sympy import Expr, Rational, real_root

    if not isinstance(expression, Expr):
        return expression
    return expression.replace(
        lambda e: e.is_Pow and isinstance(e.exp, Rational) and e.exp.q % 2 == 1 and e.exp.q > 1 and e.base.is_negative,
        lambda e: real_root(e.base, e.exp.q) ** e.exp.p,
    )


@lru_cache(maxsize=4096)
def parsed(text: str) -> list[Any]:
    from math_verify import LatexExtractionConfig, parse

    return parse(f"\\boxed{{{text}}}", [LatexExtractionConfig(boxed_match_priority=0)], parsing_timeout=None)


def far_apart(gold: Any, answer: Any, unknown: bool = False) -> bool:
    """Two numbers that differ by more than rounding, however small both are; `unknown` when they are not numbers."""
    from sympy import Expr

    if not (isinstance(gold, Expr) and isinstance(answer, Expr)) or gold.free_symbols or answer.free_symbols:
        return unknown
    one, other = gold.evalf(DIGITS), answer.evalf(DIGITS)
    if not (one.is_Float or one.is_Integer) or not (other.is_Float or other.is_Integer):
        return unknown
    return abs(one - other) > abs(one) * 10 ** (5 - DIGITS)
