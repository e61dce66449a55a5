"""A tool that a policy calls in the middle of a completion: written, found and run as a verifier is, and answers with
text.

from rlvr.verify import Sample, tool

@tool("calculator", timeout_s=2.0)
def calculator(sample: Sample) -> str | None:
    asked = re.search(r"<calc>(.+)</calc>$", sample.completion)
    return None if asked is None else calculated(asked[1])

`sample.completion` is the turn that has just ended, `sample.transcript` all turns and answers so far, `sample.row` the
data set's other columns; not the reference. None: there was no call, the completion is over. What the policy asked
wrongly is answered with text: a tool that raises masks the completion.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import Any

from rlvr.types import Outcome, Verdict
from rlvr.verify.plugin import PluginError, Sample, Verifier, verifier

TOOL = "tool"  # `tool:REFERENCE` is the tool, whose verdicts hold its answers
LONGEST = 1_000_000  # characters of an answer that travel


def tool(name: str, **limits: Any) -> Callable[[Callable[..., Any]], Verifier]:
    """Make a tool of a function `(sample, **options) -> str | None`. `limits` are those of `verifier`: version,
    timeout_s, memory_gib, setup, close, isolation, concurrency."""
    return verifier(name, **limits)


def answering(theirs: Verifier) -> Verifier:
    """A verifier whose verdict on a sample holds what the tool answers."""
    if theirs.takes_list or theirs.check_answer is not None:
        raise PluginError(f"{theirs.name!r} is a verifier, and no tool")
    function: Any = theirs.function

    @wraps(function)
    async def awaited(sample: Sample, **params: Any) -> Verdict:
        return answer_of(await function(sample, **params), theirs.name)

    @wraps(function)
    def called(sample: Sample, **params: Any) -> Verdict:
        return answer_of(function(sample, **params), theirs.name)

    return replace(theirs, function=awaited if theirs.is_async else called)


def answer_of(said: Any, name: str) -> Verdict:
    if said is None:
        return Verdict(None, Outcome.ABSTAIN, reason="no_call")
    if not isinstance(said, str):
        raise TypeError(f"tool {name!r} returned {said!r:.200}: expected text, or None where nothing was asked")
    whole = said if len(said) <= LONGEST else said[: LONGEST // 2] + said[-LONGEST // 2 :]
    return Verdict(0.0, Outcome.OK, reason="answered", answer=whole)
