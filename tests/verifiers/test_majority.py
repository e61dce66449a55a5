"""Agreement within a group, and when it is no ground for a reward."""

from dataclasses import replace

import pytest
from rlvr_verifiers.majority import majority

from rlvr.reward_config import PartConfig, RewardConfig
from rlvr.types import Completion, Group, Outcome, Prompt
from rlvr.verify import Judge, Sample


def judged(*answers: str, **options):
    samples = [Sample("q", f"so \\boxed{{{answer}}}" if answer else "no idea", None) for answer in answers]
    return majority.function(samples, **{"unlabelled": True, **options})


def test_what_most_say_is_rewarded_however_it_is_spelt():
    verdicts = judged("1/2", "0.5", "\\frac{1}{2}", "3", "")
    assert [verdict.reward for verdict in verdicts] == [1.0, 1.0, 1.0, 0.0, 0.0]
    assert [verdict.reason for verdict in verdicts] == ["majority"] * 3 + ["minority", "no_answer"]
    assert verdicts[4].outcome == Outcome.REJECTED


@pytest.mark.parametrize(
    ("answers", "options", "said"),
    [
        (("1", "1", "2", "2"), {}, "equally frequent"),
        (("1", "1", "2", "3", "4"), {}, "said by 2 of 5"),
        (("1", "1", "", "", ""), {}, "2 answers"),
        (("1", "1", "1"), {}, "3 answers"),
        (("", "", ""), {}, "0 answers"),
        (("1", "1", "1", "2"), {"agreement": 0.9}, "agreement is 0.9"),
        (("1", "1", "1", "2", "", "", ""), {}, "said by 3 of 7"),  # most of those that answered, not of all
    ],
)
def test_where_there_is_no_majority_the_whole_group_is_masked(answers, options, said):
    verdicts = judged(*answers, **options)
    assert {(verdict.outcome, verdict.reason) for verdict in verdicts} == {(Outcome.ABSTAIN, "undecided")}
    assert said in verdicts[0].detail


def test_what_the_policy_did_not_end_has_no_vote():
    """Else two aborted ones beside six would mask them all: 4 of 8 is no more than half."""
    samples = [Sample("q", f"\\boxed{{{answer}}}", None) for answer in ("1", "1", "1", "1", "2", "3")]
    aborted = [replace(samples[0], completion="\\boxed{2}", stop_reason="abort")] * 3
    verdicts = majority.function(samples + aborted, unlabelled=True, agreement=0.6)
    assert [verdict.reward for verdict in verdicts[:6]] == [1.0] * 4 + [0.0] * 2


def test_it_is_off_until_the_data_is_said_to_have_no_references():
    verdicts = judged("1", "1", "1", "1", unlabelled=False)
    assert {(verdict.outcome, verdict.reason) for verdict in verdicts} == {(Outcome.ABSTAIN, "off")}


def test_the_vote_is_taken_over_the_group_also_where_processes_share_the_work():
    texts = ("\\boxed{4}", "\\boxed{4}", "\\boxed{5}", "\\boxed{4.0}", "\\boxed{7}", "")
    prompt = Prompt("p", 0, ({"role": "user", "content": "2+2=?"},), (1,), None)
    group = Group(prompt, tuple(Completion((1,), (True,), (0.0,), 0, text, "eos") for text in texts))
    judge = Judge(RewardConfig({"vote": PartConfig("majority", params={"unlabelled": True})}), processes=2)
    try:
        done = judge.verify_group(group)
    finally:
        judge.close()
    assert [verdict.reward for verdict in done.verdicts] == [1.0, 1.0, 0.0, 1.0, 0.0, 0.0]
