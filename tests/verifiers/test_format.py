"""What the form may ask for besides thoughts and one box. The default form is tested in tests/verify/test_format.py."""

import pytest
from rlvr_verifiers.format import format

from rlvr.verify import Sample

OPEN, CLOSE = 100, 101  # the tags' token ids


def judged(completion: str, *token_ids: int, stop_reason: str = "eos", **options):
    return format(Sample("q", completion, "5", stop_reason, token_ids), **options)


@pytest.mark.parametrize(
    ("completion", "reason"),
    [
        ("<think>a</think><answer>\\boxed{5}</answer>", "kept"),
        ("<think>a</think>\n<answer>so it is \\boxed{5}.</answer>\n", "kept"),
        ("<think>a</think>\\boxed{5}", "answer_tags"),
        ("<think>a</think><answer>\\boxed{5}", "answer_tags"),
        ("<think>a</think></answer>\\boxed{5}<answer>", "answer_tags"),
        ("<think>a</think><answer>1</answer><answer>\\boxed{5}</answer>", "answer_tags"),
        ("<think>a</think><answer>\\boxed{5}</answer> or 6", "text_after_answer"),
        ("<think>a</think>so <answer>\\boxed{5}</answer>", "text_before_answer"),
        ("<think>a</think><answer>5</answer>", "no_box"),
        ("<answer>\\boxed{5}</answer>", "think_tags"),
    ],
)
def test_answer_tags(completion, reason):
    assert judged(completion, answer_tags=True).reason == reason


def test_answer_tags_without_a_box_or_thoughts():
    assert judged("<answer>5</answer>", answer_tags=True, think=False, boxed=False).reason == "kept"
    assert judged("<answer> </answer>", answer_tags=True, think=False, boxed=False).reason == "no_answer"


def test_as_a_small_weight_each_kept_rule_earns_its_share():
    assert judged("<think>a</think>5", partial=True).reward == 0.5
    assert judged("\\boxed{5}", partial=True).reward == 0.5
    assert judged("5", partial=True).reward == 0.0
    assert judged("5", partial=True).detail == "think_tags, no_box"
    assert judged("<think>a</think>\\boxed{5}", partial=True).reward == 1.0
    assert judged("<think>a</think>\\boxed{5}", stop_reason="length", partial=True).reward == 0.0


def test_the_tag_that_the_prompt_ends_in_is_the_one_opening_tag():
    for completion, reason in (
        ("a</think>\\boxed{5}", "kept"),
        ("</think>\\boxed{5}", "no_thoughts"),
        ("\\boxed{5}", "think_tags"),
        ("<think>a</think>\\boxed{5}", "think_tags"),
    ):
        assert format(Sample("q", completion, "5", thinking=True)).reason == reason, completion


IDS = {"think_ids": [OPEN, CLOSE]}


@pytest.mark.parametrize(
    ("completion", "token_ids", "reason"),
    [
        ("a\\boxed{5}", (OPEN, 1, CLOSE, 2, 3), "kept"),  # special tokens: decoded without them
        ("a\\boxed{5}", (1, CLOSE, 2, 3), "kept"),  # the opening tag stood in the prompt
        ("\\boxed{5}", (OPEN, CLOSE, 2, 3), "no_thoughts"),
        ("a\\boxed{5}", (OPEN, 1, 2, 3), "think_tags"),
        ("a\\boxed{5}", (OPEN, 1, CLOSE, CLOSE, 2), "think_tags"),
        ("<think>a</think>\\boxed{5}", (OPEN, 1, CLOSE, 2), "kept"),
        ("<think>a</think>\\boxed{5}", (7, 8, 1, 7, 9, 2), "think_tags"),  # spelt out of other tokens
    ],
)
def test_tags_that_are_tokens_are_counted_as_tokens(completion, token_ids, reason):
    assert judged(completion, *token_ids, **IDS).reason == reason


def test_think_ids_must_be_two():
    with pytest.raises(ValueError, match="two token ids"):
        judged("a", 1, think_ids=[OPEN])


@pytest.mark.parametrize("content", ["", " "])
def test_an_empty_box_answers_nothing(content):
    assert judged(f"<think>a</think>\\boxed{{{content}}}").reward == 0.0


def test_only_the_form_with_thoughts_allows_no_text_before_the_answer():
    said = [judged("so <answer>5</answer>", answer_tags=True, think=False, boxed=False)]
    said += [judged("<think>a</think>so <answer>5</answer>", answer_tags=True, boxed=False)]
    assert [verdict.reason for verdict in said] == ["kept", "text_before_answer"]
