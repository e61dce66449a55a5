r"""Are two scalars equal: numbers with units and percent signs exactly, other expressions by their values.

What a data set may relax or tighten is here. math-verify is asked where an expression is beyond `math_syntax`.
"""

import re
from dataclasses import dataclass, replace
from fractions import Fraction

from rlvr_verifiers import math_arithmetic, math_values
from rlvr_verifiers.math_algebra import by_algebra
from rlvr_verifiers.math_shapes import Shape, undressed
from rlvr_verifiers.math_syntax import Foreign, Tree, Unreadable, tree
from rlvr_verifiers.math_units import doubtful, same_unit
from rlvr_verifiers.numbers import Quantity, ratio

SPELT_RATIO = re.compile(r"([0-9.]{1,20}) ?(?:\\text ?\{ ?to ?\}|to) ?([0-9.]{1,20})")  # 4 to 7
DIVIDED = re.compile(r"\\frac|[0-9.)}] ?/ ?[-+({0-9.]")
SIGNED_TWICE = re.compile(r"[+-] ?[({]{0,3} ?[+-]")
EULER = re.compile(r"-?[0-9]{1,300}e[+-][1-9][0-9]{0,2}")  # a number in exponent form, or with Euler's number
CHOICES = {"percent": ("optional", "value", "literal"), "units": ("optional", "required", "ignored")}


@dataclass(frozen=True, slots=True)
class Options:
    """What a data set may relax or tighten; see docs/math.md."""

    tolerance: str | float = "exact"
    percent: str = "optional"
    ordered: bool = False
    units: str = "optional"
    evaluated: bool = False

    def __post_init__(self) -> None:
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise ValueError(f"math: {name}={getattr(self, name)!r}: expected one of {', '.join(known)}")
        relative = not isinstance(self.tolerance, str) and 0 <= float(self.tolerance) < 1
        if not relative and self.tolerance not in ("exact", "digits"):
            raise ValueError(f"math: tolerance={self.tolerance!r}: expected exact, digits, or a number from 0 to 1")


def near(found: Tree, target: Fraction, within: Fraction) -> bool:
    if math_values.symbols(found) or math_values.mentions(found, "i"):
        return False
    try:
        number = math_values.value(found).number
    except math_arithmetic.Undefined:
        return False
    mp = math_arithmetic.context(40)
    as_mpf = mp.mpf(number.numerator) / number.denominator if isinstance(number, Fraction) else number
    if not mp.isfinite(as_mpf):
        return False
    distance = abs(as_mpf - mp.mpf(target.numerator) / target.denominator)
    return bool(distance <= mp.mpf(within.numerator) / within.denominator)


def same_ratio(gold: Shape, answer: Shape) -> bool:
    """A reference that is a ratio says that 12:21 is none of the clock."""
    terms = []
    for shape in (gold, answer):
        if shape.kind == "ratio" or (shape.kind == "clock" and gold.kind == "ratio"):
            terms.append(ratio(shape.text, clock=True))
        elif (spelt := SPELT_RATIO.fullmatch(shape.text)) and gold.kind == "ratio":
            terms.append(ratio(f"{spelt[1]}:{spelt[2]}", clock=True))
        elif shape.number is not None and not shape.unit and not shape.percent:
            terms.append((shape.number.number, Fraction(1)))
    return len(terms) == 2 and terms[0] is not None and terms[0] == terms[1]


def scalar(gold: Shape, answer: Shape, o: Options) -> bool | None:
    said = _scalar(gold, answer, o)
    one, other = (replace(shape, number=None) if EULER.fullmatch(shape.text) else shape for shape in (gold, answer))
    if not said and (one.number is None) and (other.number is None) and (one, other) != (gold, answer):
        return _scalar(one, other, o)  # beside an expression 2e-5 may be -5+2e
    return said


def _scalar(gold: Shape, answer: Shape, o: Options) -> bool | None:
    if gold.percent != answer.percent and (gold.unit or answer.unit) and o.units != "ignored":
        return False  # 25% is not 25 dollars
    if o.units != "ignored" and doubtful(answer.unit) and answer.unit != gold.unit:
        return False
    if gold.number and answer.number:
        calculated = o.evaluated and not written_out(answer)
        return not calculated and quantities(gold.number, answer.number, o)
    if o.evaluated and gold.number:
        return False
    required = o.units == "required"
    needed = gold.unit and (required or answer.unit) and o.units != "ignored"
    if needed and not same_unit(gold.unit, answer.unit, required):
        return False
    if undressed_equal(gold, answer):
        return True
    try:
        given: Tree | None = value_tree(answer)
    except Foreign:
        given = None
    except Unreadable:
        return False
    try:
        wanted = value_tree(gold)
    except Unreadable:
        return by_algebra(gold.text, answer.text)
    if given is None:
        return bool(by_algebra(gold.text, answer.text))
    if math_values.same_value(wanted, given):
        return True
    return tolerated(gold, given, o)


def written_out(answer: Shape) -> bool:
    """No division that leaves a whole number, no two signs: 391/17 and --23 are calculations that give 23."""
    if SIGNED_TWICE.match(answer.text):
        return False
    return answer.number is None or answer.number.number.denominator > 1 or not DIVIDED.search(answer.text)


def value_tree(shape: Shape) -> Tree:
    if shape.number:
        return ("num", shape.number.value)
    found = tree(shape.text)
    return ("*", found, ("num", Fraction(1, 100))) if shape.percent else found


def undressed_equal(gold: Shape, answer: Shape) -> bool:
    """`15 m` where the reference has `15\\text{ m}`."""
    if not gold.unit or not gold.number:
        return False
    return re.sub(r"\s", "", undressed(answer.text)) == f"{gold.number.number}{gold.unit}"


def quantities(gold: Quantity, answer: Quantity, o: Options) -> bool:
    """Units may be left out, not changed. A percent sign may be spelt out, or left out where the size says so."""
    required = o.units == "required"
    needed = gold.unit and (required or answer.unit) and o.units != "ignored"
    if needed and not same_unit(gold.unit, answer.unit, required):
        return False
    if gold.percent == answer.percent:
        return within(gold, answer.number, o)
    if o.percent == "literal":
        return False
    left_out = o.percent == "optional" and (gold.percent or abs(gold.number) > 1)
    if left_out and within(gold, answer.number, o):
        return True
    return within(gold.plain, answer.value, o)


def within(gold: Quantity, number: Fraction, o: Options) -> bool:
    return abs(number - gold.number) <= allowed(gold, o)


def allowed(gold: Quantity, o: Options) -> Fraction:
    """How far from the reference's number an answer may be: half a unit of its last digit, or a share of it."""
    if o.tolerance == "exact":
        return Fraction(0)
    if o.tolerance == "digits":
        return Fraction(0) if gold.decimals is None else Fraction(1, 2 * 10**gold.decimals)
    return abs(gold.number) * Fraction(str(o.tolerance))


def tolerated(gold: Shape, given: Tree, o: Options) -> bool:
    if o.tolerance == "exact":
        return False
    if gold.number:
        margin, target = allowed(gold.number.plain, o), gold.number.value
    else:
        wanted = value_tree(gold)
        if o.tolerance == "digits" or math_values.symbols(wanted) or math_values.mentions(wanted, "i"):
            return False
        number = math_values.value(wanted).number
        if not isinstance(number, Fraction) and not math_arithmetic.context(40).isfinite(number):
            return False  # nothing is near to infinity
        target = number if isinstance(number, Fraction) else Fraction(str(math_arithmetic.context(40).nstr(number, 35)))
        margin = abs(target) * Fraction(str(o.tolerance))
    return near(given, target, margin)
