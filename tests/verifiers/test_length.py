"""Rewards for length, by hand."""

import pytest
from rlvr_verifiers.length import length

from rlvr.verify import Sample


def rewarded(tokens: int, **options) -> float:
    return length(Sample("", "", "", token_ids=(5,) * tokens), **options).reward


@pytest.mark.parametrize(
    ("tokens", "reward"),
    [(0, 1.0), (10, 1.0), (15, 0.75), (20, 0.5), (30, 0.0), (99, 0.0)],  # 10 free, then 20 tokens down to 0
)
def test_a_line_from_the_last_free_token_to_the_limit(tokens, reward):
    assert rewarded(tokens, limit=30, free=10) == pytest.approx(reward)


def test_dapos_soft_overlong_punishment():
    # limit 100, buffer 20: nothing up to 80, -(90 - 80)/20 at 90, -1 from 100 on
    options = {"limit": 100, "free": 80, "top": 0.0, "bottom": -1.0}
    assert [rewarded(n, **options) for n in (80, 90, 100, 200)] == pytest.approx([0.0, -0.5, -1.0, -1.0])


def test_half_a_cosine_is_flat_at_both_ends():
    # (1 + cos(pi x))/2 at x = 1/4, 1/2, 3/4
    made = [rewarded(n, limit=40, shape="cosine") for n in (0, 10, 20, 30, 40)]
    assert made == pytest.approx([1.0, 0.8535534, 0.5, 0.1464466, 0.0])


def test_it_counts_tokens_not_characters():
    one = length(Sample("", "a very long word" * 50, "", token_ids=(1,)), limit=10)
    assert (one.reward, one.detail, one.reason) == (0.9, "1 tokens", "longish")


def test_without_token_ids_words_stand_for_tokens():
    assert length(Sample("", "word " * 100_000, ""), limit=10).reward == 0.0
    assert length(Sample("", "two words", ""), limit=10).reward == 0.8


@pytest.mark.parametrize("options", [{"limit": 0}, {"limit": 5, "free": 5}, {"limit": 5, "shape": "square"}])
def test_options_that_cannot_work_are_refused(options):
    with pytest.raises(ValueError, match="length: "):
        rewarded(3, **options)
