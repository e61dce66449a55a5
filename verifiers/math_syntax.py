r"""LaTeX of one scalar expression -> a tree, or Unreadable. Strict: what could be read in two ways is not read at all.

    "2x^{2}-\frac{1}{3}" -> ("+", ("*", ("num", 2), ("^", ("var", "x"), ("num", 2))), ("neg", ("/", 1, 3)))

math-verify's grammar skips what it does not know, which is how wrong answers become right; this one refuses. Knows no
values: `math_values` computes.
"""

import re
from fractions import Fraction
from functools import lru_cache
from typing import Any

Tree = tuple[Any, ...]

MAX_DEPTH = 60
TOKEN = re.compile(
    r"\s+|([0-9]+(?:\.[0-9]+)?|\.[0-9]+)|(\\[A-Za-z]+|\\[{}|])|(sqrt|infinity|arcsin|arccos|arctan|sin|cos|tan|ln|log|exp|pi)(?![A-Za-z])"
    r"|([A-Za-z])|([-+*/^_(){}\[\]|!'])"
)
GREEK = set(
    re.findall(
        r"\w+",
        """
        alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta kappa lambda mu nu xi rho sigma tau phi varphi
        chi psi omega Gamma Delta Theta Lambda Xi Sigma Phi Psi Omega ell
        """,
    )
)
TRIGONOMETRIC = {"sin", "cos", "tan", "cot", "sec", "csc"}
FUNCTIONS = TRIGONOMETRIC | {"arcsin", "arccos", "arctan", "sinh", "cosh", "tanh", "ln", "exp"}
NAMES = FUNCTIONS | {"log", "sqrt", "pi"}  # as plain words too
CLOSED_BY = {"(": ")", "[": "]", "\\{": "\\}", "{": "}", "\\lfloor": "\\rfloor", "\\lceil": "\\rceil", "|": "|"}
STARTS = {"(", "[", "{", "\\lfloor", "\\lceil", "\\frac", "\\sqrt", "\\binom", "\\pi", "\\infty", "\\text"}
ARGUMENT_ENDS = {"(", "[", "{", "|", "\\lfloor", "\\lceil"}


class Unreadable(Exception):
    """Not one scalar expression, or one that could mean two things."""


class Foreign(Unreadable):
    """Mathematics, as far as one can tell, but beyond this reader or open to two readings."""


@lru_cache(maxsize=4096)
def tree(text: str) -> Tree:
    reader = _Reader(_tokens(text))
    found = reader.sum()
    if reader.at < len(reader.tokens):
        raise Unreadable(f"{reader.peek()!r} is not expected here")
    return found


def _tokens(text: str) -> list[str]:
    tokens, at = [], 0
    while at < len(text):
        found = TOKEN.match(text, at)
        if found is None:
            raise Unreadable(f"{text[at]!r}")
        if found[3]:
            tokens.append("\\infty" if found[3] == "infinity" else "\\" + found[3])
        elif found[0].strip():
            tokens.append(found[0])
        at = found.end()
    return tokens


class _Reader:
    """Recursive descent: sum > product > signed > power > atom."""

    def __init__(self, tokens: list[str]):
        self.tokens, self.at, self.depth = tokens, 0, 0
        self.bars = 0  # open |...|: a bar then closes

    def peek(self, ahead: int = 0) -> str:
        at = self.at + ahead
        return self.tokens[at] if at < len(self.tokens) else ""

    def take(self, expected: str = "") -> str:
        token = self.peek()
        if not token or (expected and token != expected):
            raise Unreadable(f"{token!r} where {expected or 'more'} was expected")
        self.at += 1
        return token

    def sum(self) -> Tree:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Unreadable(f"deeper than {MAX_DEPTH}")
        terms = [self.product()]
        while self.peek() in ("+", "-"):
            terms.append(self.product() if self.take() == "+" else ("neg", self.product()))
        self.depth -= 1
        return terms[0] if len(terms) == 1 else ("+", *terms)

    def product(self) -> Tree:
        sign = self.signs()
        factors = [self.juxtaposed()]
        while self.peek() in ("*", "\\cdot", "\\times", "/", "\\div"):
            divide = self.take() in ("/", "\\div")
            negative = self.signs()
            factor = self.juxtaposed()
            if divide and factor[0] == "*":
                raise Foreign("a/bc is read in two ways")
            factor = ("neg", factor) if negative else factor
            factors.append(("inverse", factor) if divide else factor)
        total = factors[0] if len(factors) == 1 else ("*", *factors)
        return ("neg", total) if sign else total

    def signs(self) -> bool:
        negative, seen = False, 0
        while self.peek() in ("+", "-"):
            negative ^= self.take() == "-"
            seen += 1
        if seen > 2:
            raise Unreadable("three signs in a row")
        return negative

    def juxtaposed(self) -> Tree:
        """Factors side by side; `2\\frac{1}{3}` is a mixed number, `2 3` nothing."""
        begun = self.at
        factors = [self.power()]
        whole = self.at - begun == 1 and factors[0][0] == "num" and factors[0][1].denominator == 1
        while self.starts_factor():
            token, before = self.peek(), self.tokens[begun]
            if token[0].isdigit() or token[0] == ".":
                raise Unreadable("a number right behind a factor")
            if before[1:] in FUNCTIONS | {"log"} and token in ("(", "[", "{") and self.tokens[self.at - 1] not in ")]":
                raise Foreign("sin x(y) is read in two ways")
            begun = self.at
            factors.append(self.power())
            if token == "\\frac" and factors[-2][0] in ("num", "/") and is_fraction(factors[-1]):
                fraction = factors.pop()
                if not whole or fraction[1][1] >= fraction[2][1] or self.starts_factor():
                    raise Foreign("no mixed number, and no product that one would write")
                factors[-1] = ("+", factors[-1], fraction)
            whole = False
        return factors[0] if len(factors) == 1 else ("*", *factors)

    def starts_factor(self) -> bool:
        token = self.peek()
        if token == "|":
            return self.bars == 0
        return token in STARTS or token[:1].isalnum() or token[:1] == "." or token[1:] in GREEK | NAMES

    def power(self) -> Tree:
        base = self.atom()
        raised = False
        while self.peek() in ("!", "^", "'"):
            if self.peek() == "^":
                if raised:
                    raise Unreadable("a double superscript")
                self.take()
                if self.peek() == "\\circ" or self.tokens[self.at : self.at + 3] == ["{", "\\circ", "}"]:
                    self.at += 1 if self.peek() == "\\circ" else 3
                    base = ("*", base, ("degree",))
                else:
                    base = ("^", base, self.argument(exponent=True))
                raised = True
            elif self.take() == "!":
                if base[0] == "!":
                    raise Unreadable("a double factorial, or a factorial of one")
                base, raised = ("!", base), False
            else:
                if base[0] != "var":
                    raise Unreadable("a prime behind what is no name")
                base = ("var", base[1] + "'")
        return base

    def argument(self, exponent: bool = False) -> Tree:
        """What a command or a superscript takes: a group, or one token."""
        if self.peek() == "{":
            return self.group("{")
        if exponent and self.peek() in ("-", "+"):
            return ("neg", self.atom()) if self.take() == "-" else self.atom()
        token = self.peek()
        if not exponent and len(token) > 1 and token.isdigit():  # \\sqrt23 is typeset as the root of 2, times 3
            raise Unreadable("digits behind a command without braces")
        return self.atom()

    def group(self, opening: str) -> Tree:
        self.take(opening)
        bars, self.bars = self.bars, int(opening == "|")
        inside = self.sum()
        self.take(CLOSED_BY[opening])
        self.bars = bars
        return inside

    def atom(self) -> Tree:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Unreadable(f"deeper than {MAX_DEPTH}")
        found = self._atom()
        self.depth -= 1
        return found

    def _atom(self) -> Tree:
        token = self.peek()
        if token in ("(", "[", "{"):
            return self.group(token)
        if token == "|":
            return ("abs", self.group("|"))
        if token in ("\\lfloor", "\\lceil"):
            return (token[2:], self.group(token))
        self.take()
        if token[0].isdigit() or token[0] == ".":
            if self.peek() == "_":
                raise Unreadable("a number in another base")
            return ("num", Fraction(token))
        if token == "\\frac":
            return ("/", self.argument(), self.argument())
        if token == "\\binom":
            return ("binom", self.argument(), self.argument())
        if token == "\\sqrt":
            if self.peek() == "[":
                index = self.group("[")
                return ("root", self.argument(), index)
            return ("sqrt", self.argument())
        if token in ("\\pi", "\\infty"):
            return (token[1:],)
        if token[1:] in FUNCTIONS | {"log"}:
            return self.function(token[1:])
        if token.isalpha() or token[1:] in GREEK:
            return self.name(token.lstrip("\\"))
        if token == "\\text":
            return self.name(self.letter())
        raise (Foreign if token[0] == "\\" else Unreadable)(f"{token!r}")

    def letter(self) -> str:
        self.take("{")
        letter = self.take()
        self.take("}")
        if not letter.isalpha():
            raise Unreadable("words")
        return letter

    def name(self, name: str) -> Tree:
        if self.peek() == "_":
            self.take()
            subscript = self.take()
            if subscript == "{":
                inside = []
                while self.peek() not in ("}", ""):
                    inside.append(self.take())
                self.take("}")
                subscript = "".join(inside)
            if not re.fullmatch(r"[A-Za-z0-9+\-,]{1,12}|\\[a-z]{1,8}", subscript):
                raise Unreadable("a subscript")
            return ("var", f"{name}_{subscript}")
        if name in "fgh" and self.peek() == "(":
            raise Foreign("a function of unknown name")
        return ("i",) if name == "i" else ("e",) if name == "e" else ("var", name)

    def function(self, name: str) -> Tree:
        base = None
        raised = None
        if name == "log" and self.peek() == "_":
            self.take()
            base = self.argument(exponent=True)
        if self.peek() == "^":
            self.take()
            raised = self.argument(exponent=True)
            if raised == ("neg", ("num", Fraction(1))) and name in ("sin", "cos", "tan"):
                name, raised = "arc" + name, None
            elif raised[0] != "num" or name not in TRIGONOMETRIC | {"ln", "log"}:
                raise Foreign("a power of a function")
        inside = self.function_argument()
        applied: Tree = (name, inside) if name != "log" else ("log", inside, base or ("base",))
        return ("^", applied, raised) if raised else applied

    def function_argument(self) -> Tree:
        if self.peek() in ("(", "[", "{", "|"):
            inside = self.atom()
            if self.peek() == "^":
                raise Foreign("f(x)^2 is read in two ways")
            return inside
        factors = [self.power()]
        while self.starts_factor() and self.peek() not in ARGUMENT_ENDS and self.peek()[1:] not in FUNCTIONS | {"log"}:
            if self.peek()[0].isdigit():
                raise Unreadable("a number right behind a factor")
            factors.append(self.power())
        return factors[0] if len(factors) == 1 else ("*", *factors)


def is_fraction(tree: Tree) -> bool:
    return tree[0] == "/" and tree[1][0] == tree[2][0] == "num"
