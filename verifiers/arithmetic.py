"""Is what a text calculates true? Reads `3 + 4*2 = 11` and chains of such, exactly. Pure.

Only plain arithmetic counts as a calculation: whatever touches a letter, a power or a command is left alone, and so is
what a word before it takes part in: `x - 2*3`, `sqrt 4 + 5`, `20% of 5*10`, `half of 6 + 4`. A total of 3 + 4 does not.
An x between two numbers is a sign; `3x`, `0x10` and `3x(4)` have a name in them, or may have.
"""

import re
from fractions import Fraction
from itertools import pairwise

TIMES = re.compile(  # apart from both or, unless 0x begins a hexadecimal number, from none
    r"(?<=[0-9)$])[ \t]+[xX][ \t]+(?=[0-9($]|\.[0-9])|(?<=[0-9)])(?<!(?<![0-9.,])0)[xX](?=[0-9])"
)
RUN = re.compile(r"[0-9.,()+\-*/\u00d7\u00f7\u00b7\u2212\u2013= \t$]+")
TOKEN = re.compile(r"\s*([0-9][0-9,]{0,30}(?:\.[0-9]{1,30})?|\.[0-9]{1,30}|[()+\-*/])")
SPELT = str.maketrans({"\u00d7": "*", "\u00f7": "/", "\u00b7": "*", "\u2212": "-", "\u2013": "-", "$": " "})
LIST_MARK = re.compile(r"^\s*(?:[-*\u2013\u2022]|\(?[0-9]{1,3}[.)])\s+")
TOUCHING = set("\\^_{}%!'|<>")
WORD = re.compile(r"[^\W\d_]+\Z")
TAKES_PART = {
    "sqrt", "root", "log", "ln", "lg", "sin", "cos", "tan", "exp", "abs", "plus", "minus", "times", "over", "by", "per",
    "x",
}  # fmt: skip
OF = re.compile(r"([^\W\d_]+)?\s*\bof\Z")
DETERMINER = re.compile(r"(?:\s(?:the|a|an|this|that|his|her|its|their))?\s*\Z")
WORKS_BY_OF = re.compile(  # any other word there is a name of what is calculated: a total of, the area of
    r"[^\W\d_]|half|halves|(?:third|quarter|fourth|fifth|sixth|seventh|eighth|ninth|tenth|twelfth|hundredth|thousandth|"
    r"fraction|part|multiple|square|cube|root|power|factor|divisor|average|mean|log|logarithm)s?|percent|percentage|"
    r"double|triple|twice|ln|lg|sine?|cos|cosine|tan|tangent|exp|exponential|abs|modulus|floor|ceiling|reciprocal|"
    r"inverse|negative|opposite|factorial|remainder|median|derivative|integral"
)
MAX_SIDE = 200  # characters


def calculations(line: str) -> list[bool]:
    """True or False for every link of every chain of equations that calculates something."""
    line = TIMES.sub(" * ", LIST_MARK.sub("", line))
    found = []
    for run in RUN.finditer(line):
        if "=" in run[0]:
            before, after = line[max(0, run.start() - 40) : run.start()], line[run.end() :][:1]
            plain = run[0].translate(SPELT)
            found += links(plain, touches(before[-1:]), touches(after), goes_on(before, plain))
    return found


def goes_on(before: str, run: str) -> bool:
    """Is the run's first side the end of something that begins in the words before it?"""
    found = WORD.search(before)
    word = found[0].lower() if found else ""
    side = run.lstrip()
    minus = side.startswith("-") and (side[1:2].isspace() or len(word) == 1)  # `so -3 + 5 = 2` begins with a number
    return word in TAKES_PART or part_of(before.lower()) or (minus and touches(before[-1:]))


def part_of(before: str) -> bool:
    """`20% of`, `half of the total of`; not `a total of`."""
    while found := OF.search(before):
        if not found[1] or WORKS_BY_OF.fullmatch(found[1]) or before.endswith("absolute value of"):
            return True
        before = DETERMINER.sub("", before[: found.start()], count=1)
    return False


def touches(neighbour: str) -> bool:
    return neighbour.isalnum() or neighbour in TOUCHING if neighbour else False


def links(run: str, cut_before: bool, cut_after: bool, goes_on: bool = False) -> list[bool]:
    """`cut_before`: something that is no arithmetic stands right before the run, and takes part in its first side where
    no space parts them; with `goes_on` it does anyway."""
    sides = run.split("=")
    values: list[tuple[Fraction, int, bool] | None] = []
    for place, side in enumerate(sides):
        first, last = place == 0, place == len(sides) - 1
        partial = (first and (goes_on or (cut_before and not side[:1].isspace()))) or (
            last and cut_after and not side[-1:].isspace()
        )
        text = balanced(side.strip().rstrip(".,") if last else side.strip())
        values.append(
            None if partial or not text or text[-1] in "+-*/" or (first and text[0] in "+*/") else value(text)
        )
    found = []
    for one, other in pairwise(values):
        if one is not None and other is not None and (one[2] or other[2]):  # `7 = 7` calculates nothing
            found.append(agree(one, other))
    return found


def balanced(text: str) -> str:
    """Without a bracket that was opened before the calculation, or is closed after it."""
    more = text.count("(") - text.count(")")
    if more > 0 and text.startswith("("):
        return text[1:].strip()
    return text[:-1].strip() if more < 0 and text.endswith(")") else text


def agree(one: tuple[Fraction, int, bool], other: tuple[Fraction, int, bool]) -> bool:
    """Equal, or equal to the digits behind the point that the shorter side gives: 10/3 = 3.33."""
    digits = [side[1] for side in (one, other) if side[1] and not side[2]]
    slack = Fraction(1, 2 * 10 ** min(digits)) if digits else Fraction(0)
    return abs(one[0] - other[0]) <= slack


def value(text: str) -> tuple[Fraction, int, bool] | None:
    """(value, digits behind the point, whether anything was calculated); None for what is no plain arithmetic."""
    if len(text) > MAX_SIDE:
        return None
    tokens, at = [], 0
    while at < len(text):
        found = TOKEN.match(text, at)
        if found is None:
            return None
        tokens.append(found[1])
        at = found.end()
    try:
        result, rest = total(tokens)
    except (ZeroDivisionError, IndexError, ValueError, RecursionError):
        return None
    digits = max((len(token.partition(".")[2]) for token in tokens), default=0)
    return None if rest else (result, digits, any(token in "+-*/" for token in tokens[1:]))


def total(tokens: list[str]) -> tuple[Fraction, list[str]]:
    result, rest = product(tokens)
    while rest and rest[0] in "+-":
        term, after = product(rest[1:])
        result, rest = (result + term if rest[0] == "+" else result - term), after
    return result, rest


def product(tokens: list[str]) -> tuple[Fraction, list[str]]:
    result, rest = atom(tokens)
    while rest and rest[0] in "*/":
        factor, after = atom(rest[1:])
        result, rest = (result * factor if rest[0] == "*" else result / factor), after
    return result, rest


def atom(tokens: list[str]) -> tuple[Fraction, list[str]]:
    if tokens[0] == "-":
        inner, rest = atom(tokens[1:])
        return -inner, rest
    if tokens[0] == "(":
        inner, rest = total(tokens[1:])
        if rest[0] != ")":
            raise ValueError("an open bracket")
        return inner, rest[1:]
    return Fraction(tokens[0].replace(",", "")), tokens[1:]
