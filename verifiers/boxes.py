"""Where a completion says its answer: behind the thoughts, in the last box. Text only; judges nothing."""

import re

TAIL = 100_000  # characters of the region that are looked at: a box that is longer is too long anyway
SEPARATOR = re.compile(r"(?:\s|\$|,|;|\\quad|\\text\s*\{\s*(?:or|and)\s*\}|\bor\b|\band\b)*")
BOX = re.compile(r"\\(?:boxed|fbox)(?![a-zA-Z])\s*")
TOKEN = re.compile(r"\\(?:boxed|fbox)(?![a-zA-Z])\s*\{|\\.|[{}]", re.DOTALL)


def after_thoughts(completion: str) -> str | None:
    """What follows the last `</think>`; None when the thoughts never end."""
    thoughts, closed, region = completion.rpartition("</think>")
    if "<think>" in region:
        return None
    return region if closed else thoughts + region


def boxes(text: str) -> list[tuple[int, int, str]]:
    """(start, end, content) of the outermost closed boxes of the last TAIL characters, in order."""
    text = text[-TAIL:]
    found: list[tuple[int, int, str]] = []
    opened: list[tuple[int, int] | None] = []  # a box's (start, start of content), or an ordinary brace
    for token in TOKEN.finditer(text):
        if token[0] == "}":
            box = opened.pop() if opened else None
            if box is not None:
                while found and found[-1][0] > box[0]:
                    found.pop()  # it was inside
                found.append((box[0], token.end(), text[box[1] : token.start()]))
        elif token[0] == "{":
            opened.append(None)
        elif token[0].endswith("{") and len(token[0]) > 2:
            opened.append((token.start(), token.end()))
    for bare in re.finditer(r"\\(?:boxed|fbox)\s+([^\s${}\\]+)", text):
        if not any(start <= bare.start() < end for start, end, _ in found):
            found.append((bare.start(), bare.end(), bare[1].rstrip(".,;")))
    return sorted(found)


def last_answer(region: str) -> str | None:
    """The content of the last box; boxes before it join in where only separators stand between them.

    `First \\boxed{3}. No: \\boxed{4}` says 4; `\\boxed{1} or \\boxed{2}` says "1,2", and so does hedging.
    """
    found = boxes(region)
    if not found:
        return None
    region = region[-TAIL:]
    answers = [found[-1][2]]
    for before, after in zip(reversed(found[:-1]), reversed(found), strict=False):
        if not SEPARATOR.fullmatch(region, before[1], after[0]):
            break
        answers.insert(0, before[2])
    return ",".join(unwrapped(answer) for answer in answers)


def unwrapped(answer: str) -> str:
    """A box in a box says the same once."""
    while inner := boxes(answer):
        start, end, content = inner[-1]
        answer = answer[:start] + content + answer[end:]
    return answer.strip()
