"""LaTeX and plain numbers read exactly: integers, decimals, fractions, mixed numbers, percent, ratios, units.

Decides most answers, thousands of times faster than a computer algebra system and without rounding. None means "not a
number that I know", never "wrong".
"""

import re
from dataclasses import dataclass
from fractions import Fraction

WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
NUMBER = r"(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d*)?"
UNIT = r"(?:\\(?:text|mathrm|mbox|textrm)\{\s*([^{}]*?)\s*\}(\^\{?\d\}?)?|\^\{?(\\circ)\}?|°)"

DECIMAL = re.compile(rf"({NUMBER})")
REPEATING = re.compile(r"(\d*)\.(\d*)\\overline\{(\d+)\}")
FRACTION = re.compile(rf"\\frac(?:\{{\s*(-?{NUMBER})\s*\}}|(\d))\s*(?:\{{\s*(-?{NUMBER})\s*\}}|(\d))")
SLASHED = re.compile(rf"({NUMBER})/({NUMBER})")
MIXED = re.compile(r"(\d+)(?:\s*\\frac\{(\d+)\}\{(\d+)\}|\s*\\frac(\d)(\d)|\s+(\d+)/(\d+))")
SCIENTIFIC = re.compile(rf"({NUMBER})(?:\\times|\\cdot|\*)10\^(?:\{{([+-]?\d{{1,3}})\}}|(\d))")
RATIO = re.compile(r"(\d+):(\d+)")


@dataclass(frozen=True)
class Quantity:
    """Quantity(Fraction(1, 4), percent=False, unit="cm^2"): the number, before a percent sign is applied."""

    number: Fraction
    percent: bool = False
    unit: str = ""


def quantity(text: str) -> Quantity | None:
    """`text` as normalised by `rlvr_verifiers.math.normalised`."""
    text = text.strip()
    percent = text.endswith("%")
    if percent:
        text = text[:-1].rstrip()
    unit = ""
    if not percent and (found := re.search(rf"(?<=[\d.}}])\s*{UNIT}$", text)):
        unit = "".join(part or "" for part in found.groups()).replace("{", "").replace("}", "").lower()
        text = text[: found.start()].rstrip()
    text = text.removeprefix("$").strip()
    number = rational(text)
    return None if number is None else Quantity(number, percent, unit)


def rational(text: str) -> Fraction | None:
    if text.lower() in WORDS:
        return Fraction(WORDS.index(text.lower()))
    sign = 1
    while text[:1] in ("-", "+"):
        sign = -sign if text[0] == "-" else sign
        text = text[1:].lstrip()
    value = _unsigned(text)
    return None if value is None else sign * value


def _unsigned(text: str) -> Fraction | None:
    if text[:1] == "{" and text[-1:] == "}":
        text = text[1:-1]
    if (found := MIXED.fullmatch(text)) and (whole := found[1]):
        above, below = next((a, b) for a, b in ((found[2], found[3]), (found[4], found[5]), (found[6], found[7])) if a)
        return None if int(below) == 0 else int(whole) + Fraction(int(above), int(below))
    compact = re.sub(r"\s+", "", text)
    if found := REPEATING.fullmatch(compact):
        whole, fixed, repeated = found[1] or "0", found[2], found[3]
        nines = (10 ** len(repeated) - 1) * 10 ** len(fixed)
        return int(whole) + Fraction(int(fixed + repeated) - int(fixed or "0"), nines)
    if found := FRACTION.fullmatch(compact):
        return _divided(found[1] or found[2], found[3] or found[4])
    if found := SLASHED.fullmatch(compact):
        return _divided(found[1], found[2])
    if found := SCIENTIFIC.fullmatch(compact):
        mantissa = decimal(found[1])
        return None if mantissa is None else mantissa * Fraction(10) ** int(found[2] or found[3])
    return decimal(text) if DECIMAL.fullmatch(text) else None


def _divided(above: str, below: str) -> Fraction | None:
    numerator, denominator = rational(above), rational(below)
    return None if numerator is None or not denominator else numerator / denominator


def decimal(text: str) -> Fraction | None:
    digits = text.replace(",", "").rstrip(".") if text != "." else ""
    return Fraction(digits) if digits else None


def ratio(text: str) -> Fraction | None:
    """`4:6` as 2/3. What may be a clock time (12:00) is not a ratio."""
    found = RATIO.fullmatch(text.replace(" ", ""))
    if not found or (len(found[2]) == 2 and int(found[2]) < 60) or int(found[2]) == 0:
        return None
    return Fraction(int(found[1]), int(found[2]))


def equal(gold: Quantity, answer: Quantity) -> bool:
    """Units may be left out, not changed. A percent sign may be spelt out, or left out where the size says so."""
    if gold.unit and answer.unit and gold.unit != answer.unit:
        return False
    if gold.percent == answer.percent:
        return gold.number == answer.number
    scaled = (q.number / 100 if q.percent else q.number for q in (gold, answer))
    left_out = gold.number == answer.number and (gold.percent or abs(gold.number) > 1)
    return left_out or next(scaled) == next(scaled)
