"""A pattern matches or it does not; a pattern that would run for ever is stopped."""

from time import process_time

import pytest
from rlvr_verifiers.regex import regex

from rlvr.types import Outcome
from rlvr.verify import Sample


@pytest.mark.parametrize(
    ("completion", "options", "reward", "reason"),
    [
        ("<think>7</think>it is 42", {"pattern": r"\d+"}, 1.0, "matches"),
        ("<think>42</think>no number", {"pattern": r"\d+"}, 0.0, "no_match"),
        ("<think>42</think>no number", {"pattern": r"\d+", "where": "all"}, 1.0, "matches"),
        ("it is 42", {"pattern": r"\d+", "whole": True}, 0.0, "no_match"),
        ("so \\boxed{42}", {"pattern": r"\d+", "whole": True, "where": "box"}, 1.0, "matches"),
        ("so 42", {"pattern": r"\d+", "where": "box"}, 0.0, "no_box"),
        ("<think>42", {"pattern": r"\d+"}, 0.0, "no_answer"),
        ("YES", {"pattern": "yes"}, 0.0, "no_match"),
        ("YES", {"pattern": "yes", "ignore_case": True}, 1.0, "matches"),
        ("sorry, no", {"pattern": "sorry", "expected": False}, 0.0, "matches"),
    ],
)
def test_what_matches_where(completion, options, reward, reason):
    verdict = regex(Sample("q", completion, None), **options)
    assert (verdict.reward, verdict.reason) == (reward, reason)


def test_the_pattern_may_stand_in_the_row_or_be_the_reference():
    assert regex(Sample("q", "abc", None, row={"pattern": "b"})).reward == 1.0
    assert regex(Sample("q", "abc", "^b")).reward == 0.0


def test_a_group_named_answer_is_the_answer():
    assert regex(Sample("q", "it is 42", r"is (?P<answer>\d+)")).answer == "42"


def test_a_pattern_that_explodes_is_stopped_and_earns_nothing():
    started = process_time()
    verdict = regex(Sample("q", "a" * 5000 + "b", r"(a|aa)+$|(a+)+c$"))
    assert (verdict.outcome, verdict.reason) == (Outcome.REJECTED, "timeout")
    assert process_time() - started < 5


def test_a_text_too_long_is_the_policys_fault():
    assert regex(Sample("q", "a" * 100_001, "a")).reason == "too_long"


@pytest.mark.parametrize("pattern", ["(", "", None, 5])
def test_a_pattern_that_is_none_abstains(pattern):
    verdict = regex(Sample("q", "abc", pattern))
    assert (verdict.outcome, verdict.reason) == (Outcome.ABSTAIN, "pattern_invalid")
