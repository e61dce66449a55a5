"""A judge whose faults a second judge has to confirm (DeepSeekMath-V2, arXiv:2511.22570, section 2.3).

    analyses of the answer, each with a score 0, 1/2 or 1 --those that find fault--> is the analysis itself sound?

A judge that invents faults is not believed, and neither is one that finds none where a sound analysis does.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

from rlvr_verifiers.chat import Endpoint, prepare
from rlvr_verifiers.judge import CORRECT, gradable
from rlvr_verifiers.judging import Case, Vote, settled, signature, silence, voted
from rlvr_verifiers.verdicts import abstained, failed, said

from rlvr.verify import Sample, Verdict, verifier

SCALE = 2  # 0 is wrong, 1 has gaps or small faults, 2 is right and complete
RIGOROUS = (
    "The answer is complete and rigorous: every step is right and justified. Name each fault and where it stands. "
    "0: wrong, or fatal gaps. 1: sound overall with small errors or missing details. 2: fully right."
)
SOUND = (
    "The analysis is sound: every fault it names really stands in the answer and is a fault, and the faults justify "
    "the score it gives (0: fatal, 1: small, 2: none). 0: it invents or misreads a fault, or the score does not follow."
)


def prepare_both(endpoint: Mapping[str, Any], meta_endpoint: Mapping[str, Any] | None = None) -> None:
    for options in (endpoint, meta_endpoint):
        if options is not None:
            prepare(options)


@verifier("meta", version="2", timeout_s=600.0, setup=prepare_both)
async def meta(
    sample: Sample,
    endpoint: Mapping[str, Any],
    meta_endpoint: Mapping[str, Any] | None = None,
    criterion: str = "",
    analyses: int = 4,
    checks: int = 3,
    needed: int = 1,
    thoughts: bool = False,
    max_characters: int = 20_000,
) -> Verdict:
    """The lowest score that `needed` sound analyses give; 1 when no fault is confirmed; else masked as disputed.

    `analyses` replies of the judge; each that finds fault is checked by `checks` replies of the meta-judge (the same
    model unless `meta_endpoint` names another), most of which must confirm it. Ask at a temperature above 0: analyses
    that are copies of one another confirm nothing.
    """
    if min(analyses, checks, needed) < 1 or needed > analyses:
        raise ValueError(f"meta: analyses {analyses}, checks {checks}, needed {needed}: from 1, needed <= analyses")
    judge = Endpoint.of(endpoint)
    checker = Endpoint.of(meta_endpoint, "meta_endpoint") if meta_endpoint is not None else judge
    text = gradable(sample, thoughts, max_characters)
    if isinstance(text, Verdict):
        return text
    wanted = criterion or (f"{CORRECT} {RIGOROUS}" if sample.answer not in (None, "") else RIGOROUS)
    shown = {"QUESTION": sample.prompt}
    if sample.answer not in (None, ""):
        shown["REFERENCE"] = str(sample.answer)
    ballot = await voted(judge, Case(wanted, {**shown, "ANSWER": text}, SCALE), analyses)
    where = [signature(judge, wanted, SCALE, ballot, analyses)]
    if settled(ballot, SCALE) is None:
        return failed("no_verdict", silence(ballot), provenance=tuple(where))
    faults = [vote for vote in ballot if vote.score is not None and vote.score < SCALE]
    seconds = await asyncio.gather(*(checked(checker, {**shown, "ANSWER": text}, vote, checks) for vote in faults))
    every = [vote for second in seconds for vote in second]
    if every:
        where.append(signature(checker, SOUND, 1, every, checks))
    sound = [settled(second, 1) for second in seconds]
    if any(one is None for one in sound):
        return failed("no_meta_verdict", silence(every), provenance=tuple(where))
    believed = [vote for vote, one in zip(faults, sound, strict=True) if one is not None and one > 0.5]
    return labelled(faults, believed, needed, provenance=tuple(where))


async def checked(endpoint: Endpoint, shown: Mapping[str, str], vote: Vote, checks: int) -> list[Vote]:
    analysis = f"{vote.text.rpartition('</think>')[2].strip()}\n\n(score given: {vote.score})"
    return await voted(endpoint, Case(SOUND, {**shown, "ANALYSIS": analysis}), checks)


def labelled(faults: list[Vote], believed: list[Vote], needed: int, **more: Any) -> Verdict:
    """The paper's rule: the lowest score counts when enough analyses that give it are sound; with no fault confirmed
    at all the answer is right; anything between goes to people there, and is masked here."""
    if not believed:
        return said(1.0, "no_fault_confirmed" if faults else "no_fault", **more)
    lowest = min(vote.score for vote in faults if vote.score is not None)
    confirmed = [vote for vote in believed if vote.score == lowest]
    if len(confirmed) < needed:
        detail = f"{len(confirmed)} of {needed} sound analyses for the lowest score {lowest / SCALE:g}"
        return abstained("disputed", detail, **more)
    return said(lowest / SCALE, "fault_confirmed", confirmed[0].text[-500:], **more)
