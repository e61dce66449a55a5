"""Does the program that a completion holds do what the row's tests ask? It runs in a sandbox; the verdict is made here.

    completion -> after the thoughts -> program (`extract`, `template`) -> sandbox, by the kind of test -> verdict

What the rows say is in code_task.py, how programs are graded in code_grade.py, what the sandbox is worth on this
machine in `rlvr sandbox probe`. A slot or two are kept warm in each verifier process.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

from rlvr_verifiers.boxes import after_thoughts, boxes
from rlvr_verifiers.code_grade import NO_TESTS, Grade, grade
from rlvr_verifiers.code_task import NoTask, read_task

from rlvr.sandbox import Limits, Sandbox
from rlvr.types import Provenance
from rlvr.verify import Outcome, Sample, Verdict, verifier

MAX_PROGRAM = 100_000  # characters
PYTHON = {"", "python", "py", "python3"}
ANSWERED = {"passed", "differs", "raised", "failed"}  # it ran, and was judged by what it gave back
_open: dict[tuple[str, bool], Sandbox] = {}


def open_sandbox(min_level: str = "confined", allow_unsafe: bool = False) -> Sandbox:
    """Refuses, with the reason, where this machine protects itself less than `min_level`."""
    key = (min_level, allow_unsafe)
    if key not in _open:
        sandbox = Sandbox(slots=2, min_level=min_level, allow_unsafe=allow_unsafe)
        sandbox.start()
        _open[key] = sandbox
    return _open[key]


def set_up(
    template: str = "{code}",
    cpu_s: float = 2.0,
    memory_mb: int = 1024,
    total_s: float = 30.0,
    tolerance: float = 1e-6,
    min_level: str = "confined",
    allow_unsafe: bool = False,
) -> None:
    """Refuses limits by which right programs would be graded wrong, or wrong ones right."""
    if "{code}" not in str(template):
        raise ValueError(f"code: template={template!r:.80}: no {{code}} in it, so no completion would be run")
    times = {"cpu_s": (cpu_s, 0.1), "total_s": (total_s, 0.1)}
    for name, (value, least) in {**times, "memory_mb": (memory_mb, 16), "tolerance": (tolerance, 0)}.items():
        if not (isinstance(value, (int, float)) and least <= value < math.inf):
            raise ValueError(f"code: {name}={value!r}: a number, at least {least}")
    if memory_mb != int(memory_mb):
        raise ValueError(f"code: memory_mb={memory_mb!r}: a whole number")
    Limits(cpu_s=cpu_s, memory_mb=memory_mb)
    open_sandbox(min_level, allow_unsafe)


def close_sandboxes() -> None:
    while _open:
        _open.popitem()[1].close()


def wrong_answer(answer: Any, row: Mapping[str, Any] | None = None) -> str | None:
    """Why a row cannot be graded."""
    try:
        read_task(answer, row)
    except NoTask as error:
        return str(error)
    return None


@verifier(
    "code",
    version="4",
    timeout_s=60.0,
    isolation="sandbox",
    setup=set_up,
    close=close_sandboxes,
    check_answer=wrong_answer,
)
def code(
    sample: Sample,
    extract: str = "fenced",
    template: str = "{code}",
    cpu_s: float = 2.0,
    memory_mb: int = 1024,
    total_s: float = 30.0,
    tolerance: float = 1e-6,
    partial: bool = False,
    min_level: str = "confined",
    allow_unsafe: bool = False,
) -> Verdict:
    """1 when the program passes everything, else 0; with `partial` the share of cases that it passes.

    `extract`: the last `fenced` block of Python, the last `boxed` expression, `all` of the text, or `continued`: the
    row's prompt with the completion behind it. `template`: the program, with the text in place of {code}. `cpu_s`: of
    one run, `total_s` of all runs for one completion. `tolerance`: of expected floats, relative above 1. `min_level`:
    what the sandbox must be worth: isolated, confined, or less safe: filtered, limited (with `allow_unsafe`).
    """
    try:
        task = read_task(sample.answer, sample.row)
    except NoTask as error:
        return Verdict(None, Outcome.ABSTAIN, reason=NO_TESTS, detail=str(error))
    text = extracted(sample, extract)
    if text is None:
        return Verdict(0.0, Outcome.REJECTED, reason="no_code", detail=f"nothing {extract} after the thoughts")
    if len(text) > MAX_PROGRAM:
        detail = f"{len(text)} characters > {MAX_PROGRAM}"
        return Verdict(0.0, Outcome.REJECTED, reason="too_long", detail=detail)
    sandbox = open_sandbox(min_level, allow_unsafe)
    limits = Limits(cpu_s=cpu_s, memory_mb=memory_mb)
    found = grade(template.replace("{code}", text), task, sandbox, limits, total_s, tolerance)
    return verdict_of(found, text, partial)


def verdict_of(found: Grade, text: str, partial: bool) -> Verdict:
    """A program that gave no answer is REJECTED; wrong answers are OK and worth nothing, or what passed of them. It is
    the row's fault, and masked, where the tests never called the program."""
    where = (Provenance("code", trust=found.trust, sandbox_level=found.level),)  # type: ignore[arg-type]
    if found.reason == NO_TESTS:
        return Verdict(None, Outcome.ABSTAIN, reason=NO_TESTS, detail=found.detail, provenance=where)
    share = found.passed / found.of if found.of else 0.0
    answered = found.reason in ANSWERED
    reward = 1.0 if found.right else share if partial and answered else 0.0
    return Verdict(
        reward,
        Outcome.OK if answered else Outcome.REJECTED,
        parts={"passed": share},
        reason=found.reason,
        detail=found.detail,
        answer=text[:2000],
        provenance=where,
    )


def extracted(sample: Sample, how: str) -> str | None:
    if how == "continued":
        return str(sample.row.get("prompt", sample.prompt)) + sample.completion
    region = after_thoughts(sample.completion, sample.thinking)
    if region is None:
        return None
    if how == "all":
        return region if region.strip() else None
    if how == "boxed":
        found = boxes(region)
        return found[-1][2] if found else None
    if how == "fenced":
        return last_block(region)
    raise ValueError(f"extract={how}: one of fenced, boxed, all, continued")


def last_block(text: str) -> str | None:
    """The content of the last closed block of code that says Python; where none does, of the last that says nothing.
    A block that is indented, as in a list, loses as much indentation in each line, as Markdown has it; one whose fence
    alone is indented does not."""
    found: dict[bool, str] = {}  # by whether it says Python
    opened: tuple[str, str, int] | None = None  # fence, language, indentation
    lines: list[str] = []
    for line in text.split("\n"):
        bare = line.strip()
        fence = bare[: len(bare) - len(bare.lstrip("`"))]
        if opened is None and len(fence) >= 3:
            info = bare[len(fence) :].strip().lower()  # python title="a.py", python:a.py
            opened, lines = (fence, re.split(r"[\s:,{]", info)[0] or info, indented(line)), []
        elif opened is not None and bare == fence and len(fence) >= len(opened[0]):
            if opened[1] in PYTHON and (first := next(filter(str.strip, lines), "")):
                most = min(opened[2], indented(first))
                found[bool(opened[1])] = "".join(f"{each[min(most, indented(each)) :]}\n" for each in lines)
            opened = None
        elif opened is not None:
            lines.append(line)
    return found.get(True, found.get(False))


def indented(line: str) -> int:
    return len(line) - len(line.lstrip(" \t"))
