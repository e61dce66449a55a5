"""Process rewards: each step of a solution gets a value of its own, as spans of tokens in `step_rewards`.

    completion --separator--> steps --arithmetic, or any verifier--> a value each --tokenizer--> (start, end, value)

The completion's own reward is made of the values too; outcome rewards are other verifiers' business.
"""

import asyncio
import re
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from rlvr_verifiers.arithmetic import calculations
from rlvr_verifiers.verdicts import abstained, failed, rejected, said

from rlvr.verify import Outcome, PluginError, Sample, Verdict, verifier
from rlvr.verify.discover import load
from rlvr.verify.plugin import named

MAX_STEPS, MAX_CHARACTERS = 500, 200_000
WINDOW = 16  # tokens that may wait for the rest of their character


def prepare(tokenizer: str, by: str = "arithmetic", params: Mapping[str, Any] | None = None) -> None:
    if tokenizer:
        tokenizer_of(tokenizer)
    if by != "arithmetic":
        found = load(by)
        if found.scope != "sample":
            raise PluginError(f"steps: verifier {by!r} needs a whole {found.scope}, not one step")
        found.check_params(params or {}, "steps.params")
        if found.setup is not None:
            found.setup(**named(found.setup, params or {}))


def unusable(answer: Any, row: Mapping[str, Any], by: str = "arithmetic", params: Any = None) -> str | None:
    return None if by == "arithmetic" else load(by).unusable(answer, params or {}, row)


@verifier("steps", version="4", timeout_s=60.0, setup=prepare, check_answer=unusable)
async def steps(
    sample: Sample,
    tokenizer: str,
    by: str = "arithmetic",
    params: Mapping[str, Any] | None = None,
    separator: str = r"\n+",
    total: Literal["mean", "min", "until_wrong"] = "mean",
) -> Verdict:
    """The mean value of the steps (`min`: the lowest; `until_wrong`: the share before the first below 1).

    Steps stand between matches of `separator`. `by` "arithmetic" asks whether what a step calculates is true, and has
    nothing to say of a step that calculates nothing; any other verifier is asked about each step as if it were the
    completion, and where it abstains on one, so does this. `tokenizer`: the model's folder, or its tokenizer.json;
    empty where only the reward is wanted.
    """
    if total not in ("mean", "min", "until_wrong"):
        raise ValueError(f"steps: total={total!r} is none of mean, min, until_wrong")
    if len(sample.completion) > MAX_CHARACTERS:
        return rejected("too_long", f"{len(sample.completion)} characters > {MAX_CHARACTERS}")
    spans = steps_of(sample.completion, separator)
    if len(spans) > MAX_STEPS:
        return rejected("too_many_steps", f"{len(spans)} steps > {MAX_STEPS}")
    verdicts = await asyncio.gather(*(judged(sample, sample.completion[a:b], by, params or {}) for a, b in spans))
    broken = next((v for v in verdicts if v is not None and v.outcome == Outcome.ERROR), None)
    if broken is not None:
        return failed(f"step_{broken.reason}", broken.detail, provenance=broken.provenance)
    silent = next((v for v in verdicts if v is not None and v.outcome == Outcome.ABSTAIN), None)
    if silent is not None:
        return abstained(f"step_{silent.reason}", silent.detail, provenance=silent.provenance)
    valued = [
        (span, v.reward) for span, v in zip(spans, verdicts, strict=True) if v is not None and v.reward is not None
    ]
    if not valued:
        return rejected("no_steps", f"none of {len(spans)} steps could be judged")
    values = [value for _, value in valued]
    reward = {"mean": sum(values) / len(values), "min": min(values), "until_wrong": until_wrong(values)}[total]
    within: tuple[tuple[int, int, float], ...] = ()
    if tokenizer and sample.token_ids and not sample.transcript:  # behind a tool's answer they are no one text
        within = tokens_of([(*span, value) for span, value in valued], sample, tokenizer_of(tokenizer))
    detail = ", ".join(f"{value:g}" for value in values)
    wrong = any(value < 1 for value in values)
    return said(reward, "wrong_step" if wrong else "right_steps", detail, step_rewards=within)


async def judged(sample: Sample, step: str, by: str, params: Mapping[str, Any]) -> Verdict | None:
    """None where a step gives nothing to judge."""
    if by != "arithmetic":
        alone = replace(sample, completion=step, token_ids=(), thinking=False, turns=())
        return await asyncio.to_thread(load(by), alone, **params)
    found = [truth for line in step.split("\n") for truth in calculations(line)]
    return said(all(found), "right" if all(found) else "wrong") if found else None


def until_wrong(values: Sequence[float]) -> float:
    first = next((place for place, value in enumerate(values) if value < 1), len(values))
    return first / len(values)


def steps_of(text: str, separator: str) -> list[tuple[int, int]]:
    """(start, end) of what stands between separators, in characters; blank ones left out."""
    found, at = [], 0
    for mark in re.finditer(separator, text):
        if mark.end() > mark.start():
            found.append((at, mark.start()))
            at = mark.end()
    return [(a, b) for a, b in [*found, (at, len(text))] if text[a:b].strip()]


def tokens_of(
    valued: Sequence[tuple[int, int, float]], sample: Sample, decode: Callable[[Sequence[int]], str]
) -> tuple[tuple[int, int, float], ...]:
    """The same spans in tokens. A token that two steps share belongs to the earlier; one without a token of its own is
    left out. ValueError where the tokenizer is not the one that the completion was decoded with."""
    if decode(sample.token_ids) != sample.completion:
        raise ValueError("steps: `tokenizer` does not decode the token ids to the completion: it is another model's")
    ends = characters_after(sample.token_ids, decode)
    begins = [0, *ends[:-1]]
    found, last = [], 0
    for start, end, value in valued:
        first, after = bisect_left(begins, start), bisect_left(ends, end) + 1
        if first == len(begins) or begins[first] > start:
            first -= 1  # it begins within a token
        first = max(first, last)
        if first < after:
            found.append((first, after, value))
            last = after
    return tuple(found)


def characters_after(token_ids: Sequence[int], decode: Callable[[Sequence[int]], str]) -> list[int]:
    """How many characters of the text are complete after each token. Linear: only a short window is decoded again."""
    ends: list[int] = []
    begin = done = characters = 0
    for place in range(1, len(token_ids) + 1):
        before, now = decode(token_ids[begin:done]), decode(token_ids[begin:place])
        if len(now) > len(before) and (not now.endswith("\ufffd") or place - done > WINDOW):
            characters += len(now) - len(before)
            begin, done = done, place
        elif place - done > WINDOW:
            begin = done = place  # special tokens, that have no text
        ends.append(characters)
    return ends


@lru_cache(maxsize=8)
def tokenizer_of(path: str) -> Callable[[Sequence[int]], str]:
    """Token ids -> text without special tokens, as completions are decoded."""
    from tokenizers import Tokenizer

    file = Path(path).expanduser()
    file = file / "tokenizer.json" if file.is_dir() else file
    if not file.is_file():
        raise PluginError(f"steps: tokenizer={path}: no {file}")
    loaded = Tokenizer.from_file(str(file))
    return lambda token_ids: loaded.decode(list(token_ids), skip_special_tokens=True)
