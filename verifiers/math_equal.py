r"""Is an answer the same thing as the reference? Compares shapes piece by piece; scalars by value.

    relation, named value -> sets of reals -> lists, sets, tuples, matrices -> ratio, clock, base -> scalars

A reference leads: what it leaves open (a name before `=`, the parentheses of a pair) an answer may leave out or add;
what it says, an answer may not change.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import permutations

from rlvr_verifiers import math_arithmetic, math_values
from rlvr_verifiers.math_algebra import by_algebra, vanishes
from rlvr_verifiers.math_names import VARIABLE, is_polar, named, place
from rlvr_verifiers.math_reals import reals, same_set
from rlvr_verifiers.math_scalars import Options, near, same_ratio, scalar, value_tree
from rlvr_verifiers.math_shapes import Shape, read
from rlvr_verifiers.math_syntax import Tree, Unreadable, tree

LETTER = re.compile(r"\\(?:text|mathbb) ?\{[^{}]*\}|\\[A-Za-z]+|([A-Za-z](?:_\w)?)")
PRICE = re.compile(r"\$(?=[0-9.])")
STRICT = Options()


def same(gold: Shape, answer: Shape, o: Options = STRICT) -> bool | None:
    """Equal or not; None when nothing can read the reference."""
    if as_written(gold) == as_written(answer):
        return gold.text != ""
    if gold.kind == "literal":
        return False
    if gold.kind == "text" or answer.kind in ("text", "literal"):
        return gold.kind == answer.kind and gold.text == answer.text
    if "builder" in (gold.kind, answer.kind):
        return gold.kind == answer.kind and built(gold, answer, o)
    if "relation" in (gold.kind, answer.kind):
        return related(gold, answer, o)
    several = gold.kind in ("tuple", "list") and answer.kind in ("tuple", "list")
    if {gold.kind, answer.kind} & {"union", "without"} or (several and (_inequalities(gold) or _inequalities(answer))):
        one, other = reals(gold), reals(answer)
        if one and other:
            return (one[0] == other[0] or "" in (one[0], other[0])) and same_set(one[1], other[1])
        return gold.kind == answer.kind and in_order(gold.parts, answer.parts, o)
    if gold.kind in COLLECTIONS or answer.kind in COLLECTIONS:
        return collected(gold, answer, o)
    if gold.kind == "ratio" or answer.kind == "ratio":
        calculated = o.evaluated and gold.kind != "ratio"  # 391:17 is a calculation that gives 23
        return not calculated and same_ratio(gold, answer)
    if gold.kind in ("clock", "based") or answer.kind in ("clock", "based"):
        return gold.kind == "based" and answer.text == gold.text.partition("_")[0]  # clock times are the same string
    return scalar(gold, answer, o)


def as_written(shape: Shape) -> tuple[str, str, bool, tuple[str, ...]]:
    """The same string. Its text alone would take the two numbers `1, 234` for the number `1,234`, also in a list."""
    parts = tuple(part.text for part in shape.parts) if shape.kind == "list" else ()
    return shape.text, shape.unit, shape.percent, parts


COLLECTIONS = ("list", "set", "tuple", "matrix")
SETS = (*COLLECTIONS, "builder", "union", "without", "relation")  # what may be written where a set is meant


# -- set builders ------------------------------------------------------------------------------------------------------


def built(gold: Shape, answer: Shape, o: Options) -> bool:
    """Piece by piece, whatever the bound letters are called: 2k for k in Z is 2n for n in Z."""
    if in_order(gold.parts, answer.parts, o):
        return True
    ours, theirs = bound(gold), bound(answer)
    free = set().union(*(letters(part) for part in answer.parts)) - set(theirs)
    taken = {letter for name in free for letter in name.split("_")} & {*ours, *theirs}  # another's, or an index: a_n
    if taken or not 0 < len(ours) == len(theirs) <= 3:
        return False
    called = (dict(zip(theirs, order, strict=True)) for order in permutations(ours))
    return any(in_order(gold.parts, tuple(relettered(part, new) for part in answer.parts), o) for new in called)


def letters(shape: Shape) -> set[str]:
    return {found[1] for found in LETTER.finditer(shape.text) if found[1]}


def bound(builder: Shape) -> list[str]:
    """The letters that both its head and its condition speak of; e and i are numbers."""
    head, condition = map(letters, builder.parts)
    return sorted(head & condition - {"e", "i"})


def relettered(shape: Shape, new: dict[str, str]) -> Shape:
    found = read(LETTER.sub(lambda found: new.get(found[1], found[0]), shape.text))
    return replace(found, unit=shape.unit, percent=shape.percent)


def undecided(gold: Shape, answer: Shape) -> bool:
    """Whether two that were not found equal may be the same set all the same: nothing here can list a set builder."""
    return answer.kind in SETS and any(shape.kind == "builder" for shape in pieces(gold))


def pieces(shape: Shape) -> Iterator[Shape]:
    yield shape
    for part in shape.parts:
        yield from pieces(part)


# -- relations ---------------------------------------------------------------------------------------------------------


def related(gold: Shape, answer: Shape, o: Options) -> bool | None:
    if gold.kind == "relation" and answer.kind == "relation":
        return relations(gold, answer, o)
    if answer.kind == "relation":
        if set(answer.marks) <= set("=\u2248"):
            return any(same(gold, said, o) for said in values_of(answer, gold))
        if answer.marks == "\u2208" and (gold.kind != "list" or answer.parts[1].kind == "set"):
            return named(answer.parts[0]) and same(gold, answer.parts[1], o)
        return same_reals(gold, answer)
    if gold.marks in ("=", "\u2208") and named(gold.parts[0]):
        return same(gold.parts[1], answer, o)
    return same_reals(gold, answer)


def same_reals(gold: Shape, answer: Shape) -> bool:
    one, other = reals(gold), reals(answer)
    return bool(one and other and (one[0] == other[0] or "" in (one[0], other[0])) and same_set(one[1], other[1]))


def values_of(answer: Shape, gold: Shape) -> list[Shape]:
    """What a chain says in the end: `x = 3+1 = 4` 4; nothing where a link does not hold. `1/3 \\approx 0.33` says both,
    the second where the reference is a decimal too: 17.96 is not 18 for being rounded to 18.0."""
    links = answer.parts
    if len(links) == 2 and answer.marks == "=" and VARIABLE.fullmatch(links[1].text) and _is_constant(links[0]):
        links = (links[1], links[0])  # 5 = x
    start = 1 if named(links[0]) else 0
    if start == 0 and len(links) == 2 and not _is_constant(unpriced(links[0])):
        return []
    exact = links[start:]
    for at in range(start, len(links) - 1):
        if answer.marks[at] == "\u2248":
            if at != len(links) - 2 or not _rounded(links[at], links[-1]):
                return []
            exact = links[start:-1]
        elif not same(unpriced(links[at]), unpriced(links[at + 1]), STRICT):
            return []
    rounded = exact[-1] is not links[-1] and _is_decimal(links[-1]) and _is_decimal(gold)
    return [exact[-1], links[-1]] if rounded else [exact[-1]]


def _is_decimal(shape: Shape) -> bool:
    return shape.number is not None and shape.number.decimals is not None


def unpriced(shape: Shape) -> Shape:
    """`9 \\times \\$2` as the calculation that it is."""
    return read(PRICE.sub("", shape.text)) if shape.kind == "expression" else shape


def _is_constant(shape: Shape) -> bool:
    try:
        return not math_values.symbols(tree(shape.text)) if shape.kind == "expression" else shape.kind == "number"
    except Unreadable:
        return False


def _rounded(exact: Shape, decimal: Shape) -> bool:
    """Whether `decimal` is `exact` to the digits that it has."""
    if decimal.number is None or exact.kind not in ("number", "expression"):
        return False
    places = decimal.number.decimals
    try:
        return near(value_tree(exact), decimal.number.value, Fraction(1, 10**places) if places else Fraction(1, 2))
    except (Unreadable, math_arithmetic.Undefined):
        return False


def relations(gold: Shape, answer: Shape, o: Options) -> bool | None:
    """Equations up to a factor, inequalities up to a positive one or turned round, chains of inequalities as sets."""
    wanted, given = assigned(gold), assigned(answer)
    if wanted and given:
        return bool(same(wanted[0], given[0], o)) and same(wanted[1], given[1], o)
    one, other = reals(gold), reals(answer)
    if one and other:
        return one[0] == other[0] and same_set(one[1], other[1])
    if len(gold.marks) == 1 and len(answer.marks) > 1 and set(answer.marks) == {"="} and named(answer.parts[0]):
        values = values_of(answer, gold.parts[1])
        return bool(same(gold.parts[0], answer.parts[0], o)) and any(same(gold.parts[1], said, o) for said in values)
    if len(gold.marks) != 1 or len(answer.marks) != 1 or gold.marks == "\u2248":
        return False
    if gold.marks == answer.marks and all(same(a, b, o) for a, b in zip(gold.parts, answer.parts, strict=True)):
        return True
    if wanted and o.evaluated:
        return False
    turned = {"<": ">", "\u2264": "\u2265", ">": "<", "\u2265": "\u2264"}
    try:
        ratio = math_values.constant_ratio(difference(gold), difference(answer))
    except Unreadable:
        return by_sides(gold, answer, o)
    if gold.marks in "=\u2260":
        return gold.marks == answer.marks and ratio != 0
    return answer.marks == (gold.marks if ratio > 0 else turned.get(gold.marks)) and ratio != 0


def assigned(relation: Shape) -> tuple[Shape, Shape] | None:
    """(x, 5) of `x = 5` and of `5 = x`."""
    if relation.marks != "=":
        return None
    left, right = relation.parts
    return next(((a, b) for a, b in ((left, right), (right, left)) if named(a) and _is_constant(b)), None)


def by_sides(gold: Shape, answer: Shape, o: Options) -> bool:
    """Equations that only math-verify reads: turned round, or the same difference. It is never asked for an equation,
    whose solutions it would compare: `f(2)=3` and `3=4` have none, and so the same. What is always true, as 3=3, says
    nothing: such a reference only equals itself."""
    if gold.marks != "=" or answer.marks != "=":
        return False
    if all(same(a, b, o) for a, b in zip(gold.parts, answer.parts[::-1], strict=True)):
        return True
    (left, right), (one, other) = ([part.text for part in shape.parts] for shape in (gold, answer))
    if vanishes(f"({left})-({right})"):
        return False
    return any(by_algebra(f"({left})-({right})", said) for said in (f"({one})-({other})", f"({other})-({one})"))


def difference(relation: Shape) -> Tree:
    return ("+", tree(relation.parts[0].text), ("neg", tree(relation.parts[1].text)))


# -- collections -------------------------------------------------------------------------------------------------------


def _inequalities(shape: Shape) -> bool:
    return shape.kind == "list" and all(part.kind == "relation" and part.marks != "=" for part in shape.parts)


def collected(gold: Shape, answer: Shape, o: Options) -> bool | None:
    if (ours := names(gold)) and (theirs := names(answer)):
        letters = [{name.partition("_")[0] for name in each} for each in (ours, theirs)]
        if letters[0] != letters[1]:
            return False
        if "_" in "".join(ours) and "_" in "".join(theirs):
            return unordered(distinct(gold.parts), distinct(answer.parts), o)
    gold, answer = unnamed(gold), unnamed(answer)
    if "matrix" in (gold.kind, answer.kind):
        columns = (gold.columns or 1, answer.columns or 1)
        vector = columns == (1, 1) and (answer.kind, answer.marks) in (("matrix", ""), ("tuple", "()"))
        same_form = gold.kind == answer.kind and columns[0] == columns[1]
        return (same_form or (vector and gold.kind in ("matrix", "tuple"))) and in_order(gold.parts, answer.parts, o)
    if gold.kind == "tuple":
        listed = answer.kind == "list" and answer.marks == "," and gold.marks == "()"
        return (answer.marks == gold.marks or listed) and in_order(gold.parts, answer.parts, o)
    if answer.kind == "tuple":
        listed = gold.kind == "list" and answer.marks == "()"
        return listed and in_order(gold.parts, answer.parts, o)
    if gold.kind not in ("list", "set"):  # one thing, and a list of things
        return answer.kind == "list" and len(answer.parts) < 5 and all(same(gold, part, o) for part in answer.parts)
    if answer.kind not in ("list", "set"):
        return 0 < len(gold.parts) < 5 and all(same(part, answer, o) for part in gold.parts)
    if o.ordered and gold.kind == "list":
        return in_order(gold.parts, answer.parts, o)
    if len({part.unit for part in gold.parts}) > 1:  # 2 hours and 30 minutes: the numbers alone say nothing
        o = replace(o, units="required")
    return unordered(distinct(gold.parts), distinct(answer.parts), o)


def names(shape: Shape) -> list[str]:
    """x_1 and x_2 of `x_1=1, x_2=2`; none where a member has none."""
    if shape.kind != "list" or not all(part.kind == "relation" and part.marks == "=" for part in shape.parts):
        return []
    found = [part.parts[0].text.replace(" ", "") for part in shape.parts]
    return found if all(map(VARIABLE.fullmatch, found)) else []


def unnamed(shape: Shape) -> Shape:
    """`x=1, x=2` is the list 1, 2; `y=2, x=1` names the coordinates of a point: (1,2)."""
    letters = [name.partition("_")[0] for name in names(shape)]
    if not letters:
        return shape
    if len(set(letters)) == 1:
        return Shape("list", shape.text, tuple(part.parts[1] for part in shape.parts), marks=shape.marks)
    if len(set(letters)) < len(letters):
        return shape
    polar = is_polar(letters)
    by_name = sorted(zip(letters, shape.parts, strict=True), key=lambda pair: place(pair[0], polar))
    return Shape("tuple", shape.text, tuple(part.parts[1] for _, part in by_name), marks="()")


def distinct(parts: tuple[Shape, ...]) -> list[Shape]:
    return list({part.text + part.unit: part for part in parts}.values())


def in_order(gold: tuple[Shape, ...], answer: tuple[Shape, ...], o: Options) -> bool:
    return len(gold) == len(answer) and all(same(a, b, o) for a, b in zip(gold, answer, strict=True))


def unordered(gold: list[Shape], answer: list[Shape], o: Options) -> bool:
    if len(gold) != len(answer):
        return False
    left = list(answer)
    for wanted in gold:
        at = next((i for i, given in enumerate(left) if same(wanted, given, o)), None)
        if at is None:
            return False
        left.pop(at)
    return True
