r"""One spelling for a LaTeX answer, and the limits beyond which nobody looks at it. Text to text; knows no numbers.

What has no place in mathematics (zero-width characters, letters of other scripts that look like ours) stays as it is,
so that nothing can read it: an answer that needs it is wrong.
"""

import re

PLAIN = re.compile(r"[-+]?[0-9](?:[0-9.,/]*[0-9])?")  # nothing to be respelt
MAX_CHARACTERS, MAX_DIGITS, MAX_NESTING = 2_000, 300, 50

CHARACTERS = str.maketrans(
    {chr(0xFEE0 + code): chr(code) for code in range(0x21, 0x7F)}  # full-width forms
    | {
        "\u2212": "-", "\u2013": "-", "\u2010": "-", "\u2011": "-", "\u00a0": " ", "\u2009": " ", "\u202f": " ",
        "\u3000": " ", "×": "\\times ", "÷": "\\div ", "·": "\\cdot ", "⋅": "\\cdot ", "π": "\\pi ", "θ": "\\theta ",
        "α": "\\alpha ", "β": "\\beta ", "∞": "\\infty ", "±": "\\pm ", "∓": "\\mp ", "≤": "\\le ", "≥": "\\ge ",
        "≠": "\\ne ", "ℤ": "\\mathbb{Z}", "ℕ": "\\mathbb{N}",
        "∪": "\\cup ", "∩": "\\cap ", "∈": "\\in ", "∅": "\\emptyset ", "ℝ": "\\mathbb{R}", "°": "^\\circ ",
        "²": "^2", "³": "^3", "½": "\\frac{1}{2}", "¼": "\\frac{1}{4}", "¾": "\\frac{3}{4}", "⅓": "\\frac{1}{3}",
        "⅔": "\\frac{2}{3}", "√": "\\sqrt ", "≈": "\\approx ", "…": "\\ldots ", "≡": "\\equiv ", "〈": "\\langle ",
        "⟨": "\\langle ", "⟩": "\\rangle ", "\u201c": '"', "\u201d": '"', "\u2018": "'", "\u2019": "'",
    }
)  # fmt: skip

WORDY = (
    r"\\(?:text|textbf|textit|textrm|textsf|texttt|textnormal|mathrm|mathbf|mathit|mathsf|mbox|hbox|rm|bf|boldsymbol|bm"
    r"|bold)"
)
SPELLINGS = {
    "dfrac": "frac", "tfrac": "frac", "cfrac": "frac", "dbinom": "binom", "tbinom": "binom", "leq": "le", "geq": "ge",
    "leqslant": "le", "geqslant": "ge", "neq": "ne", "lt": "<", "gt": ">", "varnothing": "emptyset", "lbrace": "{",
    "rbrace": "}", "lvert": "|", "rvert": "|", "vert": "|", "mid": "|", "colon": ":", "lor": "or", "vee": "or",
    "backslash": "setminus", "lbrack": "[", "rbrack": "]", "imath": "i", "to": "to", "iff": "iff",
    "land": "and", "wedge": "and", "dots": "ldots", "cdots": "ldots", "dotsc": "ldots", "bar": "overline", "ast": "*",
}  # fmt: skip
SPACES = {
    "quad", "qquad", "enspace", "thinspace", "space", "hfill", "displaystyle", "textstyle", "limits", "nolimits",
    "therefore", "bf", "rm", "it", "sf", "tt", "normalsize", "small", "large", "Large", "LARGE", "huge", "Huge",
}  # fmt: skip
SIZES = {"left", "right", "big", "Big", "bigg", "Bigg", "bigl", "bigr", "Bigl", "Bigr", "biggl", "biggr", "middle"}
COMMAND = re.compile(r"\\([A-Za-z]+) ?")
OPERATORS = re.compile(r"\\operatorname\*?\{([a-zA-Z]{1,10})\}")
DEGREE = re.compile(r"\^ ?\{ ?\\degree ?\}|\^? ?\\degree(?![A-Za-z])")
CONSTANTS = re.compile(r"\\math(?:rm|bf|it) ?\{([ei])\}")
NO_BRACKET = re.compile(r"\\(?:left|right) ?\.")
ROOT = re.compile("\u221a ?([0-9]{1,300})")
SPACE = re.compile(r"(?<!\\)\\ ")
ROW_END = re.compile(r"\\\\(?: ?\[[0-9a-z.]{1,8}\])?")
CONCLUDES = re.compile(r"\\(?:implies|Rightarrow|approx)(?![A-Za-z])")  # what an answer may begin with
DONE = ("\\checkmark", "\\blacksquare", "\\square")  # and end with
HSPACE = re.compile(r"\\hspace ?\*? ?\{[^{}]{1,20}\}")
COLOUR = re.compile(r"\\(?:text)?color ?\{ ?[A-Za-z]{1,20} ?\}|\\underline ?(?=\{)")
OVER = re.compile(r"\{([^{}]{1,200})\\over(?![A-Za-z])([^{}]{1,200})\}")
THOUSANDS = re.compile(r"(?<![\d.])(\d{1,3}(?:(?:\{,\}|,\\! ?|\\, ?|\{,\\!\})\d{3}){1,100})(?![\d])")
STARS = re.compile(r"(?<=[\w)}])[ ]?\*\*[ ]?(-?\d{1,300}|[A-Za-z])(?![\w.])")
NUMBERS = re.compile(r"\\mathbb ([A-Z])(?![A-Za-z])")
# a brace that parts nothing: \log_{2}3 is no \log_23, x^{\pi}y no x^\piy
BRACED = re.compile(r"([\^_])\{ ?([A-Za-z]|\d(?! ?\}\d)|\\[a-z]{1,10}(?! ?\}[A-Za-z])) ?\}")
FRACTION = re.compile(r"\\frac ?(\d|\{[^{}]*\}) ?(\d|\{[^{}]*\})")
LOOSE = re.compile(r"(?<![0-9A-Za-z.]) +| +(?![0-9A-Za-z.])")
# commands that part an answer into pieces, as single characters: what `symbolic` writes and `split` reads
PARTS = {
    "le": "\u2264", "ge": "\u2265", "ne": "\u2260", "in": "\u2208", "approx": "\u2248", "or": "\u2228", "and": "\u2227",
    "cup": "\u222a", "setminus": "\u2216", "langle": "\u27e8", "rangle": "\u27e9",
}  # fmt: skip
PART = re.compile(r"\\(" + "|".join(PARTS) + r")(?![A-Za-z]) ?")
JOINERS = re.compile(r"\\text ?\{ ?,? ?(or|and) ?\}|(?<![A-Za-z])(?<!\\)(or|and)(?![A-Za-z])")
MATRIX = re.compile(r"\\(begin|end) ?\{ ?(?:[pbB]?matrix|smallmatrix|array) ?\}(?: ?\{[lcr| ]{1,20}\})?")
OPENING = {"(": "(", "[": "(", "{": "{", "\u2983": "\u2983", "\u27e6": "\u27e6", "\u27e8": "("}
CLOSING = {")": "(", "]": "(", "}": "{", "\u2984": "\u2983", "\u27e7": "\u27e6", "\u27e9": "("}


def symbolic(text: str) -> str:
    """`text` with one character for each bracket, joiner and relation, to be cut at; \u2983 is a set's brace."""
    if text.isalnum():
        return text
    text = text.replace("\\{", "\u2983").replace("\\}", "\u2984").replace("\\emptyset", "\u2983\u2984")
    text = MATRIX.sub(lambda found: "\u27e6" if found[1] == "begin" else "\u27e7", text)
    text = JOINERS.sub(lambda found: "\u2228" if "or" in (found[1], found[2]) else "\u2227", text)
    return PART.sub(lambda found: PARTS[found[1]], text)


def too_large(answer: str) -> str | None:
    """Why an answer is not worth a look, in words."""
    if len(answer) <= min(MAX_DIGITS, MAX_NESTING):
        return None
    if len(answer) > MAX_CHARACTERS:
        return f"{len(answer)} characters > {MAX_CHARACTERS}"
    digits = re.sub(r"[,\s!\\{}]", "", answer)
    if found := re.search(rf"\d{{{MAX_DIGITS + 1},}}", digits):
        return f"a number of {len(found[0])} digits > {MAX_DIGITS}"
    depth = deepest = 0
    for character in answer:
        depth += (character in "{([") - (character in "})]")
        deepest = max(deepest, depth)
    return f"nested {deepest} deep > {MAX_NESTING}" if deepest > MAX_NESTING else None


def normalised(text: str) -> str:
    """The same answer in one spelling: no delimiters, sizes or spacing commands; one name for a thing."""
    if PLAIN.fullmatch(text):
        return text
    if not text.isascii():
        text = ROOT.sub(r"\\sqrt{\1}", text).translate(CHARACTERS)
    text = undelimited(SPACE.sub(" ", text))
    if "**" in text:
        text = STARS.sub(r"^{\1}", text)  # as Python writes a power
    text = text.replace("~", " ") if "\\~" not in text else text
    if "\\" in text or "{" in text:
        text = OVER.sub(r"\\frac{\1}{\2}", COLOUR.sub("", HSPACE.sub(" ", text)))
        text = ROW_END.sub(" \u23ce ", text) if "\\begin" in text else text.replace("\\\\", "\\")
        text = THOUSANDS.sub(lambda found: re.sub(r"[^\d]", "", found[1]), text)
        text = re.sub(r"\\[,;:> ]", " ", text.replace("\\!", "").replace("\\$", "$").replace("\\%", "%"))
        text = CONSTANTS.sub(r"{\1}", OPERATORS.sub(r"\\\1 ", NO_BRACKET.sub("", text)))
        text = re.sub(WORDY + r" ?(?=\{)", r"\\text", text)
        text = DEGREE.sub(r"^\\circ ", text)
        text = NUMBERS.sub(r"\\mathbb {\1}", COMMAND.sub(_respelt, text))
        text = BRACED.sub(r"\1\2", BRACED.sub(r"\1\2", text.replace("{,}", ",")))
        text = FRACTION.sub(lambda found: "\\frac" + _braced(found[1]) + _braced(found[2]), text)
    text = re.sub(r"\s+", " ", text).strip()
    return undelimited(text[1:] if text[:1] == "=" else text)


def undelimited(text: str) -> str:
    """Without dollar signs around it, emphasis, what leads up to an answer, and what says that it was one."""
    before = None
    while before != text:
        before = text = text.strip()
        if text[:2] in ("\\(", "\\[") and text[-2:] in ("\\)", "\\]"):
            text = text[2:-2]
        text = text.rstrip("\\")  # the end of a line
        if found := CONCLUDES.match(text):
            text = text[found.end() :]
        for mark in DONE:
            text = text.removesuffix(mark) or text
        if len(text) > 1 and text[0] == text[-1] == "$":
            text = text[1:-1]
        if len(text) > 4 and text[:2] == text[-2:] == "**":
            text = text[2:-2]
        if text[-1:] in ".,;" and not text.endswith(("..", "\\,", "\\;")):
            text = text[:-1]
    return text


def _respelt(found: re.Match[str]) -> str:
    name = found[1]
    if name in SIZES:
        return ""
    if name in SPACES:
        return " "
    name = SPELLINGS.get(name, name)
    if name in ("{", "}"):
        return "\\" + name
    return name if not name.isalpha() else "\\" + name + " "


def _braced(argument: str) -> str:
    return argument if argument[0] == "{" else f"{{{argument}}}"


def compact(text: str) -> str:
    """`text` without the spaces that part nothing: `1 2` is not `12`, `x + 1` is `x+1`."""
    return LOOSE.sub("", text)


def split(text: str, separators: str) -> list[str] | None:
    """`text` cut at the separators outside all brackets; None when its brackets do not match.

    Half-open intervals are brackets too: `(` may be closed by `]`.
    """
    pieces: list[str] = []
    opened: list[str] = []
    start = 0
    for at, character in enumerate(text):
        if character in separators and not opened:
            pieces.append(text[start:at])
            start = at + 1
        elif character in OPENING:
            opened.append(OPENING[character])
        elif character in CLOSING and (not opened or opened.pop() != CLOSING[character]):
            return None
    return None if opened else [*pieces, text[start:]]
