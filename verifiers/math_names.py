r"""What an answer may call the thing that it says: `x =`, `f(2) =`, `\angle ABC =`, `(r,\theta) =`. Knows no values.

A reference that is a point leaves the names of its coordinates open. An answer may add them, in their usual order only:
`(y,x)` says another point.
"""

import re
from itertools import pairwise
from string import ascii_lowercase, ascii_uppercase

from rlvr_verifiers.math_shapes import Shape
from rlvr_verifiers.math_units import NO_NAMES

NAME = re.compile(
    r"(?:\\?[A-Za-z]{1,10}'?|\\text ?\{[^{}]*\}|m? ?\\angle ?[A-Z]{1,3}|\\overline ?\{[A-Z]{1,2}\}|\|[A-Z]{2}\|)"
    r"(?: ?_ ?(?:\w|\{[^{}]{1,12}\}))?(?: ?\( ?[^()=]{1,12} ?\))?"
)
VARIABLE = re.compile(r"(\\?[A-Za-z]{1,8})(?: ?_ ?\{?\w{1,3}\}?)?")
GREEK = [  # without the number pi; the radius before its angles
    "rho", "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu", "nu",
    "xi", "omicron", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega",
]  # fmt: skip
ALPHABET = [*(f"\\{letter}" for letter in GREEK), *ascii_uppercase, *ascii_lowercase]
PLACE = {letter: at for at, letter in enumerate(ALPHABET)}
COORDINATE = rf"(?:[A-Za-z]|\\(?:var)?(?:{'|'.join(GREEK)}))(?:_(?:\w|\{{\w{{1,3}}\}}))?"
POINT = re.compile(rf"(?:[A-Za-z] ?)?\(({COORDINATE}(?:,{COORDINATE}){{1,9}})\)")


def named(shape: Shape) -> bool:
    """A name for what follows: x, f(x), AB, \\angle ABC, \\text{Area}, (x,y); not (y,x), which says another point."""
    if point := POINT.fullmatch(shape.text):
        return usual(point[1].split(","))
    if shape.kind == "text":
        return len(shape.text) <= 40 and not NO_NAMES & set(shape.text.split(" "))
    return bool(NAME.fullmatch(shape.text))


def usual(names: list[str]) -> bool:
    """Whether coordinates have no order, as w and h, or stand in it: x and y, a_1 and a_2, r and \\theta."""
    polar = is_polar(names)
    places = [place(name, polar) for name in names]
    letters = [at for at, *_ in places]
    radius_behind = min(letters) <= PLACE["\\rho"] < letters[0]
    unrelated = any(b - a > 1 for a, b in pairwise(sorted(letters)))
    return places == sorted(places) or (unrelated and not radius_behind)


def is_polar(names: list[str]) -> bool:
    return any(name.startswith("\\") for name in names)


def place(name: str, polar: bool) -> tuple[int, int, str]:
    """Where a coordinate usually stands: by its letter, then its index. Beside Greek letters r is a radius."""
    letter, _, index = name.partition("_")
    index = index.strip("{}")
    at = -1 if polar and letter == "r" else PLACE.get(letter.replace("\\var", "\\"), len(PLACE))
    return at, len(index), index or letter
