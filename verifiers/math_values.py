r"""Do two expressions have the same value? Exact where all is rational, else to forty digits below all that cancels.

    trees --at several rational points, within a budget of work--> values --> the same everywhere, or not

Identity testing by evaluation (Schwartz 1980, Zippel 1979): two different formulas of the size people write do not
agree at six unrelated points. What is undefined at a point must be undefined on both sides.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from random import Random
from typing import Any

from rlvr_verifiers.math_arithmetic import Arithmetic, TooLarge, Undefined, context
from rlvr_verifiers.math_syntax import Tree

DIGITS = 60  # of a first look; more where numbers of different sizes meet
AGREE = 40  # digits that must agree below the smallest value on the way
POINTS = 6
MORE_POINTS = 24  # where those have no value: larger ones, then natural numbers
MASKS = (1, 2, 4, 7, 3, 5, 6)  # bits of a point's number that give a name its sign: those of two names are independent
MAX_SPAN = 20_000  # decimal digits between the largest and the smallest value


@dataclass(frozen=True, slots=True)
class Value:
    """A number, the digits it was computed with, and the smallest binary exponent that mattered."""

    number: Any  # Fraction, mpf or mpc
    digits: int = DIGITS
    low: int = 0


def symbols(tree: Tree) -> frozenset[str]:
    if tree[0] == "var":
        return frozenset([tree[1]])
    return frozenset().union(*(symbols(part) for part in tree[1:] if isinstance(part, tuple)))


def mentions(tree: Tree, what: str) -> bool:
    return tree[0] == what or any(mentions(part, what) for part in tree[1:] if isinstance(part, tuple))


def drawn_out(tree: Tree) -> bool:
    """Whether a decimal in it has nearly as many digits as are compared."""
    if tree[0] == "num":
        return bool(tree[1].denominator > 10 ** (AGREE // 2))
    return any(drawn_out(part) for part in tree[1:] if isinstance(part, tuple))


def exact(tree: Tree) -> Fraction | None:
    try:
        number = value(tree).number
    except Undefined:
        return None
    return number if isinstance(number, Fraction) else None


def rebased(tree: Tree) -> Tree:
    """With a number for the base that a \\log does not name: another one than `Arithmetic` puts there."""
    if tree[0] == "base":
        return ("num", Fraction(6007, 911))
    return tuple(rebased(part) if isinstance(part, tuple) else part for part in tree)


def value(tree: Tree, where: dict[str, Fraction] | None = None, imaginary: bool | None = None) -> Value:
    """The number `tree` means, with as many digits as it takes. Undefined or TooLarge where there is none."""
    imaginary = mentions(tree, "i") if imaginary is None else imaginary
    first = Arithmetic(where or {}, imaginary, DIGITS)
    number = first.of(tree)
    if isinstance(number, Fraction):
        return Value(number)
    span = int((first.high - first.low) * 0.30103) + 1
    if span > MAX_SPAN:
        raise TooLarge(f"values {span} digits apart")
    if span > 10:
        number = Arithmetic(where or {}, imaginary, DIGITS + span).of(tree)
    return Value(number, DIGITS + span, first.low)


def close(one: Value, other: Value) -> bool:
    if isinstance(one.number, Fraction) and isinstance(other.number, Fraction):
        return one.number == other.number
    mp = context(max(one.digits, other.digits) + 5)
    left, right = (_inexact(v.number, mp) for v in (one, other))
    if mp.isinf(left) or mp.isinf(right):
        return bool(left == right)
    return bool(abs(left - right) <= mp.ldexp(mp.mpf(10) ** -AGREE, min(one.low, other.low)))


def _inexact(number: Any, mp: Any) -> Any:
    return mp.mpf(number.numerator) / number.denominator if isinstance(number, Fraction) else number


def same_value(one: Tree, other: Tree) -> bool:
    """Equal wherever they were tried. Symbols that cancel still count: x/x is not 1."""
    if symbols(one) != symbols(other):
        return False
    if drawn_out(one) or drawn_out(other):  # digits enough to look like \\pi: only what is exact can be equal
        return not symbols(one) and exact(one) is not None and exact(one) == exact(other)
    if mentions(one, "base") != mentions(other, "base"):  # log 5 / log 3 is log_3 5 whatever the base is
        named = (rebased(one), rebased(other))
        if not same_value(*named):
            return False
    pairs = _at_points(one, other)
    if pairs is None or len(pairs) < (2 if symbols(one) else 1):
        return False
    return all(close(left, right) for left, right in pairs)


def constant_ratio(one: Tree, other: Tree) -> int:
    """1 or -1, the sign of c, where `one` is c times `other` everywhere; 0 where it is not."""
    if not symbols(one) or symbols(one) != symbols(other):
        return 0
    pairs = _at_points(one, other)
    if pairs is None or len(pairs) < 2:
        return 0
    first, second = pairs[0]
    if any(close(v, Value(Fraction(0), v.digits, v.low)) for v in pairs[0]):
        return 0
    for left, right in pairs[1:]:
        if not close(_times(left, second), _times(right, first)):
            return 0
    signs = [v.number > 0 for v in pairs[0] if not hasattr(v.number, "imag") or not v.number.imag]
    return 1 if len(set(signs)) == 1 else -1


def _times(one: Value, other: Value) -> Value:
    mp = context(max(one.digits, other.digits))
    if isinstance(one.number, Fraction) and isinstance(other.number, Fraction):
        return Value(one.number * other.number)
    number = _inexact(one.number, mp) * _inexact(other.number, mp)
    return Value(number, max(one.digits, other.digits), one.low + other.low)


def _at_points(one: Tree, other: Tree) -> list[tuple[Value, Value]] | None:
    """Both values at every point where they have one; None where only one of them has.

    \\sqrt{x-7} has none at small points, (-1)^n and n! only at natural ones. There \\binom{n}{k} is 0 for n < k, and
    its factorials are not defined: points where only one of the two has a value are left out.
    """
    names = symbols(one)
    imaginary = mentions(one, "i") or mentions(other, "i")

    skip: tuple[type[Exception], ...] = (Undefined,)

    def pairs(points: list[dict[str, Fraction]]) -> Iterator[tuple[Value | None, Value | None]]:
        for where in points:
            yield _value_or_none(one, where, imaginary, skip), _value_or_none(other, where, imaginary, skip)

    found: list[tuple[Value, Value]] = []
    for points in _points(names):
        for left, right in pairs(points):
            if (left is None) != (right is None):
                return None
            if left is not None and right is not None:
                found.append((left, right))
        if len(found) > 1 or not names:
            return found
        skip = (Undefined, TooLarge)
    naturals = _naturals(names)
    found = [(left, right) for left, right in pairs(naturals) if left is not None and right is not None]
    return found if len(found) >= len(naturals) // 3 else []


def _points(names: frozenset[str]) -> Iterator[list[dict[str, Fraction]]]:
    ranks = {name: rank for rank, name in enumerate(sorted(names))}
    yield [
        {name: coordinate(name, point) * (-1 if _negative(rank, point) else 1) for name, rank in ranks.items()}
        for point in range(POINTS if names else 1)
    ]
    yield [
        {n: coordinate(n, POINTS + at) * 9 ** (1 + at % 3) * _sign(rank, at) for n, rank in ranks.items()}
        for at in range(MORE_POINTS)
    ]


def _sign(rank: int, at: int) -> int:
    """All signs of up to three names occur, with all sizes: |y|\\sqrt{x-7} is not y\\sqrt{x-7}."""
    return -1 if (at & MASKS[rank % len(MASKS)]).bit_count() % 2 else 1


def _negative(rank: int, point: int) -> bool:
    """Two points are all positive, one all negative; at the last three no two of up to eight names have the same
    signs, for |xy| is xy wherever they have."""
    return point == 2 or (point > 2 and bool((rank + 1) >> (point - 3) & 1))


def _naturals(names: frozenset[str]) -> list[dict[str, Fraction]]:
    """Most of them from 1 to 12, so that towers stay low, and others from 21 to 60.

    Each name takes the small ones twice, in an order of its own: (-1)^n says nothing where n is always even.
    """
    drawn = {}
    for name in sorted(names):
        random = Random(f"{name}#")  # not a checksum of the name and the point: the parities of two names would agree
        small = [number for _ in range(2) for number in random.sample(range(1, 13), 12)]
        drawn[name] = small + random.sample(range(21, 61), MORE_POINTS // 2)
    rows = sorted(set(zip(*drawn.values(), strict=True)))
    return [dict(zip(drawn, map(Fraction, row), strict=True)) for row in rows]


def _value_or_none(
    tree: Tree, where: dict[str, Fraction], imaginary: bool, skip: tuple[type[Exception], ...]
) -> Value | None:
    try:
        return value(tree, where, imaginary)
    except skip:
        return None


@lru_cache(maxsize=1024)
def coordinate(name: str, point: int) -> Fraction:
    """A positive rational that belongs to this name and point.

    Odd by even, by 16 at least: a negative number has no such power, where (-1)^(1/3) has a value that says nothing.
    """
    random = Random(f"{name}/{point}")
    return Fraction(random.randrange(301, 2300, 2), random.randrange(512, 1500, 16))
