r"""Words beside numbers: units in one spelling, number words, multiples. Converts nothing: 1 m is not 100 cm here."""

import re
from functools import lru_cache

_WORDS = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
WORDS = {word: value for value, word in enumerate(_WORDS.split())} | {
    "seventeen": 17, "eighteen": 18, "nineteen": 19, "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60,
    "seventy": 70, "eighty": 80, "ninety": 90,
}  # fmt: skip
_DIGIT = "|".join(_WORDS.split()[1:10])
COMPOUND = re.compile(rf"(?:({_DIGIT}) hundred(?: and(?= ))? ?)?(?:(\w+ty)(?:[- ]({_DIGIT}))?|(\w+))?")
MULTIPLES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12}

_ALIASES = """
m meter meters metre metres | cm centimeter centimeters centimetre centimetres | mm millimeter millimeters millimetres
km kilometer kilometers kilometre kilometres | in inch inches | ft foot feet | yd yard yards | mi mile miles
s sec secs second seconds | min mins minute minutes | h hr hrs hour hours | day days | week weeks | month months
year years yr yrs | g gram grams | kg kilogram kilograms | lb lbs pound pounds | oz ounce ounces | ton tons
l liter liters litre litres | ml milliliter milliliters | degree degrees deg | rad radian radians
dollar dollars usd | cent cents | euro euros | yen | mi/h mph | percent | unit units | km/h kmh kph | m/s
gallon gallons gal | quart quarts qt | pint pints pt | cup cups | teaspoon teaspoons tsp | tablespoon tablespoons tbsp
acre acres | hectare hectares ha | rupee rupees | peso pesos | pence | yuan | decade decades | century centuries
mg milligram milligrams | calorie calories | n newton newtons | j joule joules
w watt watts | kw kilowatt kilowatts | v volt volts | knot knots | nm nanometer nanometers nanometre nanometres
"""
ALIASES = {
    name: names.split()[0]
    for line in _ALIASES.strip().split("\n")
    for names in line.split("|")
    for name in names.split()
}
# read as units without \text around them: no products of letters
PLAIN = {name for name in ALIASES if len(name) > 1} - {"in", "min", "sec", "gal", "qt", "pt", "ha", "mg", "kw", "nm"}
SCALES = {f"degree {name}": "degree C" for name in ("c", "celsius", "centigrade")} | {
    f"degree {name}": "degree F" for name in ("f", "fahrenheit")
}
CURRENCIES = {"$": "dollar", "€": "euro", "£": "lb", "¥": "yen"}
LETTERS = set("msghlLNJWVCFTK")  # units of one letter; any other letter may be a variable, or a million
DOUBTFUL = {"k", "t"}  # kelvin or a thousand, tesla or a trillion: a unit only where the reference has it too
UNKNOWN = "?"  # before a letter that may be anything: the same
POWERS = {"square": "^2", "squared": "^2", "sq": "^2", "cubic": "^3", "cubed": "^3", "cu": "^3"}

# beside a number one of these says that it is another number, or none at all
NO_NAMES = set(WORDS) | set(
    re.findall(
        r"\S+",
        """
        or and not nor no neither either but if is are isn't wrong than less more fewer plus minus times over divided by
        mod modulo base half halves third thirds quarter quarters fourth fourths fifth fifths sixth sixths seventh
        eighth sevenths eighths ninth ninths tenth tenths twelfth hundredth hundredths thousandth thousandths dozen pair
        pairs score hundred thousand million billion trillion pi root to through between at most least about
        approximately around nearly almost power factorial sqrt theta alpha beta gamma lambda omega infinity infty
        sinh cosh tanh arcsin arccos arctan th st nd rd maybe with without for unless except a the can cannot none
        false true undefined incorrect invalid rejected excluded excluding impossible unlikely perhaps possibly probably
        never too instead rather untrue
        """,
    )
)
# ... and behind it one of these too; before it they are names: gross = 20
NO_UNITS = NO_NAMES | set(
    re.findall(
        r"\S+",
        """
        doubled tripled quadrupled halved twice thrice below above under beyond tens hundreds thousands millions
        billions trillions dozens gross myriad mil mils mill mln mio bn tn mn lakh lakhs lac crore crores mille permille
        permil ppm ppb bp bps googol googols factorials repeating recurring recurrent periodic delta epsilon zeta iota
        kappa sigma upsilon varphi varepsilon
        """,
    )
)
# ... nor one that is made of a number word: seven twelfths, quadrillion, fives, tenfold; months and paths are none
_STEM = "hundred|thousand|[a-z]*illion|(?:thir|four|fif|six|seven|eigh|nine)teen"
NUMBER_LIKE = re.compile(
    rf"(?:{_STEM}|(?:twen|thir|for|fif|six|seven|eigh|nine)tie|ten|eleven|twelf|four|fif|six|seven|eigh|nin)ths?"
    rf"|(?:{_STEM})s?|(?:{'|'.join(w for w in WORDS if w not in ('zero', 'one'))})(?:s|es|fold)"
    r"|(?:twen|thir|for|fif|six|seven|eigh|nine)ties|twelves|(?:hundred|thousand|[a-z]*illion)?fold"
)
# ... nor an expression: 2 sinx, 3 sigma
FUNCTION_LIKE = re.compile(
    r"(?:arc)?(?:sin|cos|tan|cot|sec|csc|log|exp)h?(?:[abnptuxyz]|theta|alpha|beta|phi|omega)|sqrt[a-z]*"
)
# ... and these alone: 5 double is 10, 5 double rooms are 5
NO_UNITS_ALONE = {
    "negative", "inverse", "reciprocal", "opposite", "double", "triple", "quadruple", "cube", "scores", "grand",
    "binary", "octal", "hexadecimal", "repeated", "reoccurring",
}  # fmt: skip


def spelt_number(text: str) -> int | None:
    """36 of `thirty-six`, 105 of `one hundred and five`; None of other words."""
    found = COMPOUND.fullmatch(text.strip().lower())
    words = [word for word in found.groups()[1:] if word] if found else []
    if found is None or not all(word in WORDS for word in words) or (found[1] and "zero" in words):
        return None
    if not found[1] and not words:
        return None
    return 100 * WORDS.get(found[1] or "zero", 0) + sum(WORDS[word] for word in words)


WORD = re.compile(r"[A-Za-z']+")
LETTER = re.compile(r"(?<![A-Za-z'])[A-Za-z](?![A-Za-z']|-[A-Za-z]{2})")  # alone: not that of x-intercepts


@lru_cache(maxsize=4096)
def unit_of(text: str, behind: bool = False) -> str:
    r"""The unit that `\text{ square cm}`, `\text{ cm}^2` or `dollars` spells, in one spelling; "" when it is none.

    `behind` says that no space parts it from a number: 24abcd is a product, 24cm is not.
    """
    found = re.fullmatch(r"\\text ?\{([^{}]*)\} ?(?:\^ ?\{?([23])\}?)?((?: ?/ ?\\text ?\{[^{}]*\})?)", text.strip())
    if found is None:
        name = re.fullmatch(r"([A-Za-z/. ]+?)\.? ?(?:\^ ?\{?([23])\}?)?", text.strip())
        words = re.findall(r"[^ ./]+", name[1].lower()) if name else []
        plain = name is not None and name[1].lower().strip() == "km/h"  # m/s may be two variables
        known = all(word in PLAIN or word == "per" or len(word) > 3 for word in words[behind:])
        known = known and not (behind and words and words[0] not in PLAIN)
        if not name or not words or not (plain or known):
            return ""
        return _spelt(name[1].lower(), name[2])
    inside = found[1] + re.sub(r"\\text ?|[{}]", "", found[3])
    if not LETTERS.issuperset(LETTER.findall(inside.replace(".", ""))):
        letter = inside.strip()
        return UNKNOWN + letter if len(letter) == 1 and not found[2] else ""
    return _spelt(inside.lower(), found[2])


def no_unit(word: str) -> bool:
    if word == "cost":  # and no cosine of t
        return False
    return word in NO_UNITS or bool(NUMBER_LIKE.fullmatch(word) or FUNCTION_LIKE.fullmatch(word))


def doubtful(unit: str) -> bool:
    """Whether it may be a part of the number, or none: a unit only where the reference has it too."""
    return unit.startswith(UNKNOWN) or re.split("[ /]", unit)[0] in DOUBTFUL


def same_unit(gold: str, answer: str, required: bool = False) -> bool:
    """Of degrees the scale is a unit of its own: it may be added, or left out unless it is required. C is not F."""
    left_out = answer == "degree" and gold in SCALES.values() and not required
    return gold == answer or left_out or (gold == "degree" and answer in SCALES.values())


def _spelt(text: str, power: str | None) -> str:
    text = re.sub(r"^ *\(([^()]*)\) *$", r"\1", text)  # 12 (hours)
    text = text.replace(" per ", "/").replace(".", "").replace("^", "").replace("-", " ")
    if not re.fullmatch(r"[a-z' /]*(?:(?<=[a-z])[23])?", text.strip()):
        return ""
    words = [word for word in re.split(r"\s+", text.strip()) if word]
    powers = [POWERS[word] for word in words if word in POWERS] + ([f"^{power}"] if power else [])
    names = [word for word in words if word not in POWERS]
    if not names or len(names) > 4 or len(powers) > 1 or any(map(no_unit, WORD.findall(text))):
        return ""
    if len(names) == 1 and names[0] in NO_UNITS_ALONE:
        return ""
    if ("percent" in names and len(names) > 1) or " ".join(names[:2]) in ("basis point", "basis points"):
        return ""  # of something: another number
    if names[-1][-1] in "23":
        names[-1], powers = names[-1][:-1], [*powers, f"^{names[-1][-1]}"]
    spelt = ["/".join(ALIASES.get(part, part) for part in name.split("/")) for name in names]
    unit = " ".join(spelt) + "".join(powers)
    return SCALES.get(unit, unit)
