r"""LaTeX and plain numbers read exactly: integers, decimals, fractions, mixed numbers, percent, ratios, units.

Decides most answers, thousands of times faster than a computer algebra system and without rounding. None means "not a
number that I know", never "wrong". Reads what `rlvr_verifiers.math_text.normalised` wrote; ASCII digits only.
"""

import re
from dataclasses import dataclass, replace
from fractions import Fraction

from rlvr_verifiers.math_units import CURRENCIES, MULTIPLES, SCALES, spelt_number, unit_of

NUMBER = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)?(?:\.[0-9]*)?"
SIGNED = rf"[+-]? ?{NUMBER}"

DECIMAL = re.compile(NUMBER)
SPACED = re.compile(r"[1-9][0-9]{0,2}(?: [0-9]{3})+(?:\.[0-9]+)?")
REPEATING = re.compile(r"([0-9]*)\.([0-9]*)(?:\\overline ?\{([0-9]+)\}|\\dot ?\{?([0-9])\}?|\(([0-9]+)\))")
FRACTION = re.compile(rf"\\frac ?\{{ ?({SIGNED}) ?\}} ?\{{ ?({SIGNED}) ?\}}")
SLASHED = re.compile(rf"({NUMBER}) ?/ ?({NUMBER})")
BRACKETED = re.compile(rf"\(({SIGNED}) ?/ ?({SIGNED})\)|\(({SIGNED})\)")
MIXED = re.compile(r"([0-9]+) ?(?:\\frac ?\{([0-9]+)\} ?\{([0-9]+)\}|(?<= )([0-9]+) ?/ ?([0-9]+))")
SCIENTIFIC = re.compile(rf"({NUMBER}) ?(?:\\times|\\cdot|\*) ?10 ?\^ ?(?:\{{ ?([+-]?[0-9]{{1,3}}) ?\}}|([0-9]{{1,3}}))")
E_NOTATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)[eE]([+-]?[0-9]{1,3})")
RATIO = re.compile(r"[0-9.]{1,20}(?: ?: ?[0-9.]{1,20}){1,9}")
UNIT = re.compile(r"(.*?\S)(?: ?\^ ?(\\circ) ?| ?(\\text ?\{.*))")
SCALE = "[CF]|[Cc]elsius|[Cc]entigrade|[Ff]ahrenheit"
TEMPERATURE = re.compile(rf"(.*?\S) ?\^ ?\\circ ?(?:({SCALE})|\\text ?\{{ ?({SCALE}) ?\}})")
PLAIN_UNIT = re.compile(r"(.*[0-9.})]) ?()([A-Za-z$€£¥].*)")
SIMPLE = re.compile(r"(-?)(?:([0-9]{1,300})(?:\.([0-9]{1,18}))?|\\frac\{([0-9]{1,18})\}\{(0*[1-9][0-9]{0,17})\})")


@dataclass(frozen=True, slots=True)
class Quantity:
    """Quantity(Fraction(1, 4), percent=False, unit="cm^2"): the number, before a percent sign is applied.

    `decimals` counts the digits behind the point, None where the number was not written as a decimal.
    """

    number: Fraction
    percent: bool = False
    unit: str = ""
    decimals: int | None = None

    @property
    def value(self) -> Fraction:
        return self.number / 100 if self.percent else self.number

    @property
    def plain(self) -> "Quantity":
        """Without the percent sign: 5.0% is 0.050, and has three digits."""
        decimals = self.decimals and self.decimals + 2
        return replace(self, number=self.value, percent=False, decimals=decimals) if self.percent else self


def quantity(text: str) -> Quantity | None:
    """A number with what people write around it: currency, unit, percent sign, `million`."""
    text = text.strip()
    if found := SIMPLE.fullmatch(text):  # most answers: not a thing that the rest would read otherwise, but sooner
        return _simple(*found.groups(default=""))
    unit, sign = "", ""
    if found := re.match(r"([+-]?) ?([$€£¥])", text):
        unit, sign = CURRENCIES[found[2]], found[1]
        text = sign + text[found.end() :].lstrip()
    text, percent, behind = without_unit(text)
    if behind is None or (behind and unit not in ("", behind)):
        return None
    text, times = _multiplied(text)
    number = rational(text)
    if number is None:
        return None
    decimals = len(text.rpartition(".")[2]) if re.fullmatch(r"[+-]? ?[0-9,]*\.[0-9]+", text) else None
    return Quantity(number * times, percent, unit or behind, decimals if times == 1 else None)


def _simple(sign: str, whole: str, behind: str, above: str, below: str) -> Quantity:
    """Of an integer, a decimal or a fraction the parts, "" where there is none."""
    number = Fraction(int(above), int(below)) if above else Fraction(int(whole + behind), 10 ** len(behind))
    return Quantity(-number if sign else number, decimals=len(behind) or None)


def without_unit(text: str) -> tuple[str, bool, str | None]:
    """(the number's text, whether percent stood behind it, its unit); unit None when words follow that are none."""
    if text.endswith("%") and not text[:-1].rstrip().endswith("%"):
        return text[:-1].rstrip(), True, ""
    if found := TEMPERATURE.fullmatch(text):
        return found[1], False, SCALES[f"degree {found[2] or found[3]}".lower()]
    found = UNIT.fullmatch(text) or PLAIN_UNIT.fullmatch(text)
    if found is None:
        return text, False, ""
    if found[2]:
        return found[1].rstrip(), False, "degree"
    if re.fullmatch(r"\\text ?\{ ?(?:percent|per cent|percentage points?) ?\}|percent", found[3].strip()):
        return found[1].rstrip(), True, ""
    if found[3] in CURRENCIES:
        return found[1].rstrip(), False, CURRENCIES[found[3]]
    many = re.match(r"(?:\\text ?\{ ?)?(" + "|".join(MULTIPLES) + r")s?\b ?(?:\}|(?= ))?", found[3])
    if many:
        rest = re.sub(r"\\text ?\{|\}", "", found[3][many.end() :]).strip()
        unit = unit_of(f"\\text{{{rest}}}") if rest else ""
        return (f"{found[1].rstrip()} {many[1]}", False, unit) if unit or not rest else (text, False, "")
    behind = text[found.end(1) : found.start(3)] != " " and not found[3].startswith("\\text")
    unit = unit_of(found[3], behind)
    return (found[1].rstrip(), False, unit) if unit else (text, False, "")


def _multiplied(text: str) -> tuple[str, int]:
    before, _, last = text.rpartition(" ")
    return (before, MULTIPLES[last]) if before and last in MULTIPLES else (text, 1)


def rational(text: str) -> Fraction | None:
    """Exactly the number that `text` spells, whatever its sign; None when it spells anything else."""
    text = text.strip()
    if text[:1].isalpha():
        spelt = spelt_number(text)
        return None if spelt is None else Fraction(spelt)
    sign, signs = 1, 0
    while text[:1] in ("-", "+") and signs < 2:
        sign = -sign if text[0] == "-" else sign
        text, signs = text[1:].lstrip(), signs + 1
    value = _unsigned(text)
    return None if value is None else sign * value


def _unsigned(text: str) -> Fraction | None:
    if text[:1] == "{" and text[-1:] == "}":
        text = text[1:-1].strip()
    if DECIMAL.fullmatch(text):
        return decimal(text)
    if found := MIXED.fullmatch(text):
        above, below = int(found[2] or found[4]), int(found[3] or found[5])
        return int(found[1]) + Fraction(above, below) if above < below else None
    if found := SLASHED.fullmatch(text) or FRACTION.fullmatch(text):
        return _divided(found[1], found[2])
    if found := BRACKETED.fullmatch(text):
        return rational(found[3]) if found[3] is not None else _divided(found[1], found[2])
    if found := REPEATING.fullmatch(text):
        whole, fixed, repeated = found[1] or "0", found[2], found[3] or found[4] or found[5]
        nines = (10 ** len(repeated) - 1) * 10 ** len(fixed)
        return int(whole) + Fraction(int(fixed + repeated) - int(fixed or "0"), nines)
    if found := SCIENTIFIC.fullmatch(text):
        mantissa = decimal(found[1])
        return None if mantissa is None else mantissa * Fraction(10) ** int(found[2] or found[3])
    if found := E_NOTATION.fullmatch(text):
        return Fraction(found[1]) * Fraction(10) ** int(found[2])
    return decimal(text.replace(" ", "")) if SPACED.fullmatch(text) else None


def _divided(above: str, below: str) -> Fraction | None:
    numerator, denominator = rational(above), rational(below)
    return None if numerator is None or not denominator else numerator / denominator


def decimal(text: str) -> Fraction | None:
    digits = text.replace(",", "").rstrip(".")
    return Fraction(digits) if digits else None


def ratio(text: str, clock: bool = False) -> tuple[Fraction, ...] | None:
    """`4:6` as (2/3, 1), `2:4:6` as (1/3, 2/3, 1). What may be a clock time (12:00) only where `clock` says so."""
    terms = [term.strip() for term in text.split(":")]
    if not RATIO.fullmatch(text) or (is_clock(text) and not clock):
        return None
    if any(term.count(".") > 1 or term == "." for term in terms):
        return None
    numbers = [Fraction(term.rstrip(".")) for term in terms]
    return tuple(number / numbers[-1] for number in numbers) if numbers[-1] else None


def is_clock(text: str) -> bool:
    return re.fullmatch(r"[0-9]{1,2} ?: ?[0-5][0-9]( ?: ?[0-5][0-9])?", text) is not None
