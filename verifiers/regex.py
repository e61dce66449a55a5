"""Does a completion match a pattern? With the `regex` package, whose matching can be given a time limit."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal

import regex as engine
from rlvr_verifiers.boxes import after_thoughts, last_answer
from rlvr_verifiers.verdicts import abstained, rejected, said

from rlvr.verify import Sample, Verdict, verifier

MAX_CHARACTERS = 100_000
LIMIT_S = 1.0


def unusable(answer: Any, row: Mapping[str, Any], pattern: str = "", ignore_case: bool = False) -> str | None:
    source = pattern or row.get("pattern") or answer
    try:
        compiled_pattern(source, ignore_case)
    except (engine.error, TypeError, ValueError) as error:
        return f"{source!r}: {error}"
    return None


@verifier("regex", version="2", timeout_s=3.0, check_answer=unusable)
def regex(
    sample: Sample,
    pattern: str = "",
    where: Literal["answer", "box", "all"] = "answer",
    whole: bool = False,
    ignore_case: bool = False,
    expected: bool = True,
) -> Verdict:
    """1 when the pattern matches (`expected=false`: when it does not), else 0.

    The pattern is the option's, else the row's `pattern` column, else the reference. `where`: the text after the
    thoughts, the last box, or everything. `whole`: the pattern must match all of it. A named group `answer` becomes the
    verdict's answer.
    """
    if where not in ("answer", "box", "all"):
        raise ValueError(f"regex: where={where!r} is none of answer, box, all")
    if why := unusable(sample.answer, sample.row, pattern, ignore_case):
        return abstained("pattern_invalid", why)
    compiled = compiled_pattern(pattern or sample.row.get("pattern") or sample.answer, ignore_case)
    region = sample.completion if where == "all" else after_thoughts(sample.completion, sample.thinking)
    if region is None:
        return rejected("no_answer", "the thoughts are never closed")
    text = last_answer(region) if where == "box" else region.strip()
    if text is None:
        return rejected("no_box")
    if len(text) > MAX_CHARACTERS:
        return rejected("too_long", f"{len(text)} characters > {MAX_CHARACTERS}")
    try:
        found = (compiled.fullmatch if whole else compiled.search)(text, timeout=LIMIT_S)
    except TimeoutError:
        return rejected("timeout", f"matching took more than {LIMIT_S:g} s")
    answer = found.groupdict().get("answer") if found else None
    return said((found is not None) == expected, "matches" if found else "no_match", answer=answer)


@lru_cache(maxsize=4096)
def compiled_pattern(source: Any, ignore_case: bool) -> Any:
    if not isinstance(source, str) or not source:
        raise TypeError("expected a pattern, a non-empty text")
    return engine.compile(source, engine.IGNORECASE if ignore_case else 0)
