"""What the form may ask for besides thoughts and one box. The default form is tested in tests/verify/test_format.py."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rlvr_verifiers.format import format

from rlvr.types import Completion, Prompt
from rlvr.verify import Sample
from rlvr.verify.plugin import sample_of

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


@pytest.mark.parametrize("completion", ["a</think><think>\\boxed{5}", "a</think>b<think>\\boxed{5}"])
def test_thoughts_that_open_behind_where_they_close_are_none(completion):
    assert judged(completion).reason == "think_tags"


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
        ("a</think><think>\\boxed{5}", (1, CLOSE, OPEN, 2), "think_tags"),
        ("a\\boxed{5}", (1, CLOSE, OPEN, 2), "think_tags"),
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


ANSWER = "<think>\\boxed{7}</think>"  # whatever a tool says


def of_turns(*turns: str, thinking: bool = False, tokens: tuple[tuple[int, ...], ...] = (), **options):
    """`turns` with an answer of a tool between each two."""
    text, observed = turns[0], []
    for turn in turns[1:]:
        observed.append((len(text), len(text) + len(ANSWER)))
        text += ANSWER + turn
    ids, mask = list(tokens[0] if tokens else (1,)), [True] * len(tokens[0] if tokens else (1,))
    for own in tokens[1:] or [(1,)] * (len(turns) - 1):
        ids, mask = [*ids, 9, *own], [*mask, False, *[True] * len(own)]
    completion = Completion(ids, mask, [0.0] * len(ids), 0, text, "eos", observed=observed)
    prompt = Prompt("p", 0, ({"role": "user", "content": "q"},), (1,), "5", thinking=thinking)
    return format(sample_of(prompt, completion), **options)


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        (("<think>a</think> call", "<think>b</think> \\boxed{5}"), "kept"),  # each turn has thoughts
        (("<think>a</think> call", "so it is \\boxed{5}"), "kept"),  # the first alone
        (("call", "<think>a</think> \\boxed{5}"), "kept"),  # the last alone
        (("<think>3+4=", " 7, so </think>\\boxed{5}"), "kept"),  # called in the middle of the thoughts
        (("<think>3+4=", "7+1=", "</think>\\boxed{5}"), "kept"),
        (("<think>a", "b</think> call", "<think>c</think>\\boxed{5}"), "kept"),
        (("call", "\\boxed{5}"), "think_tags"),
        (("<think>a</think> call", "<think>b \\boxed{5}"), "think_tags"),  # cut off in its thoughts
        (("<think>a", "\\boxed{5}"), "think_tags"),
        (("<think>a</think><think>b</think> call", "\\boxed{5}"), "think_tags"),  # two in a turn
        (("<think>a", "<think>b</think>\\boxed{5}"), "think_tags"),  # opened twice
        (("<think>a</think> call", "b</think>\\boxed{5}"), "think_tags"),  # closed twice
        (("<think>a</think> call", "b</think><think>\\boxed{5}"), "think_tags"),
        (("<think>a", "b</think><think>\\boxed{5}"), "think_tags"),
        (("<think>a</think> call", "so <think>b</think>\\boxed{5}"), "text_before_thoughts"),
        (("so <think>a", "</think>\\boxed{5}"), "text_before_thoughts"),
        (("<think> </think> call", "<think>b</think>\\boxed{5}"), "no_thoughts"),
        (("<think>", " </think>\\boxed{5}"), "no_thoughts"),
        (("<think>a</think> \\boxed{5}", "done"), "no_box"),  # the answer is the last turn's
        (("<think>a</think> \\boxed{4}, call", "\\boxed{5}"), "several_boxes"),
        (("<think>\\boxed{4}</think> call", "\\boxed{5}"), "kept"),
        (("<think>a</think>\\boxed{3+4=", "}"), "no_box"),  # the tool wrote the answer
        (("<think>a</think> call", "\\boxed{5} or so"), "text_after_box"),
    ],
)
def test_each_turn_may_begin_with_thoughts_and_the_last_one_has_the_answer(turns, reason):
    verdict = of_turns(*turns)
    assert (verdict.reason, verdict.reward) == (reason, float(reason == "kept"))


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        (("a</think> call", "\\boxed{5}"), "kept"),
        (("a</think> call", "<think>b</think>\\boxed{5}"), "kept"),  # opened by `after`
        (("3+4=", "7</think>\\boxed{5}"), "kept"),
        (("3+4=", "</think>\\boxed{5}"), "kept"),
        ((" ", "</think>\\boxed{5}"), "no_thoughts"),
        (("3+4=", "<think>7</think>\\boxed{5}"), "think_tags"),
        (("3+4=", "\\boxed{5}"), "think_tags"),
        (("<think>a</think> call", "\\boxed{5}"), "think_tags"),
    ],
)
def test_thoughts_that_the_prompt_opened_end_in_this_turn_or_a_later_one(turns, reason):
    assert of_turns(*turns, thinking=True).reason == reason


def test_answer_tags_stand_in_the_last_turn():
    for turns, reason in (
        (("<think>a</think><search>b</search>", "<think>c</think><answer>\\boxed{5}</answer>"), "kept"),
        (("<think>a</think><search>b</search>", "<answer>\\boxed{5}</answer>"), "kept"),
        (("<think>a</think><answer>4</answer>", "<answer>\\boxed{5}</answer>"), "answer_tags"),
        (("<think>a</think><answer>", "\\boxed{5}</answer>"), "answer_tags"),
        (("<think>a</think>b", "so <answer>\\boxed{5}</answer>"), "text_before_answer"),
    ):
        assert of_turns(*turns, answer_tags=True).reason == reason, turns
    assert of_turns("call", "so <answer>5</answer>", answer_tags=True, think=False, boxed=False).reason == "kept"
    assert of_turns("call", "5", "\\boxed{5}", think=False).reason == "kept"
    assert of_turns("<think>a</think>\\boxed{4}", "5", partial=True).reward == 0.5


@pytest.mark.parametrize(
    ("tokens", "reason"),
    [
        (((OPEN, 1, CLOSE, 2), (OPEN, 1, CLOSE, 2)), "kept"),
        (((OPEN, 1, CLOSE, 2), (1, CLOSE, 2)), "kept"),  # `after` opened them
        (((OPEN, 1), (1, CLOSE, 2)), "kept"),
        (((OPEN, 1, CLOSE, 2), (2,)), "kept"),
        (((OPEN, CLOSE, 2), (OPEN, 1, CLOSE, 2)), "no_thoughts"),
        (((OPEN, 1, CLOSE, 2), (OPEN, 2)), "think_tags"),
        (((OPEN, 1), (OPEN, 1, CLOSE, 2)), "think_tags"),
        (((OPEN, 1, CLOSE, CLOSE), (2,)), "think_tags"),
        (((1,), (2,)), "think_tags"),
    ],
)
def test_tags_that_are_tokens_are_counted_in_each_turn(tokens, reason):
    assert of_turns("a", "\\boxed{5}", tokens=tokens, **IDS).reason == reason


@pytest.mark.parametrize(
    ("turns", "tokens", "reason"),
    [
        (("<think>a</think>b", "<think>c</think>\\boxed{5}"), ((OPEN, 1, CLOSE, 2), (1, CLOSE, 2)), "kept"),
        (("<think>a</think>b", "<think>c \\boxed{5}"), ((OPEN, 1, CLOSE, 2), (1, 2)), "think_tags"),  # never closed
        (("<think>a</think>b", "<think> </think>\\boxed{5}"), ((OPEN, 1, CLOSE, 2), (CLOSE, 2)), "no_thoughts"),
        (("<think>a</think>b", "<think>c", "d</think>\\boxed{5}"), ((OPEN, 1, CLOSE), (1,), (1, CLOSE, 2)), "kept"),
        (("<think>a", "<think>c</think>\\boxed{5}"), ((OPEN, 1), (1, CLOSE, 2)), "think_tags"),  # opened twice
        (("<think>a</think>b", "c</think>\\boxed{5}"), ((OPEN, 1, CLOSE, 2), (1, CLOSE, 2)), "think_tags"),  # by nobody
    ],
)
def test_tags_that_are_tokens_and_are_shown_may_have_been_opened_behind_a_tools_answer(turns, tokens, reason):
    assert of_turns(*turns, tokens=tokens, **IDS).reason == reason


PIECES = st.lists(st.sampled_from(["<think>", "</think>", "a", " ", "\\boxed{5}", "<answer>", "</answer>"]), max_size=7)


RULES = st.fixed_dictionaries({name: st.booleans() for name in ("think", "boxed", "answer_tags")})


@given(PIECES, st.booleans(), RULES)
def test_a_turn_that_keeps_the_form_keeps_it_behind_a_call_without_form(pieces, thinking, options):
    text = "".join(pieces)
    one = format(Sample("q", text, "5", thinking=thinking), **options)
    two = of_turns("call", text, **options)
    if two.reason == "kept":
        assert format(Sample("q", text, "5"), **options).reason == "kept"
    if one.reason == "kept" and not thinking and (not options["think"] or text.lstrip().startswith("<think>")):
        assert two.reason == "kept"
