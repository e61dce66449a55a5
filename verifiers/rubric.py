"""Weighted criteria, each decided by a judge, a pattern, or any other verifier (after arXiv:2507.17746).

    {"rubric": [{"name": "cites", "weight": 2, "judge": "It names its source."},
                {"name": "brief", "weight": 1, "verifier": "instructions", "params": {"checks": [...]}},
                {"name": "greets", "weight": -1, "regex": "(?i)^hello"}]}

A criterion that cannot be decided masks the completion: half a rubric is another reward.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rlvr_verifiers.chat import Endpoint, prepare
from rlvr_verifiers.judge import case_of, control_for, gradable, grade_name
from rlvr_verifiers.judging import settled, signature, silence, voted
from rlvr_verifiers.regex import regex
from rlvr_verifiers.regex import unusable as unreadable
from rlvr_verifiers.verdicts import abstained, failed, said

from rlvr.verify import Outcome, PluginError, Sample, Verdict, verifier
from rlvr.verify.discover import load
from rlvr.verify.plugin import named

KINDS = ("judge", "regex", "verifier")


@dataclass(frozen=True)
class Criterion:
    """Exactly one of `judge`, `regex` and `verifier` decides it. A negative weight is a fault that costs."""

    name: str
    weight: float = 1.0
    judge: str = ""
    regex: str = ""
    verifier: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)  # of the verifier, or of the pattern
    essential: bool = False  # without it everything is worth nothing


def prepare_rubric(endpoint: Mapping[str, Any] | None = None, criteria: Sequence[Any] | None = None) -> None:
    if endpoint is not None:
        prepare(endpoint)
    for criterion in read(criteria) if criteria is not None else ():
        if criterion.verifier:
            found = one_at_a_time(criterion)
            if found.setup is not None:
                found.setup(**named(found.setup, criterion.params))


def invalid(row: Mapping[str, Any], criteria: Any = None) -> str | None:
    try:
        read(criteria if criteria is not None else row.get("rubric"))
    except (ValueError, TypeError) as error:
        return str(error)
    return None


def unusable(answer: Any, row: Mapping[str, Any], criteria: Any = None) -> str | None:
    if why := invalid(row, criteria):
        return why
    patterns = [one for one in read(criteria if criteria is not None else row.get("rubric")) if one.regex]
    return next((f"{one.name}: {why}" for one in patterns if (why := unreadable(answer, row, one.regex))), None)


@verifier("rubric", version="3", timeout_s=300.0, setup=prepare_rubric, check_answer=unusable)
async def rubric(
    sample: Sample,
    criteria: Sequence[Mapping[str, Any]] | None = None,
    endpoint: Mapping[str, Any] | None = None,
    votes: int = 1,
    thoughts: bool = False,
    max_characters: int = 20_000,
    controls: float = 0.05,
) -> Verdict:
    """The weighted share of the criteria that are met, from 0 to 1; faults (negative weights) are taken off.

    The criteria are the option's, else the row's `rubric` column (a list, or JSON text of one). `endpoint` is needed
    where a judge decides; `controls` as in the judge: on that share of prompts an answer that is worth nothing is
    graded too, and where it earns half of the rubric nothing is believed.
    """
    if why := invalid(sample.row, criteria):
        return abstained("rubric_invalid", why)
    wanted = read(criteria if criteria is not None else sample.row.get("rubric"))
    chosen = Endpoint.of(endpoint) if endpoint is not None else None
    if chosen is None and any(criterion.judge for criterion in wanted):
        raise ValueError("rubric: a criterion asks for a judge, and the option `endpoint` is missing")
    text = gradable(sample, thoughts, max_characters)
    if isinstance(text, Verdict):
        return text
    # what it is cut down to holds no thoughts any more
    total = await graded(replace(sample, completion=text, thinking=sample.thinking and thoughts), wanted, chosen, votes)
    judged = any(criterion.judge for criterion in wanted)
    planted = control_for(sample.prompt, chosen.seed, controls) if chosen and judged else None
    if total.trainable and planted is not None:
        control = await graded(replace(sample, completion=planted, thinking=False), wanted, chosen, votes)
        if not control.trainable:
            return control
        if (control.reward or 0.0) >= 0.5:
            return failed("control_passed", f"{planted!r} earned {control.reward:g}", provenance=total.provenance)
    return total


async def graded(sample: Sample, criteria: Sequence[Criterion], endpoint: Endpoint | None, votes: int) -> Verdict:
    """All criteria on one text, which holds no thoughts any more."""
    verdicts = await asyncio.gather(*(decided(sample, one, endpoint, votes) for one in criteria))
    where = tuple(record for verdict in verdicts for record in verdict.provenance)
    for one, verdict in zip(criteria, verdicts, strict=True):
        if not verdict.trainable:
            reason = f"{one.name}_{verdict.reason}"
            return Verdict(None, verdict.outcome, reason=reason, detail=verdict.detail, provenance=where)
    met = {c.name: share_met(c, v) for c, v in zip(criteria, verdicts, strict=True)}
    detail = ", ".join(f"{name} {share:g}" for name, share in met.items())
    missing = [one.name for one in criteria if one.essential and met[one.name] == 0]
    if missing:
        return said(0.0, f"without_{missing[0]}", detail, provenance=where)
    full = sum(one.weight for one in criteria if one.weight > 0)
    share = sum(one.weight * met[one.name] for one in criteria) / full
    reward = min(1.0, max(0.0, share))
    return said(reward, grade_name(reward), detail, provenance=where)


def share_met(criterion: Criterion, verdict: Verdict) -> float:
    """A fault that the text does not let be ruled out (no box, too long, a time-out) counts: else that would pay."""
    if criterion.weight < 0 and verdict.outcome == Outcome.REJECTED:
        return 1.0
    return min(1.0, max(0.0, verdict.reward or 0.0))


async def decided(sample: Sample, criterion: Criterion, endpoint: Endpoint | None, votes: int) -> Verdict:
    if criterion.regex:
        return regex(sample, pattern=criterion.regex, **criterion.params)
    if criterion.verifier:
        # in a thread: it may be async itself, and the judges need not wait for it
        return await asyncio.to_thread(one_at_a_time(criterion), sample, **criterion.params)
    assert endpoint is not None
    ballot = await voted(endpoint, case_of(sample, criterion.judge, sample.completion, 1), votes)
    where = (signature(endpoint, criterion.judge, 1, ballot, votes),)
    reward = settled(ballot, 1)
    if reward is None:
        return failed("no_verdict", silence(ballot), provenance=where)
    return said(reward, grade_name(reward), provenance=where)


def one_at_a_time(criterion: Criterion) -> Any:
    found = load(criterion.verifier)
    if found.scope != "sample":
        raise PluginError(
            f"rubric: {criterion.name}: verifier {found.name!r} needs a whole {found.scope}, not one text"
        )
    found.check_params(criterion.params, f"{criterion.name}.params")
    return found


def read(criteria: Any) -> list[Criterion]:
    """ValueError or TypeError says what is wrong with which criterion. Fields that are None do not count."""
    loaded = json.loads(criteria) if isinstance(criteria, str) else criteria
    if not isinstance(loaded, Sequence) or not loaded:
        raise ValueError("no criteria: neither the option `criteria` nor a column `rubric`")
    found = []
    for number, one in enumerate(loaded, 1):
        if not isinstance(one, Mapping):
            raise ValueError(f"criterion {number}: {one!r} is no object")
        made = Criterion(**{"name": f"criterion_{number}"} | {k: v for k, v in one.items() if v is not None})
        kinds = [kind for kind in KINDS if getattr(made, kind)]
        if len(kinds) != 1:
            raise ValueError(f"{made.name}: exactly one of {', '.join(KINDS)} decides it, not {len(kinds)}")
        found.append(made)
    if len({one.name for one in found}) < len(found):
        raise ValueError("two criteria have the same name")
    if not sum(one.weight for one in found if one.weight > 0) > 0:
        raise ValueError("no criterion has a weight above 0")
    return found
