"""What is awaited: how many at a time, for how long, and whose fault it is when nothing comes."""

import asyncio

from rlvr.verify import Sample, call
from rlvr.verify.plugin import verifier

SAMPLE = Sample("", "", "")


def test_no_more_are_awaited_at_a_time_than_the_verifier_says():
    running, most = 0, []

    @verifier("counted", concurrency=3)
    async def counted(sample):
        nonlocal running
        running += 1
        most.append(running)
        await asyncio.sleep(0)
        running -= 1
        return True

    said = call.entries(counted, [SAMPLE] * 8, {})
    assert [entry.reward for entry in said] == [1.0] * 8 and max(most) == 3


def test_a_clients_own_limit_is_the_verifiers_error_and_not_ours():
    @verifier("hasty")
    async def hasty(sample):
        raise TimeoutError("the client's 2 s are over")

    @verifier("waiting", timeout_s=0.001)
    async def waiting(sample):
        await asyncio.Event().wait()

    assert call.entries(hasty, [SAMPLE], {}) == [call.Failure("TimeoutError: the client's 2 s are over")]
    assert call.entries(waiting, [SAMPLE], {}) == [call.Failure("no answer within 0.001 s", late=True)]
