r"""Sets of real numbers in one form, so that `0 \le x < 1` is [0,1) and R without 0 is two half-lines.

A set is a sorted tuple of pieces (from, whether that end belongs to it, to, the same). Ends are compared exactly where
they are rational, else to forty digits.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from rlvr_verifiers.math_arithmetic import TooLarge, Undefined, context
from rlvr_verifiers.math_shapes import Shape
from rlvr_verifiers.math_syntax import Unreadable, tree
from rlvr_verifiers.math_values import DIGITS, Value, close, mentions, symbols, value

MIRRORED = {"<": ">", ">": "<", "\u2264": "\u2265", "\u2265": "\u2264", "\u2260": "\u2260"}
INFINITY = Value(float("inf"))
MINUS_INFINITY = Value(float("-inf"))


@dataclass(frozen=True, slots=True)
class Piece:
    low: Value
    low_in: bool
    high: Value
    high_in: bool


def reals(shape: Shape) -> tuple[str, tuple[Piece, ...]] | None:
    """(the variable it speaks of, or "", its pieces); None when `shape` is no set that this file knows."""
    try:
        found = _reals(shape)
    except (Unreadable, Undefined, TooLarge):
        return None
    return None if found is None else (found[0], merged(found[1]))


Found = tuple[str, list[Piece]] | None


def _reals(shape: Shape) -> Found:
    if shape.kind == "tuple" and len(shape.parts) == 2 and shape.marks[0] in "([" and shape.marks[1] in ")]":
        low, high = number(shape.parts[0]), number(shape.parts[1])
        if not below(low, high):
            return None
        return "", [Piece(low, shape.marks[0] == "[", high, shape.marks[1] == "]")]
    if shape.kind == "set":
        return "", [Piece(at, True, at, True) for at in map(number, shape.parts)]
    if shape.kind == "union":
        return _joined(shape.parts)
    if shape.kind == "without":
        whole, hole = _reals(shape.parts[0]), _reals(shape.parts[1])
        return None if whole is None or hole is None else (whole[0], common(whole[1], rest(merged(hole[1]))))
    if shape.kind == "relation":
        return _relation(shape)
    if shape.kind == "list" and shape.marks == "\u2228":
        return _joined(shape.parts)
    if shape.kind == "list" and shape.marks in ("\u2227", ",") and all(part.kind == "relation" for part in shape.parts):
        if shape.marks == "," and not all(set(part.marks) == {"\u2260"} for part in shape.parts):
            return None
        return _intersected(shape.parts)
    return None


def _joined(parts: tuple[Shape, ...]) -> Found:
    found = [_reals(part) for part in parts]
    if any(part is None for part in found) or len({part[0] for part in found if part} - {""}) > 1:
        return None
    return max(part[0] for part in found if part), [piece for part in found if part for piece in part[1]]


def _intersected(parts: tuple[Shape, ...]) -> Found:
    found = [_reals(part) for part in parts]
    names = {part[0] for part in found if part}
    if any(part is None for part in found) or len(names) > 1:
        return None
    pieces = [Piece(MINUS_INFINITY, False, INFINITY, False)]
    for part in found:
        pieces = common(pieces, list(merged(part[1]))) if part else pieces
    return names.pop(), pieces


def _relation(shape: Shape) -> Found:
    """`x > 2`, `1 < x \\le 3`, `x \\in S`: a variable that stands alone, and numbers."""
    names = [part.text if _is_name(part) else "" for part in shape.parts]
    if shape.marks == "\u2208" and names[0]:
        inside = _reals(shape.parts[1])
        return None if inside is None else (names[0], inside[1])
    if sum(map(bool, names)) != 1 or not set(shape.marks) <= set(MIRRORED) | {"="}:
        return None
    at = next(i for i, name in enumerate(names) if name)
    pieces = [Piece(MINUS_INFINITY, False, INFINITY, False)]
    if len(names) == 3 and (at != 1 or MIRRORED.get(shape.marks[0]) == shape.marks[1]):
        return None
    if len(names) > 3 or (
        len(names) == 3 and {shape.marks[0] in "<\u2264", shape.marks[1] in "<\u2264"} == {True, False}
    ):
        return None
    for i, sign in enumerate(shape.marks):
        if i + 1 == at:
            pieces = common(pieces, _half(MIRRORED.get(sign, sign), number(shape.parts[i])))
        elif i == at:
            pieces = common(pieces, _half(sign, number(shape.parts[i + 1])))
    return names[at], pieces


def _is_name(shape: Shape) -> bool:
    if shape.kind != "expression" or shape.unit or shape.percent:
        return False
    try:
        return tree(shape.text)[0] == "var"
    except Unreadable:
        return False


def _half(sign: str, at: Value) -> list[Piece]:
    """What lies on one side of a number."""
    if sign == "=":
        return [Piece(at, True, at, True)]
    if sign == "\u2260":
        return [Piece(MINUS_INFINITY, False, at, False), Piece(at, False, INFINITY, False)]
    closed = sign in "\u2264\u2265"
    return [Piece(MINUS_INFINITY, False, at, closed)] if sign in "<\u2264" else [Piece(at, closed, INFINITY, False)]


def number(shape: Shape) -> Value:
    if shape.number is not None and not shape.unit:
        return Value(shape.number.value)
    if shape.kind not in ("expression", "number") or shape.unit or shape.percent:
        raise Unreadable("no end of an interval")
    found = tree(shape.text)
    if symbols(found) or mentions(found, "i"):
        raise Unreadable("no real number as the end of an interval")
    return value(found)


def _plain(v: Value) -> Any:
    mp = context(DIGITS)
    return mp.mpf(v.number.numerator) / v.number.denominator if isinstance(v.number, Fraction) else mp.mpf(v.number)


def same_end(one: Value, other: Value) -> bool:
    ends = _plain(one), _plain(other)
    return bool(ends[0] == ends[1]) if any(map(context(DIGITS).isinf, ends)) else close(one, other)


def below(one: Value, other: Value) -> bool:
    return not same_end(one, other) and bool(_plain(one) < _plain(other))


def merged(pieces: list[Piece]) -> tuple[Piece, ...]:
    """Sorted; pieces that overlap or touch are one."""
    done: list[Piece] = []
    for piece in sorted(pieces, key=lambda p: (_plain(p.low), not p.low_in)):
        last = done[-1] if done else None
        if (
            last is None
            or below(last.high, piece.low)
            or (same_end(last.high, piece.low) and not (last.high_in or piece.low_in))
        ):
            done.append(piece)
            continue
        if same_end(last.high, piece.high):
            high, high_in = last.high, last.high_in or piece.high_in
        else:
            high, high_in = (piece.high, piece.high_in) if below(last.high, piece.high) else (last.high, last.high_in)
        low_in = last.low_in or (piece.low_in and same_end(last.low, piece.low))
        done[-1] = Piece(last.low, low_in, high, high_in)
    return tuple(done)


def rest(pieces: tuple[Piece, ...]) -> list[Piece]:
    """All other real numbers."""
    found, low, low_in = [], MINUS_INFINITY, False
    for piece in pieces:
        if below(low, piece.low) or (same_end(low, piece.low) and low_in and not piece.low_in):
            found.append(Piece(low, low_in, piece.low, not piece.low_in))
        low, low_in = piece.high, not piece.high_in
    if below(low, INFINITY):
        found.append(Piece(low, low_in, INFINITY, False))
    return found


def common(ours: list[Piece], theirs: list[Piece]) -> list[Piece]:
    found = []
    for one in ours:
        for other in theirs:
            low, low_in = (other.low, other.low_in) if below(one.low, other.low) else (one.low, one.low_in)
            high, high_in = (one.high, one.high_in) if below(one.high, other.high) else (other.high, other.high_in)
            low_in = one.low_in and other.low_in if same_end(one.low, other.low) else low_in
            high_in = one.high_in and other.high_in if same_end(one.high, other.high) else high_in
            if below(low, high) or (same_end(low, high) and low_in and high_in):
                found.append(Piece(low, low_in, high, high_in))
    return found


def same_set(one: tuple[Piece, ...], other: tuple[Piece, ...]) -> bool:
    return len(one) == len(other) and all(
        (a.low_in, a.high_in) == (b.low_in, b.high_in) and same_end(a.low, b.low) and same_end(a.high, b.high)
        for a, b in zip(one, other, strict=True)
    )
