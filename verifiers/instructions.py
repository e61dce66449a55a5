"""Does a completion keep the instructions of its row? Each is a check by name with its numbers and words.

    {"instructions": [{"check": "words", "least": 100, "most": 150}, {"check": "avoids", "words": ["very"]}]}

The kind of instruction that can be verified by reading (after IFEval, arXiv:2311.07911); the checks themselves are in
`instruction_checks`. Whether the text also answers the question is another verifier's matter.
"""

import difflib
import inspect
import json
from collections.abc import Mapping
from typing import Any

from rlvr_verifiers.boxes import after_thoughts
from rlvr_verifiers.instruction_checks import CHECKS
from rlvr_verifiers.verdicts import abstained, rejected, said

from rlvr.verify import Sample, Verdict, verifier

MAX_CHARACTERS = 200_000


def unusable(answer: Any, row: Mapping[str, Any], checks: Any = None) -> str | None:
    """Also tried on a text: a number where words are expected, and the like."""
    try:
        for name, options in asked_of(row, checks):
            CHECKS[name]("A text.", **options)
    except (TypeError, ValueError, AttributeError) as error:
        return f"{type(error).__name__}: {error}"
    return None


@verifier("instructions", version="3", check_answer=unusable)
def instructions(
    sample: Sample, checks: list[dict[str, Any]] | None = None, strict: bool = True, thoughts: bool = False
) -> Verdict:
    """1 when every instruction is kept, else 0; with `strict=false` the share that is kept.

    The instructions are the option's `checks`, else the row's `instructions` column (a list, or JSON text of one).
    They are about the text after the thoughts; with `thoughts=true` about everything.
    """
    if why := unusable(sample.answer, sample.row, checks):
        return abstained("instructions_invalid", why)
    asked = asked_of(sample.row, checks)
    text = sample.completion if thoughts else after_thoughts(sample.completion, sample.thinking)
    if text is None:
        return rejected("no_answer", "the thoughts are never closed")
    if not text.strip():
        return rejected("empty")
    if len(text) > MAX_CHARACTERS:
        return rejected("too_long", f"{len(text)} characters > {MAX_CHARACTERS}")
    broken = [name for name, options in asked if not CHECKS[name](text.strip(), **options)]
    if not broken:
        return said(1.0, "kept")
    return said(0.0 if strict else 1 - len(broken) / len(asked), f"broke_{broken[0]}", ", ".join(broken))


def asked_of(row: Mapping[str, Any], checks: Any) -> list[tuple[str, dict[str, Any]]]:
    """Names and options of the checks; ValueError says what is wrong with them."""
    wanted = checks if checks is not None else row.get("instructions")
    loaded = json.loads(wanted) if isinstance(wanted, str) else wanted
    if not isinstance(loaded, (list, tuple)) or not loaded:
        raise ValueError("no instructions: neither the option `checks` nor a column `instructions`")
    return [bound(one) for one in loaded]


def bound(one: Any) -> tuple[str, dict[str, Any]]:
    """The check's name and options; ValueError names what is wrong with them. Options that are None do not count."""
    if not isinstance(one, dict) or not isinstance(one.get("check"), str):
        raise ValueError(f'{one!r}: expected an object like {{"check": "words", "least": 100}}')
    name = one["check"]
    options = {key: value for key, value in one.items() if key != "check" and value is not None}
    if name not in CHECKS:
        close = difflib.get_close_matches(name, CHECKS, n=1)
        raise ValueError(f"no check {name!r}" + (f"; did you mean {close[0]}?" if close else ""))
    try:
        inspect.signature(CHECKS[name]).bind("", **options)
    except TypeError as error:
        raise ValueError(f"check {name}: {error}") from None
    return name, options
