r"""Is the boxed answer mathematically equal to the reference? A ladder: the cheap and exact rungs first.

    text after thoughts -> last box -> caps -> one spelling -> same string -> exact number -> choice
        -> shape (set, interval, equation, ...) -> values of scalars -> math-verify, and checks on what it says

Every module `math_*` is one rung. math-verify and sympy only see what no stricter rung can read, never a chain of
thought, and only in a process that is killed when an answer costs too much.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from rlvr_verifiers import math_algebra, math_equal, math_values
from rlvr_verifiers.boxes import LAST_WORDS, after_thoughts, last_answer, stated_answer
from rlvr_verifiers.math_arithmetic import TooLarge, Undefined
from rlvr_verifiers.math_scalars import Options, value_tree
from rlvr_verifiers.math_shapes import Shape, read, undressed
from rlvr_verifiers.math_syntax import Unreadable
from rlvr_verifiers.math_text import normalised, too_large
from rlvr_verifiers.verdicts import abstained, rejected, said

from rlvr.verify import Provenance, Sample, Verdict, verifier

LETTERS = "ABCDEFGHIJ"
FAST = {"string", "number", "choice"}  # rungs that need no algebra
INTEGER = re.compile(r"-?[0-9]{1,18}")
JSON_LIST = re.compile(r'\s*\[\s*"')
SEVERAL = "one text is wanted, such as 1, 2 where both are the answer, or one of those that say the same"
CHOSEN = re.compile(
    r"(?:(?i:option|choice|answer) )?(?:\(([A-Z])\)(?![A-Za-z])|([A-Z])(?:\)(?![A-Za-z])|[.:]|(?= )|$))"
    r"[.:]? ?((?![,;+*/=^_<>&\\!'-]|or\b|and\b).*)"
)


@dataclass(frozen=True, slots=True)
class Gold:
    """A reference, parsed and typed once: Gold(text="\\frac{1}{2}", shape=Shape("number", ...))."""

    text: str
    shape: Shape | None = None
    choice: str = ""  # the letter, where the reference is one of several to choose from
    problem: str = ""  # why it cannot be used


def warm_up(
    tolerance: str | float = "exact", percent: str = "optional", ordered: bool = False, units: str = "optional",
    evaluated: bool = False, choices: str = LETTERS,
) -> None:  # fmt: skip
    """The slow imports, and a wrong option said before the first completion."""
    Options(tolerance, percent, ordered, units, evaluated)
    if not re.fullmatch("[A-Z]*", choices):
        raise ValueError(f"math: choices={choices!r}: expected capital letters, such as ABCDE, or an empty string")
    math_algebra.check_ground_types()
    math_algebra.by_algebra("f(x)+1", "1+f(x)")


def unusable(answer: Any, choices: str = LETTERS) -> str | None:
    """Why `answer` is no reference: empty, too large, a list of several, or not to be read as anything."""
    return reference(answer, choices).problem or None


@verifier("math", version="7", timeout_s=2.0, memory_gib=2.0, setup=warm_up, check_answer=unusable)
def math(
    sample: Sample,
    tolerance: str | float = "exact",
    percent: str = "optional",
    ordered: bool = False,
    units: str = "optional",
    choices: str = LETTERS,
    evaluated: bool = False,
    unboxed: bool = False,
) -> Verdict:
    """1 when the last box after the thoughts equals `sample.answer`, else 0. What the options mean: docs/math.md.

    tolerance  exact | digits (half a unit of the reference's last decimal) | a share of the reference, e.g. 0.01
    percent    optional (25% is 0.25, and 25 where it can be nothing else) | value (25% is 0.25) | literal
    ordered    lists without brackets are compared in order
    units      optional (may be left out, not changed) | required | ignored
    choices    letters that are choices where the reference is one of them; "" for none
    evaluated  a reference that is one number wants one number: 3+4 is not 7
    unboxed    without a box, what stands behind `####` or `answer is` in the last line
    """
    gold = reference(sample.answer, choices)
    if gold.problem or gold.shape is None:
        return abstained("gold_unparsed", gold.problem)
    region = after_thoughts(sample.completion, sample.thinking)
    if region is None:
        return rejected("no_answer", "the thoughts are never closed")
    answer = last_answer(region)
    if answer is None and unboxed:
        answer = stated_answer(region)
    if answer is None and gold.choice:
        answer = chosen_last(region, choices)
    if answer is None:
        return rejected("no_box", "no closed \\boxed{} after the thoughts")
    if limit := too_large(answer):
        return rejected("too_long", limit)
    if tolerance == "exact" and INTEGER.fullmatch(answer) and INTEGER.fullmatch(gold.text):
        return verdict(int(answer) == int(gold.text), answer, "number")
    answer = normalised(answer)
    if limit := too_large(answer):
        return rejected("too_long", limit)
    if gold.choice:
        return verdict(chosen(answer, choices) == gold.choice, answer, "choice")
    return compared(gold.shape, answer, Options(tolerance, percent, ordered, units, evaluated))


def compared(gold: Shape, answer: str, options: Options) -> Verdict:
    shape = read(answer)
    alone = shape.kind == "set" and len(shape.parts) == 1 and shape.parts[0].kind != "set"
    if alone and gold.kind not in ("set", "union", "without"):
        shape = shape.parts[0]
    try:
        equal = math_equal.same(gold, shape, options)
    except TooLarge as error:
        return rejected("too_large", f"{error} is beyond what is computed", answer=answer)
    except ArithmeticError as error:  # the reference has a value: what overflows or divides by zero is the answer
        return rejected("too_large", f"its value ends in {error!r}", answer=answer)
    if not equal and math_equal.undecided(gold, shape):
        return abstained("gold_unparsed", f"nothing can say whether that is {gold.text!r}", answer=answer)
    if equal is None:
        return abstained("gold_unparsed", f"nothing can read {gold.text!r}", answer=answer)
    if math_equal.as_written(gold) == math_equal.as_written(shape):
        return verdict(equal, answer, "string")
    numbers = gold.number is not None and shape.number is not None
    return verdict(equal, answer, "number" if numbers else shape.kind)


def verdict(equal: bool, answer: str, rung: str) -> Verdict:
    where = Provenance("math", path="fast" if rung in FAST else rung)
    reason = "equal" if equal else "differs"
    return said(float(equal), reason, f"decided as {rung}", answer=answer, provenance=(where,))


def reference(answer: Any, choices: str) -> Gold:
    """A list of one is that one. Several may all be the answer, or each, and their JSON would be read as a tuple."""
    if hasattr(answer, "tolist"):  # numpy's array, as pandas has lists
        answer = answer.tolist()
    if isinstance(answer, (list, tuple)):
        if len(answer) != 1:
            return Gold("", problem=f"the reference is a list of {len(answer)}: {SEVERAL}")
        (answer,) = answer
    if answer is None or answer != answer:  # tables mark what is missing with NaN too
        return Gold("", problem="the reference is empty")
    if isinstance(answer, (list, tuple, dict)):
        return Gold("", problem=f"the reference is a {type(answer).__name__}")
    if isinstance(answer, str) and JSON_LIST.match(answer):
        return Gold("", problem=f"the reference is the text of a JSON list: {SEVERAL}")
    return parsed(str(answer), choices)


@lru_cache(maxsize=4096)
def parsed(gold: str, choices: str) -> Gold:
    """The reference proper: behind GSM8K's `####`, out of a solution's box, or as it is."""
    if "####" in gold:
        gold = gold.rpartition("####")[2]
    text = last_answer(gold) or gold
    if limit := too_large(text):
        return Gold("", problem=f"the reference has {limit}")
    text = normalised(text)
    if not text:
        return Gold("", problem="the reference is empty")
    letter = re.fullmatch(r"\(?([A-Z])\)?", undressed(text))
    if letter and letter[1] in choices:
        return Gold(text, read(text), choice=letter[1])
    shape = read(text)
    return Gold(text, shape, problem=unreadable(shape))


def unreadable(shape: Shape) -> str:
    """Why nothing can be compared with `shape`; "" when it can. Text, and what has dots in it, is compared as it is."""
    if shape.kind in ("text", "number", "ratio", "clock", "based") or (
        shape.kind == "literal" and "dots" in shape.text
    ):
        return ""
    if shape.kind == "builder":  # equal piece by piece; a set that differs in one abstains
        return ""
    if shape.parts:
        return next(filter(None, map(unreadable, shape.parts)), "")
    if shape.kind == "set":
        return ""
    try:
        tree = value_tree(shape)
        if not math_values.symbols(tree):
            math_values.value(tree)
        return ""
    except (Undefined, TooLarge, ArithmeticError) as error:
        return f"{shape.text!r} has no value: {error}"
    except Unreadable as error:
        if math_algebra.understood(shape.text) and math_algebra.parsed(shape.text):
            return ""
        return f"{shape.text!r} cannot be read: {error}"


def chosen(answer: str, letters: str) -> str:
    """The letter of `B`, `(B)`, `B. 12` or `\\text{(B) } 12`; "" when there is none, or more than one."""
    text = re.sub(r"\s+", " ", undressed(answer)).strip("{} ")
    found = CHOSEN.fullmatch(text)
    letter = found[1] or found[2] if found else ""
    if not found or letter not in letters:
        return ""
    another = re.search(r"(?<![A-Za-z\\])([A-Z])(?![A-Za-z])", found[3])
    return "" if another and another[1] in letters else letter


def chosen_last(region: str, letters: str) -> str | None:
    """`The answer is (B).` at the very end."""
    last = region.rstrip()[-LAST_WORDS:].rpartition("\n")[2]
    found = re.search(r"answer is:? ?\**\(?([A-Z])\)?\**\.?$", last)
    return found[1] if found and found[1] in letters else None
