"""Does a completion keep the form: thoughts in one pair of tags, then one boxed answer, nothing after it?

Form only: a wrong answer in the right form is worth as much. As a gate (`gate: true`) the form is a condition of every
other reward; as a small weight with `partial` each rule that is kept earns its share.
"""

from collections.abc import Iterator, Sequence

from rlvr_verifiers.boxes import TAIL, boxes

from rlvr.verify import Outcome, Sample, Verdict, verifier


@verifier("format", version="3")
def format(
    sample: Sample,
    think: bool = True,
    boxed: bool = True,
    answer_tags: bool = False,
    partial: bool = False,
    think_ids: Sequence[int] | None = None,
) -> Verdict:
    """1 when the form is kept, else 0 and what is wrong. One opening tag at most, that of the prompt included.

    `answer_tags`: the rest stands in one pair of <answer> tags. `partial`: the share of the rules that are kept.
    `think_ids`: the token ids of the opening and the closing tag, where the tokenizer has tokens for them: then tokens
    are counted, and a tag spelt out of other tokens is none.
    """
    if sample.stop_reason == "length":
        return Verdict(0.0, Outcome.OK, reason="unfinished")
    text = sample.completion.strip()
    rules: list[str] = []  # what is wrong, "" where a rule is kept
    if think:
        wrong, text = thoughts_and_rest(text, sample, think_ids)
        rules.append(wrong)
    if answer_tags:
        wrong, text = inside_answer_tags(text, strict=think)
        rules.append(wrong)
    if boxed:
        rules.append(wrong_with_box(text))
    broken = [wrong for wrong in rules if wrong]
    if not broken:
        return Verdict(1.0, Outcome.OK, reason="kept")
    reward = 1 - len(broken) / len(rules) if partial else 0.0
    return Verdict(reward, Outcome.OK, reason=broken[0], detail=", ".join(broken))


def thoughts_and_rest(text: str, sample: Sample, ids: Sequence[int] | None) -> tuple[str, str]:
    """What is wrong with the thoughts, and what follows them."""
    token_ids = sample.token_ids
    if ids is None:
        opened, closed = text.count("<think>"), text.count("</think>")
    else:
        opened, closed = counted(token_ids, ids)
    if opened + sample.thinking > 1 or closed != 1:
        return "think_tags", text.rpartition("</think>")[2]
    if ids is not None and "</think>" not in text:  # the tags' tokens are special: decoded without them
        return ("" if tokens_between(token_ids, ids) else "no_thoughts"), text
    thoughts, _, rest = text.rpartition("</think>")
    before, tag, inside = thoughts.rpartition("<think>")
    if tag and before.strip():
        return "text_before_thoughts", rest
    return ("" if inside.strip() else "no_thoughts"), rest


def counted(token_ids: Sequence[int], ids: Sequence[int]) -> Iterator[int]:
    if len(ids) != 2:
        raise ValueError(f"format: think_ids={list(ids)}: expected two token ids, of the opening and the closing tag")
    return (list(token_ids).count(tag) for tag in ids)


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
    return "text_after_box" if text[-TAIL:][end:].strip(" \n$.") or not content.strip() else ""
