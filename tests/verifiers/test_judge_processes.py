"""Judges as a run has them: in killable processes, many at a time."""

import time

import pytest

from rlvr.reward_config import PartConfig, RewardConfig
from rlvr.types import Completion, Group, Outcome, Prompt
from rlvr.verify import Judge, PluginError
from tests.verifiers.endpoint import Said, honest, serving, unreachable


def group(*texts: str) -> Group:
    prompt = Prompt("p", 0, ({"role": "user", "content": "2+3=?"},), (1,), "5")
    return Group(prompt, tuple(Completion((1,), (True,), (0.0,), 0, text, "eos") for text in texts))


def judged(endpoint: dict, *texts: str, **options):
    params = {"endpoint": endpoint, "controls": 0.0, **options}
    judge = Judge(RewardConfig({"judge": PartConfig("judge", params=params)}), processes=1)
    try:
        return judge.verify_group(group(*texts)).verdicts
    finally:
        judge.close()


def test_a_group_is_judged_at_once_and_each_gets_its_own_verdict():
    begun: list[float] = []

    def slow(request, number):
        begun.append(time.monotonic())
        return Said(honest(request["messages"][0]["content"]), after_s=1.0)

    with serving(slow) as server:
        verdicts = judged(server.options, "5", "6", "5", "<think>", "", "7", "8", "9")
    assert [verdict.reward for verdict in verdicts] == [1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    assert [verdict.outcome for verdict in verdicts[3:5]] == [Outcome.REJECTED] * 2
    assert len(begun) == 5  # "5" is asked about once
    assert max(begun) - min(begun) < 1.0  # nobody waited for another's verdict
    assert verdicts[0].provenance[0].judge.startswith("tiny-judge prompt=")


def test_a_judge_that_is_gone_masks_the_group_and_rewards_nobody():
    verdicts = judged(unreachable(), "5", "6")
    assert {(verdict.outcome, verdict.reward) for verdict in verdicts} == {(Outcome.ERROR, None)}


def test_an_endpoint_that_is_misspelt_stops_the_start():
    with pytest.raises(PluginError, match="did you mean model"):
        judged({"url": "http://x", "modle": "m"}, "5")
