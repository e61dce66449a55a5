r"""What kind of thing an answer is, and what it is made of: read once for a reference, once for each answer.

    "1,000"             number          "x \le 3"           relation, parts x and 3
    "2x+1"              expression      "1 \pm \sqrt{2}"    list of two
    "\{1,2\}"           set             "(-\infty, 0]"      tuple, marks "(]"
    "\text{east}"       text            "[0,1]\cup\{2\}"    union

Scalars stay text here, or exact numbers; nothing is computed.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

from rlvr_verifiers.math_text import WORDY, compact, normalised, split, symbolic
from rlvr_verifiers.math_units import NUMBER_LIKE
from rlvr_verifiers.math_units import WORDS as NUMBER_WORDS
from rlvr_verifiers.numbers import Quantity, is_clock, quantity, ratio, without_unit

CONSTANTS = {"e", "\\pi", "\\infty"}
SIGNS = "=<>\u2264\u2265\u2260\u2208\u2248"
EMPTY = "\u2983\u2984"
ALL_REALS = ("\\mathbb{R}", "\\mathbb R", "all real numbers")
TRIG = re.compile(r"\\?(?:sin|cos|tan|cot|sec|csc)")
DOTS = re.compile(r"\\ldots|\.\.\.|\u2026|\\vdots|\\ddots")
WORDS = re.compile(r"[A-Za-z][A-Za-z'. -]*")
LAST_WORD = re.compile(r"[0-9.})] ([a-z]{3,20})$")
HEAD = re.compile(r"(\\?[A-Za-z]{1,8}(?:_[A-Za-z0-9])?)(?:\u2208\\mathbb ?\{?R\}?)?")  # x, or x \in \mathbb{R}
NO_WORDS = {"sin", "cos", "tan", "sqrt", "log", "exp", "abc", "xyz", "infinity", "arcsin", "arccos", "arctan"}
GROUPED = re.compile(r"(?<![0-9.,])[1-9][0-9]{0,2}(?:,[0-9]{3})+(?!,?[0-9])")
BASED = re.compile(r"\(?([0-9A-F]{1,300})\)? ?_ ?(?:\{ ?(?:\\text ?\{)?)? ?([0-9]{1,2}|[a-z]{3,7}) ?\}{0,2}")
PAIR = re.compile(r"\( ?-?[0-9]{1,3} ?(?:, ?[0-9]{3} ?){1,9}\)")  # (12,345) is a point, and 12,345 a number
HOUR = re.compile(r"(?:0?([1-9])|(1[0-2])) ?: ?([0-5][0-9]) {0,3}([ap])\.? ?m\.?", re.IGNORECASE)
BASES = {word: base for word, base in NUMBER_WORDS.items() if 2 <= base <= 16} | {
    str(base): base for base in range(2, 37)
}


@dataclass(frozen=True, slots=True)
class Shape:
    """One answer, or a piece of one."""

    kind: str
    text: str  # in its shortest spelling
    parts: tuple["Shape", ...] = ()
    marks: str = ""  # a tuple's two brackets, a relation's signs, how a list was joined (, or \u2228 or \u2227)
    number: Quantity | None = None
    unit: str = ""
    percent: bool = False
    columns: int = 0  # of a matrix


@lru_cache(maxsize=8192)
def read(text: str) -> Shape:
    """`text` as normalised."""
    text = _unbraced(text.strip())
    if not text:
        return Shape("literal", "")
    number = quantity(text) or quantity(undressed(text))
    if number is not None and not PAIR.fullmatch(text):
        return Shape("number", compact(text), number=number, unit=number.unit, percent=number.percent)
    if DOTS.search(text):
        return Shape("literal", compact(text))
    if compact(undressed(text)) in ALL_REALS:
        return Shape("union", "R", (Shape("tuple", "", (_infinity("-"), _infinity("")), marks="()"),))
    styled = re.fullmatch(WORDY + r" ?\{(.*[{}].*)\}", text)
    if styled and split(styled[1], "") is not None:  # \mathbf{12\text{ hours}}
        return read(normalised(styled[1]))
    if inner := re.fullmatch(WORDY + r" ?\{([^{}]*)\}", text):
        return (
            _words(inner[1], dressed=True) or read(normalised(inner[1])) if inner[1].strip() else Shape("literal", "")
        )
    if words := _words(undressed(text), dressed="\\text" in text):
        return words
    return _composed(symbolic(text))


def _infinity(sign: str) -> Shape:
    return Shape("expression", f"{sign}\\infty")


def _unbraced(text: str) -> str:
    while text[:1] == "{" and text[-1:] == "}" and split(text[1:-1], "") is not None:
        text = text[1:-1].strip()
    return text


def undressed(text: str) -> str:
    """Without \\text{}, whose content stays."""
    return re.sub(WORDY + r" ?\{([^{}]*)\}", r"\1", text).strip()


def _words(text: str, dressed: bool) -> Shape | None:
    """Words: letters do not commute in them. Single letters, pairs of letters and function names are mathematics.

    `R-r` and `xyz-xy` are differences, `x-axis` is a word.
    """
    text = re.sub(r"\s+", " ", text).strip(" .")
    if not WORDS.fullmatch(text) or re.search(r"\b(or|and)\b", text):
        return None
    words = re.split("[ -]", text)
    longest = max(map(len, words))
    if text.lower() in NO_WORDS or (longest < 3 and not (dressed and len(text) > 1)) or (longest < 2 and "-" in text):
        return None
    if not dressed and any(word.lower() in NO_WORDS for word in words):
        return None
    return Shape("text", text.lower())


def _composed(text: str) -> Shape:
    """`text` as `symbolic` wrote it."""
    short = compact(text)
    if not re.search(r"[(\[\u2983\u27e8]", text):
        text = GROUPED.sub(lambda found: found[0].replace(",", ""), text)
    pieces = split(text, ",;\u2228\u2227")
    french = re.fullmatch(r"([\[\]])([^()\[\]]+)([\[\]])", text.strip())
    if french and french[1] + french[3] != "[]":  # ]0,1[ is open on both sides, [0,1[ on its right
        return _bracketed("[("[french[1] == "]"], french[2], "])"[french[3] == "["], short)
    if pieces is None:
        return Shape("literal", short)
    if len(pieces) > 1:
        return _list(text, [piece.strip() for piece in pieces], short)
    text = text.strip()
    if len(relation := split(text, SIGNS) or [text]) > 1:
        return _relation(text, relation, short)
    if text.startswith("\u2983") and text.endswith("\u2984") and split(text[1:-1], "") is not None:
        return _set(text[1:-1], short)
    if "\\pm" in text or "\\mp" in text:
        return _both_signs(text, short)
    if len(sides := split(text, "\u222a\u2216") or [text]) > 1:
        if "\u2216" in text:
            kind = "without" if len(sides) == 2 else "literal"
            return Shape(kind, short, tuple(read(side.strip()) for side in sides))
        return Shape("union", short, tuple(read(side.strip()) for side in sides))
    if "\u27e6" in text:
        return _matrix(text, short)
    if len(text) > 1 and text[0] in "([\u27e8" and text[-1] in ")]\u27e9" and split(text[1:-1], "") is not None:
        return _bracketed(text[0], text[1:-1], text[-1], short)
    return _scalar(text, short)


def _list(text: str, pieces: list[str], short: str) -> Shape:
    joiners = {character for character in text if character in "\u2228\u2227"}
    if not all(pieces[1:-1]) or not pieces[0] or not pieces[-1]:
        pieces = [piece for piece in pieces if piece]
        if not joiners or not pieces:  # `1,,2`; but `1, 2, and 3` is fine
            return Shape("literal", short)
    shapes: list[Shape] = []
    for piece in pieces:
        shape = read(piece)
        shapes.extend(shape.parts if shape.kind == "list" and not joiners - {shape.marks} else [shape])
    joined = joiners.pop() if len(joiners) == 1 else "," if not joiners else "?"
    return Shape("list", short, tuple(shapes), marks=joined)


def _both_signs(text: str, short: str) -> Shape:
    """`a \\pm b` is two answers; more than one \\pm without \\mp may be four, and stays as it is."""
    ups, downs = len(re.findall(r"\\pm", text)), len(re.findall(r"\\mp", text))
    if ups != 1 or downs > 1:
        return Shape("literal", short)
    one = text.replace("\\pm", "+").replace("\\mp", "-")
    other = text.replace("\\pm", "-").replace("\\mp", "+")
    return Shape("list", short, (read(one), read(other)), marks="\u2228")


def _relation(text: str, sides: list[str], short: str) -> Shape:
    if "\\pm" in text and len(sides) == 2:
        right = read(sides[1].strip())
        if right.kind == "list":
            left = read(sides[0].strip())
            parts = tuple(
                Shape("relation", f"{left.text}{text[len(sides[0])]}{p.text}", (left, p), "=") for p in right.parts
            )
            return Shape("list", short, parts, marks="\u2228")
    signs, at = "", 0
    for side in sides[:-1]:
        at += len(side)
        signs += text[at]
        at += 1
    if not all(side.strip() for side in sides):
        return Shape("literal", short)
    return Shape("relation", short, tuple(read(side.strip()) for side in sides), marks=signs)


def _set(inside: str, short: str) -> Shape:
    if not inside.strip():
        return Shape("set", EMPTY)
    if len(builder := split(inside, "|:") or [inside]) == 2 and re.search(f"[{SIGNS}]", builder[1]):
        head, condition = compact(builder[0].strip()), read(builder[1].strip())
        if condition.kind not in ("relation", "list"):
            return Shape("literal", short)
        if (found := HEAD.fullmatch(head)) and _speaks_of(condition, found[1]):
            return condition
        return Shape("builder", short, (read(head), condition))
    pieces = [piece.strip() for piece in split(inside, ",;\u2228\u2227") or []]
    content = _list(inside, pieces, short) if len(pieces) > 1 else read(inside.strip())  # 100,200 is no number here
    return Shape("set", short, content.parts if content.kind == "list" else (content,))


def _speaks_of(condition: Shape, name: str) -> bool:
    """Whether `\\{name : condition\\}` says what the condition alone says: no other name could be meant."""
    letters = set(re.findall("[A-Za-z]", re.sub(r"\\[A-Za-z]+", "", condition.text)))
    first = condition.parts[0] if condition.kind == "list" else condition
    sides = [part.text for part in first.parts]
    names = [side for side in sides if HEAD.fullmatch(side) and side not in CONSTANTS]
    about = sides[1] if len(sides) == 3 else sides[0]  # of a < x < b and of x >= a it is x, and of a <= x too
    return letters == {name} or names == [name] or (name in names and name in (about, max(names)))


def _bracketed(opening: str, inside: str, closing: str, short: str) -> Shape:
    pieces = split(inside, ",;")
    if pieces is None or not all(piece.strip() for piece in pieces):
        return Shape("literal", short)
    if len(pieces) > 1:
        marks = "()" if opening == "\u27e8" else opening + closing
        return Shape("tuple", short, tuple(read(piece.strip()) for piece in pieces), marks=marks)
    if opening + closing == "()" and (content := read(inside.strip())).kind not in ("expression", "number"):
        return content
    return _scalar(opening + inside + closing, short)


def _matrix(text: str, short: str) -> Shape:
    before, _, rest = text.partition("\u27e6")
    if before.strip() in ("(", "[") and rest[-1:] in (")", "]"):
        before, rest = "", rest[:-1].strip()
    if rest[-1:] != "\u27e7" or "\u27e6" in rest:
        return Shape("literal", short)
    factor = before.strip().removesuffix("\\cdot").strip()
    rows = [row.split("&") for row in rest[:-1].split("\u23ce") if row.strip()]
    if not rows or len({len(row) for row in rows}) != 1:
        return Shape("literal", short)
    cells = [cell.strip() for row in rows for cell in row]
    times = f"({factor})" if factor not in ("", "-", "+") else factor
    parts = tuple(read(f"{times}({cell})" if times else cell) for cell in cells)
    return Shape("matrix", short, parts, columns=len(rows[0]))


def _scalar(text: str, short: str) -> Shape:
    if ":" in text and (hour := HOUR.fullmatch(undressed(text))):
        return Shape("clock", f"{hour[1] or hour[2]}:{hour[3]}{hour[4].lower()}m")
    if text.count(":") and (ratio(text) or is_clock(text)):
        return Shape("clock" if is_clock(text) else "ratio", short)
    if (found := BASED.fullmatch(text)) and found[2] in BASES and any(digit.isdigit() for digit in found[1]):
        return Shape("based", f"{found[1]}_{BASES[found[2]]}")
    body, percent, unit = without_unit(text)
    if unit is None or (unit == "degree" and TRIG.search(body)):
        body, percent, unit = text, False, ""
    elif body == text and (word := LAST_WORD.search(text)) and NUMBER_LIKE.fullmatch(word[1]):
        return Shape("literal", f"{compact(text[: word.start(1)])}\\text{{{word[1]}}}")  # no product of letters
    number = quantity(body) if body != text else None
    return Shape("expression", compact(body), number=number, unit=unit, percent=percent)
