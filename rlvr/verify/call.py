"""One call of a verifier: sync or async, of one sample or of many. Knows no deadline but that of an `await`.

    verdicts   what it says; exceptions pass through
    entries    the same with each sample's exception in its place: what a worker process answers
"""

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

from rlvr.types import Outcome, Provenance, Verdict
from rlvr.verify.plugin import Sample, Verifier, as_verdict, fingerprint, shown


@dataclass(frozen=True, slots=True)
class Failure:
    """The verifier did not answer: it raised, or what it waited for did not come."""

    said: str
    late: bool = False


Entry = Verdict | Failure


def verdicts(
    verifier: Verifier, samples: Sequence[Sample], params: Mapping[str, Any], runner: asyncio.Runner | None = None
) -> list[Verdict]:
    """One verdict a sample, in order; raises what the verifier raises."""
    if not samples:
        return []
    if verifier.is_async and runner is None:
        with asyncio.Runner() as own:
            return verdicts(verifier, samples, params, own)
    if not verifier.takes_list:
        return [_one(verifier, sample, params, runner) for sample in samples]
    started = perf_counter()
    answers: Any = verifier.function([shown(sample) for sample in samples], **params)
    if isinstance(answers, Awaitable):
        assert runner is not None
        answers = runner.run(_within(answers, verifier.timeout_s))
    seconds = (perf_counter() - started) / len(samples)
    return signed(verifier, answers, samples, params, seconds)


def _one(verifier: Verifier, sample: Sample, params: Mapping[str, Any], runner: asyncio.Runner | None) -> Verdict:
    started = perf_counter()
    answer: Any = verifier.function(shown(sample), **params)
    if isinstance(answer, Awaitable):
        assert runner is not None
        answer = runner.run(_within(answer, verifier.timeout_s))
    return _signed(verifier, answer, params, perf_counter() - started)


def entries(
    verifier: Verifier, samples: Sequence[Sample], params: Mapping[str, Any], runner: asyncio.Runner | None = None
) -> list[Entry]:
    """One entry a sample. What the completion exhausts is the completion's fault, any other exception the verifier's.

    An exception of a call with several samples is everybody's, as nobody knows whose: they are asked again one by one.
    """
    if verifier.is_async and not verifier.takes_list:
        if runner is None:
            with asyncio.Runner() as own:
                return own.run(_awaited(verifier, samples, params))
        return runner.run(_awaited(verifier, samples, params))
    if not verifier.takes_list and len(samples) > 1:
        return [entry for sample in samples for entry in entries(verifier, [sample], params, runner)]
    try:
        return list(verdicts(verifier, samples, params, runner))
    except (MemoryError, RecursionError) as error:
        if len(samples) == 1 or verifier.scope != "sample":
            return [exhausted(verifier, error)] * len(samples)
        return [Failure(f"{type(error).__name__} in a call with {len(samples)} samples")] * len(samples)
    except (Exception, SystemExit) as error:  # beside the caller an exit would be the caller's
        return [failure(error)] * len(samples)


async def _awaited(verifier: Verifier, samples: Sequence[Sample], params: Mapping[str, Any]) -> list[Entry]:
    free = asyncio.Semaphore(verifier.concurrency)

    async def one(sample: Sample) -> Entry:
        async with free:
            started = perf_counter()
            try:
                coroutine: Any = verifier.function(shown(sample), **params)
                answer = await _within(coroutine, verifier.timeout_s)
                return _signed(verifier, answer, params, perf_counter() - started)
            except (MemoryError, RecursionError) as error:
                return exhausted(verifier, error)
            except Exception as error:
                return failure(error)

    return await asyncio.gather(*(one(sample) for sample in samples))


async def _within(answer: Awaitable[Any], limit_s: float) -> Any:
    """The answer, or Late: waiting is nobody's CPU time, so that it has a limit of its own."""
    started = perf_counter()
    try:
        return await asyncio.wait_for(_staying(answer), limit_s)
    except TimeoutError as error:
        if perf_counter() - started < limit_s:
            raise  # the verifier's own, from a client with a shorter limit
        raise Late(f"no answer within {limit_s:g} s") from error


async def _staying(answer: Awaitable[Any]) -> Any:
    """An exit in a task would leave the loop, past whoever awaits the task."""
    try:
        return await answer
    except SystemExit as error:
        raise RuntimeError(f"SystemExit: {error}") from error


class Late(Exception):
    """What the verifier waited for did not come in time."""


def failure(error: BaseException) -> Failure:
    late = isinstance(error, Late)
    return Failure(str(error) if late else f"{type(error).__name__}: {error}"[:1_000], late)


def exhausted(verifier: Verifier, error: BaseException) -> Verdict:
    if isinstance(error, MemoryError):
        return refused(verifier, "too_much_memory", f"more than {verifier.memory_gib} GiB")
    return refused(verifier, "too_deep", "the answer is nested too deeply")


def refused(verifier: Verifier, reason: str, detail: str) -> Verdict:
    where = Provenance(verifier.name, verifier.version)
    return Verdict(0.0, Outcome.REJECTED, reason=reason, detail=detail, provenance=(where,))


def signed(
    verifier: Verifier, answers: Any, samples: Sequence[Sample], params: Mapping[str, Any], seconds: float
) -> list[Verdict]:
    """A list function's answers as verdicts; TypeError unless there is one for each sample."""
    if isinstance(answers, (str, bytes, Mapping)) or not isinstance(answers, Sequence):
        raise TypeError(f"verifier {verifier.name!r} returned a {type(answers).__name__}: expected a list of answers")
    if len(answers) != len(samples):
        raise TypeError(f"verifier {verifier.name!r} returned {len(answers)} answers for {len(samples)} samples")
    return [_signed(verifier, answer, params, seconds) for answer in answers]


def _signed(verifier: Verifier, answer: Any, params: Mapping[str, Any], seconds: float) -> Verdict:
    """The answer as a verdict whose first provenance says who gave it; what the verifier noted there itself stays."""
    verdict = as_verdict(answer, verifier.name)
    first, *rest = verdict.provenance or (Provenance(verifier.name),)
    where = replace(
        first, verifier=verifier.name, version=verifier.version, parameters=fingerprint(params), seconds=seconds
    )
    return replace(verdict, provenance=(where, *rest))
