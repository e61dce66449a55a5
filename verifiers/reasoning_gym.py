"""Scores answers to reasoning-gym's procedural tasks with the task's own scorer. Needs `pip install reasoning-gym`.

A row is an entry of one of its data sets: columns `question`, `answer`, and `metadata` with `source_dataset`.
"""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from rlvr_verifiers.boxes import after_thoughts, last_answer
from rlvr_verifiers.verdicts import abstained, rejected, said

from rlvr.verify import Sample, Verdict, verifier

MAX_CHARACTERS = 20_000


def load_library() -> None:
    try:
        import reasoning_gym  # noqa: F401
    except ImportError as error:
        raise ImportError("reasoning_gym needs the package reasoning-gym: pip install reasoning-gym") from error


def unusable(answer: Any, row: Mapping[str, Any], task: str = "") -> str | None:
    try:
        scorer(task or metadata_of(row).get("source_dataset"))
    except ValueError as error:
        return str(error)
    return None


@verifier("reasoning_gym", version="2", timeout_s=5.0, setup=load_library, check_answer=unusable)
def reasoning_gym(sample: Sample, task: str = "", partial: bool = False) -> Verdict:
    """1 for a full score by the task's own scorer, else 0; with `partial` the score itself, 0 to 1.

    Many scorers give part of the score to a text that merely contains the answer ("1 2 3 4 5" for "4"), hence the
    default.

    The task is the option's, else `metadata.source_dataset` of the row. The answer stands in the last <answer> tags,
    else in the last box, else it is all of the text after the thoughts.
    """
    if why := unusable(sample.answer, sample.row, task):
        return abstained("task_unknown", why)
    metadata = metadata_of(sample.row)
    score_answer = scorer(task or metadata["source_dataset"])
    entry = {"question": sample.row.get("question", sample.prompt), "answer": sample.answer, "metadata": metadata}
    region = after_thoughts(sample.completion, sample.thinking)
    if region is None:
        return rejected("no_answer", "the thoughts are never closed")
    answer = answer_in(region)
    if not answer:
        return rejected("no_answer")
    if len(answer) > MAX_CHARACTERS:
        return rejected("too_long", f"{len(answer)} characters > {MAX_CHARACTERS}")
    if "__" in answer and "__" not in str(sample.answer):  # some scorers evaluate expressions
        return rejected("not_allowed", "the answer holds a double underscore")
    try:
        score = score_of(score_answer, answer, entry)
    except Exception as error:
        score_of(score_answer, str(sample.answer), entry)  # raises as well: then it is not the answer's fault
        return rejected("unscorable", f"{type(error).__name__}: {error}", answer=answer)
    full = score >= 1
    reason = "right" if full else "wrong"
    return said(score if partial else float(full), reason, f"score {score:g}", answer=answer)


def score_of(score_answer: Any, answer: str, entry: dict[str, Any]) -> float:
    return min(1.0, max(0.0, float(score_answer(answer=answer, entry=entry))))


def answer_in(region: str) -> str:
    _, opened, inside = region.rpartition("<answer>")
    if opened:
        return inside.partition("</answer>")[0].strip()
    boxed = last_answer(region)
    return (region if boxed is None else boxed).strip()


def metadata_of(row: Mapping[str, Any]) -> dict[str, Any]:
    metadata = row.get("metadata") or {}
    metadata = json.loads(metadata) if isinstance(metadata, str) else metadata
    if not isinstance(metadata, dict):
        raise ValueError(f"the column `metadata` is a {type(metadata).__name__}, not an object")
    return metadata


@lru_cache(maxsize=256)
def scorer(name: Any) -> Any:
    from reasoning_gym import get_score_answer_fn

    if not isinstance(name, str) or not name:
        raise ValueError("no task: neither the option `task` nor `metadata.source_dataset` in the row")
    return get_score_answer_fn(name)
