r"""Where a completion says its answer: behind the thoughts, in the last box. Text only; judges nothing.

Every function is linear in its text, whatever a policy writes: no pattern here can backtrack over more than it matched.
"""

import re

TAIL = 100_000  # characters of the region that are looked at: a box that is longer is too long anyway
EMPHASIS = " \t*_`"
LAST_WORDS = 400  # characters in which an answer without a box is looked for
SEPARATOR = re.compile(r"(?:[\s$,;]|\\quad|\\text ?\{ ?(?:or|and) ?\}|\bor\b|\band\b)*")
OPENING = r"\\(?:boxed|fbox)(?![a-zA-Z])[ \t]{0,8}\n?[ \t]{0,8}"
TOKEN = re.compile(OPENING + r"\{|\\.|[{}]", re.DOTALL)
BARE = re.compile(r"\\(?:boxed|fbox)[ \t]{1,8}([^\s${}\\]{1,400})")
STATED = re.compile(r"answer(?: is)?:?\**[ ]{0,3}:?[ ]{0,3}(\S.{0,300})$", re.IGNORECASE)


def after_thoughts(completion: str, thinking: bool = False) -> str | None:
    """What follows the last `</think>`; None when the thoughts never end. `thinking`: they begin in the prompt."""
    thoughts, closed, region = completion.rpartition("</think>")
    if "<think>" in region or (thinking and not closed):
        return None
    return region if closed else thoughts + region


def boxes(text: str) -> list[tuple[int, int, str]]:
    """(start, end, content) of the outermost closed boxes of the last TAIL characters, in order."""
    text = text[-TAIL:]
    found: list[tuple[int, int, str]] = []
    for start, begin, end in _spans(text):
        while found and found[-1][0] > start:
            found.pop()  # it was inside
        found.append((start, end, text[begin : end - 1]))
    bare = [(match.start(), match.end(), match[1].rstrip(".,;")) for match in BARE.finditer(text)]
    return _outside(bare, found) if bare else found


def _spans(text: str) -> list[tuple[int, int, int]]:
    """(start, start of content, end) of every closed box, inner ones before the box around them."""
    first = min((at for at in (text.find("\\boxed"), text.find("\\fbox")) if at >= 0), default=len(text))
    found = []
    opened: list[tuple[int, int] | None] = []  # a box's (start, start of content), or an ordinary brace
    for token in TOKEN.finditer(text, first):
        if token[0] == "}":
            box = opened.pop() if opened else None
            if box is not None:
                found.append((*box, token.end()))
        elif token[0] == "{":
            opened.append(None)
        elif token[0].endswith("{") and len(token[0]) > 2:
            opened.append((token.start(), token.end()))
    return found


def _outside(bare: list[tuple[int, int, str]], found: list[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    """Both, in order; of the boxes without braces those that stand in no other."""
    merged, rest = [], list(reversed(found))
    for box in bare:
        while rest and rest[-1][1] <= box[0]:
            merged.append(rest.pop())
        if not rest or box[0] < rest[-1][0]:
            merged.append(box)
    return merged + rest[::-1]


def last_answer(region: str) -> str | None:
    r"""The content of the last box; boxes before it join in where only separators stand between them.

    `First \boxed{3}. No: \boxed{4}` says 4; `\boxed{1} or \boxed{2}` says "1,2", and so does hedging.
    """
    found = boxes(region)
    if not found:
        return None
    region = region[-TAIL:]
    answers = [unwrapped(found[-1][2])]
    for before, after in zip(reversed(found[:-1]), reversed(found), strict=False):
        if not SEPARATOR.fullmatch(region, before[1], after[0]):
            break
        answers.append(unwrapped(before[2]))
    return ",".join(dict.fromkeys(reversed(answers)))  # the same box twice says the same


def unwrapped(answer: str) -> str:
    """A box in a box says the same once."""
    if "\\boxed" not in answer and "\\fbox" not in answer:
        return answer.strip()
    cuts = sorted(cut for start, begin, end in _spans(answer) for cut in ((start, begin), (end - 1, end)))
    pieces, at = [], 0
    for start, end in cuts:
        pieces.append(answer[at:start])
        at = end
    return "".join([*pieces, answer[at:]]).strip()


def stated_answer(region: str) -> str | None:
    """An answer without a box: behind the last `####`, or behind `answer is` in the last line."""
    last = region.rstrip()[-LAST_WORDS:].rpartition("\n")[2].strip()
    behind = last.rpartition("####")
    if behind[1]:
        return _unmarked(behind[2]) or None
    found = STATED.search(last)
    return _unmarked(found[1]) if found else None


def _unmarked(said: str) -> str:
    """Without emphasis, and without the full stop on either side of it; dots say that more follows."""
    said = said.strip(EMPHASIS)
    return said if said.endswith("..") else said.removesuffix(".").rstrip(EMPHASIS)
