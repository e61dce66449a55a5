"""n-grams over token ids, by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rlvr_verifiers.repetition import loop_at_end, repeated_share, repetition

from rlvr.types import Outcome
from rlvr.verify import Sample


def of(*token_ids: int) -> Sample:
    return Sample("q", "text", "5", token_ids=token_ids)


def test_the_share_of_bigrams_that_were_there_before():
    # 1 2 | 2 1 | 1 2 | 2 3: one of four bigrams was there before
    assert repeated_share((1, 2, 1, 2, 3), 2) == pytest.approx(1 / 4)
    assert repeated_share((1, 2), 3) == 0.0


@given(st.lists(st.integers(0, 3), max_size=40), st.integers(1, 6))
def test_the_rolling_hash_counts_what_sets_of_tuples_count(tokens, n):
    grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    expected = 1 - len(set(grams)) / len(grams) if grams else 0.0
    assert repeated_share(tokens, n) == pytest.approx(expected)


def test_the_reward_falls_in_a_line_from_allowed_to_worst():
    sample = of(1, 2, 1, 2, 3)  # a quarter of the bigrams
    assert repetition(sample, n=2, allowed=0.25, worst=0.5).reward == 1.0
    assert repetition(sample, n=2, allowed=0.0, worst=0.5).reward == pytest.approx(0.5)
    assert repetition(sample, n=2, allowed=0.0, worst=0.25).reward == 0.0


def test_a_loop_at_the_end_is_worth_nothing_however_long_the_text_before_it():
    verdict = repetition(of(*range(1000), *(7, 8, 9) * 7, 2))  # 2: the end token
    assert (verdict.reward, verdict.reason) == (0.0, "loop")
    assert repetition(of(*range(1000), 7, 8, 9, 7, 8, 9, 2)).reward == 1.0


def test_the_period_of_a_loop_is_the_shortest():
    assert loop_at_end((5, 1, 2, 1, 2, 1, 2, 1, 2), least=4) == 2
    assert loop_at_end((1, 2, 3, 4, 5), least=1) == 0
    assert loop_at_end((), least=1) == 0


def test_without_token_ids_words_are_counted():
    assert repetition(Sample("q", "to be or not to be " * 20, "5")).reward == 0.0
    assert repetition(Sample("q", "a text that says each thing once and no more", "5")).reward == 1.0


def test_an_empty_completion_earns_nothing():
    verdict = repetition(Sample("q", "", "5"))
    assert (verdict.reward, verdict.outcome) == (0.0, Outcome.REJECTED)


def test_limits_that_make_no_sense_are_an_error_not_a_reward():
    with pytest.raises(ValueError, match="allowed < worst"):
        repetition(of(1, 2), allowed=0.5, worst=0.5)


def test_a_few_tokens_four_times_over_are_no_loop_before_they_are_n():
    assert repetition(of(*range(1000), *(7, 8) * 5)).reason == "fresh"
    assert repetition(of(*range(1000), *(7, 8) * 10)).reason == "loop"
