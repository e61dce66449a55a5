"""Does a completion keep the form: thoughts in one pair of tags, then one boxed answer, nothing after it?

Where a tool was called each turn may begin with thoughts, or go on in those that a call interrupted; the last has the
answer.

Form only: a wrong answer in the right form is worth as much. As a gate (`gate: true`) the form is a condition of every
other reward; as a small weight with `partial` each rule that is kept earns its share.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

from rlvr_verifiers.boxes import TAIL, boxes

from rlvr.verify import Outcome, Sample, Verdict, verifier

ANSWER_TAGS = ("<answer>", "</answer>")
CLOSING = re.compile(r"(?:[\s$.*]|\\[\])])*")  # what closes the mathematics, the emphasis or the sentence of a box


@verifier("format", version="6")
def format(
    sample: Sample,
    think: bool = True,
    boxed: bool = True,
    answer_tags: bool = False,
    partial: bool = False,
    think_ids: Sequence[int] | None = None,
) -> Verdict:
    """1 when the form is kept, else 0 and what is wrong. One opening tag at most, that of the prompt included; between
    the calls of a tool one in each turn, at its start. The answer stands in the last turn.

    `answer_tags`: the rest stands in one pair of <answer> tags. `partial`: the share of the rules that are kept.
    `think_ids`: the token ids of the opening and the closing tag, where the tokenizer has tokens for them: then tokens
    are counted, and a tag spelt out of other tokens is none.
    """
    if sample.stop_reason == "length":
        return Verdict(0.0, Outcome.OK, reason="unfinished")
    *earlier, text = [turn.text.strip() for turn in sample.turns] or [sample.completion.strip()]
    rules: list[str] = []  # what is wrong, "" where a rule is kept
    if think:
        wrong, (*earlier, text) = thoughts_and_rests(sample, think_ids)
        rules.append(wrong)
    if answer_tags:
        wrong, text = inside_answer_tags(text, strict=think)
        rules.append("answer_tags" if any(tag in turn for turn in earlier for tag in ANSWER_TAGS) else wrong)
    if boxed:
        rules.append(wrong_with_box(text) or ("several_boxes" if any(map(boxes, earlier)) else ""))
    broken = [wrong for wrong in rules if wrong]
    if not broken:
        return Verdict(1.0, Outcome.OK, reason="kept")
    reward = 1 - len(broken) / len(rules) if partial else 0.0
    return Verdict(reward, Outcome.OK, reason=broken[0], detail=", ".join(broken))


def thoughts_and_rests(sample: Sample, ids: Sequence[int] | None) -> tuple[str, list[str]]:
    """What is wrong with the thoughts, and what each turn says besides them."""
    if not sample.turns:
        wrong, rest = thoughts_and_rest(sample.completion.strip(), sample, ids)
        return wrong, [rest]
    found, rests, ended, thought = "", [], False, False
    inside = sample.thinking  # of thoughts that the prompt, or a turn before, began
    for n, turn in enumerate(sample.turns):
        text, one = turn.text.strip(), replace(sample, token_ids=turn.token_ids, thinking=inside)
        opened, closed = tags(text, one, ids)
        if ids is not None and n and not opened and text.startswith("<think>"):  # the tool's `after` did
            found = found or ("think_tags" if inside else "")
            inside = True
            one = replace(one, thinking=True)
        if closed:
            wrong, rest = thoughts_and_rest(text, one, ids)
            shown = "</think>" in text  # then so is what `after` opened
            if n and shown and not opened + inside:
                wrong = "think_tags"
            elif wrong == "no_thoughts" and inside and thought:  # before the call
                wrong = ""
            inside, ended = False, True
        elif opened or inside:  # a call in the middle of them
            before, _, begun = text.rpartition("<think>")
            wrong, rest = "think_tags" if opened + inside > 1 else "text_before_thoughts" if before.strip() else "", ""
            inside, thought = True, bool(begun.strip()) or (inside and thought)
        else:
            wrong, rest = "", text
        found = found or wrong
        rests.append(rest)
    return found or ("think_tags" if inside or not ended else ""), rests


def tags(text: str, sample: Sample, ids: Sequence[int] | None) -> tuple[int, int]:
    """How many of the opening and of the closing tag."""
    if ids is None:
        return text.count("<think>"), text.count("</think>")
    if len(ids) != 2:
        raise ValueError(f"format: think_ids={list(ids)}: expected two token ids, of the opening and the closing tag")
    own = list(sample.token_ids)
    return own.count(ids[0]), own.count(ids[1])


def thoughts_and_rest(text: str, sample: Sample, ids: Sequence[int] | None) -> tuple[str, str]:
    """What is wrong with the thoughts, and what follows them."""
    token_ids = sample.token_ids
    opened, closed = tags(text, sample, ids)
    backwards = opened == closed == 1 and (
        text.index("<think>") > text.index("</think>") if ids is None
        else list(token_ids).index(ids[0]) > list(token_ids).index(ids[1])
    )  # fmt: skip
    if opened + sample.thinking > 1 or closed != 1 or backwards:
        return "think_tags", text.rpartition("</think>")[2]
    if ids is not None and "</think>" not in text:  # the tags' tokens are special: decoded without them
        return ("" if tokens_between(token_ids, ids) else "no_thoughts"), text
    thoughts, _, rest = text.rpartition("</think>")
    before, tag, inside = thoughts.rpartition("<think>")
    if tag and before.strip():
        return "text_before_thoughts", rest
    return ("" if inside.strip() else "no_thoughts"), rest


def tokens_between(token_ids: Sequence[int], ids: Sequence[int]) -> bool:
    opening, closing = ids
    start = list(token_ids).index(opening) + 1 if opening in token_ids else 0
    return list(token_ids).index(closing) > start


def inside_answer_tags(text: str, strict: bool) -> tuple[str, str]:
    """What is wrong with the <answer> tags, and what stands in them."""
    before, _, rest = text.partition("<answer>")
    inside, _, after = rest.partition("</answer>")
    if text.count("<answer>") != 1 or text.count("</answer>") != 1 or "</answer>" in before:
        return "answer_tags", text
    if after.strip():
        return "text_after_answer", inside
    if strict and before.strip():
        return "text_before_answer", inside
    return ("" if inside.strip() else "no_answer"), inside


def wrong_with_box(text: str) -> str:
    found = boxes(text)
    if len(found) != 1:
        return "no_box" if not found else "several_boxes"
    _, end, content = found[0]
    return "" if CLOSING.fullmatch(text[-TAIL:], end) and content.strip() else "text_after_box"
