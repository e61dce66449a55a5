r"""The value of an expression tree at one point, exact while all is rational. Refuses before it gets expensive.

Odd roots of negative numbers are the real ones, as schools mean them. `\log` without a base has an unknown base: an
identity must hold for every one.
"""

import threading
from collections.abc import Mapping
from fractions import Fraction
from math import comb, factorial, isqrt
from typing import Any

from rlvr_verifiers.math_syntax import Tree

MAX_BITS = 20_000  # of an exact number; larger ones go on with limited digits
MAX_EXPONENT = 2**20  # of two, in the size of any number
MAX_ARGUMENT = 4_000  # the same, of what a trigonometric function may be asked for
BUDGET = 8_000_000  # bits written in one evaluation; a function counts as FUNCTION numbers
FUNCTION = 30
BASE = Fraction(7919, 1301)  # stands for the base that a \log does not name


class TooLarge(Exception):
    """A number, or a computation, beyond what anybody's answer needs."""


class Undefined(Exception):
    """No value here: a division by zero, the logarithm or the square root of a negative number."""


_local = threading.local()


def context(digits: int) -> Any:
    """mpmath with so many digits: one for each thread, since precision is a setting of the whole context."""
    if not hasattr(_local, "mp"):
        from mpmath import MPContext

        _local.mp = MPContext()
    _local.mp.dps = digits
    return _local.mp


class Arithmetic:
    """One evaluation; `high` and `low` are the binary exponents of the largest and the smallest value on the way.

    Sums do not count, nor what functions return: those may be zero but for rounding.
    """

    def __init__(self, where: Mapping[str, Fraction], imaginary: bool, digits: int):
        self.where, self.imaginary, self.digits = where, imaginary, digits
        self.mp = context(digits)
        self.high, self.low, self.spent = 0, 0, 0

    def of(self, tree: Tree) -> Any:
        kind = tree[0]
        if kind == "num":
            return self.seen(tree[1])
        if kind == "var":
            return self.where[tree[1]]
        if kind in CONSTANTS:
            return CONSTANTS[kind](self.mp)
        arguments = [self.of(part) for part in tree[1:]]
        if kind == "+":
            return self.chained(self.plus, arguments)
        if kind == "*":
            return self.seen(self.chained(self.times, arguments))
        if kind == "neg":
            return -arguments[0]
        if kind in FUNCTIONS:
            self.spend(FUNCTION * self.digits * 4)
            return self.bounded(FUNCTIONS[kind](self, *arguments))
        return self.seen(self.bounded(OPERATIONS[kind](self, *arguments)))

    def spend(self, bits: int) -> None:
        self.spent += bits + 64
        if self.spent > BUDGET:
            raise TooLarge("more work than any answer needs")

    def bounded(self, number: Any) -> Any:
        """`number`, if it may stay; exact ones that have grown too long lose their last digits."""
        if isinstance(number, Fraction):
            bits = number.numerator.bit_length() + number.denominator.bit_length()
            self.spend(bits)
            return number if bits <= MAX_BITS else self.inexact(number)
        self.spend(self.digits * 4)
        if self.mp.isnan(number):
            raise Undefined("not a number")
        if isinstance(number, self.mp.mpc):
            if number.imag == 0:
                number = number.real
            elif not self.imaginary:
                raise Undefined("not real")
        if abs(self.exponent(number)) > MAX_EXPONENT and not self.mp.isinf(number):
            raise TooLarge(f"a number beyond 2^{MAX_EXPONENT}")
        return number

    def exponent(self, number: Any) -> int:
        """About log2 of its size; 0 for zero and infinity."""
        if isinstance(number, Fraction):
            return number.numerator.bit_length() - number.denominator.bit_length() if number else 0
        magnitude = self.mp.mag(number)
        return int(magnitude) if self.mp.isfinite(magnitude) else 0

    def seen(self, number: Any) -> Any:
        size = self.exponent(number)
        self.high, self.low = max(self.high, size), min(self.low, size)
        return number

    def inexact(self, number: Any) -> Any:
        if isinstance(number, Fraction):
            return self.mp.mpf(number.numerator) / number.denominator
        return number

    def both(self, one: Any, other: Any) -> tuple[Any, Any]:
        if isinstance(one, Fraction) and isinstance(other, Fraction):
            return one, other
        return self.inexact(one), self.inexact(other)

    def chained(self, operation: Any, numbers: list[Any]) -> Any:
        total = numbers[0]
        for number in numbers[1:]:
            total = self.bounded(operation(total, number))
        return total

    def plus(self, one: Any, other: Any) -> Any:
        one, other = self.both(one, other)
        return one + other

    def times(self, one: Any, other: Any) -> Any:
        one, other = self.both(one, other)
        return one * other

    def over(self, one: Any, other: Any) -> Any:
        one, other = self.both(one, other)
        if other == 0 or self.is_noise(other):
            raise Undefined("a division by zero")
        return one / other

    def is_noise(self, number: Any) -> bool:
        """Zero but for rounding."""
        return not isinstance(number, Fraction) and abs(number) < self.mp.ldexp(1, self.low - 3 * self.digits)

    def power(self, base: Any, exponent: Any) -> Any:
        if isinstance(exponent, Fraction) and exponent.denominator == 1:
            return self.whole_power(base, exponent.numerator)
        if isinstance(exponent, Fraction):
            if exponent.denominator > 64 or abs(exponent.numerator) > 10_000:
                return self.general_power(base, exponent)
            return self.whole_power(self.root(base, Fraction(exponent.denominator)), exponent.numerator)
        return self.general_power(base, exponent)

    def whole_power(self, base: Any, exponent: int) -> Any:
        if base == 0 and exponent <= 0:
            raise Undefined("0 to the power 0, or a division by zero")
        size = self.exponent(base)
        if isinstance(base, Fraction):
            bits = base.numerator.bit_length() + base.denominator.bit_length()
            if base in (0, 1, -1) or bits * abs(exponent) <= MAX_BITS:
                return base ** (exponent if base not in (1, -1) else exponent % 2)
            size = max(base.numerator.bit_length(), base.denominator.bit_length())
        if (abs(size) + 1) * abs(exponent) > MAX_EXPONENT:
            raise TooLarge(f"a power beyond 2^{MAX_EXPONENT}")
        return self.inexact(base) ** exponent

    def general_power(self, base: Any, exponent: Any) -> Any:
        base, exponent = self.inexact(base), self.inexact(exponent)
        if base == 0:
            raise Undefined("a power of zero")
        if not self.imaginary and base < 0:
            raise Undefined("a power of a negative number")
        if abs(exponent) * (abs(self.exponent(base)) + 1) > MAX_EXPONENT:
            raise TooLarge(f"a power beyond 2^{MAX_EXPONENT}")
        self.spend(FUNCTION * self.digits * 4)
        return self.mp.power(base, exponent)

    def root(self, number: Any, index: Any) -> Any:
        """The real root where there is one; exact where the number is the power of a rational."""
        if not isinstance(index, Fraction) or index.denominator != 1 or not 1 <= index <= 64:
            if isinstance(index, Fraction) and index == 0:
                raise Undefined("a root of index 0")
            return self.general_power(number, self.over(Fraction(1), index))
        n = index.numerator
        real = isinstance(number, Fraction) or not isinstance(number, self.mp.mpc)
        if real and number < 0:
            if n % 2:
                return -self.root(-number, index)
            if not self.imaginary:
                raise Undefined("an even root of a negative number")
        if isinstance(number, Fraction) and number >= 0:
            above, below = exact_root(number.numerator, n), exact_root(number.denominator, n)
            if above is not None and below is not None:
                return Fraction(above, below)
        self.spend(self.digits * 16)
        return self.mp.root(self.inexact(number), n)

    def factorial(self, number: Any) -> Any:
        n = self.natural(number, 100_000)
        return Fraction(factorial(n)) if n <= 2_500 else self.mp.factorial(n)

    def binomial(self, above: Any, below: Any) -> Any:
        if isinstance(above, Fraction) and above.denominator > 1 and below in range(1, 21):  # of a symbol: a polynomial
            return self.chained(self.times, [(above - i) / (i + 1) for i in range(int(below))])
        return Fraction(comb(self.natural(above, 5_000), self.natural(below, 5_000)))

    def natural(self, number: Any, most: int) -> int:
        if not isinstance(number, Fraction) or number.denominator != 1 or number < 0:
            raise Undefined("no natural number")
        if number > most:
            raise TooLarge(f"{most} is the largest that is computed")
        return number.numerator

    def floor(self, number: Any) -> Any:
        if isinstance(number, Fraction):
            return Fraction(number.numerator // number.denominator)
        if not isinstance(number, self.mp.mpf) or self.mp.mag(number) > self.digits:
            raise Undefined("a floor that is not certain")
        return Fraction(int(self.mp.floor(number)))

    def absolute(self, number: Any) -> Any:
        return abs(number)

    def logarithm(self, number: Any) -> Any:
        number = self.inexact(number)
        if number == 0 or (not self.imaginary and number < 0):
            raise Undefined("the logarithm of a number that is not positive")
        return self.mp.log(number)

    def exponential(self, number: Any) -> Any:
        if self.exponent(number) > 20:
            raise TooLarge("an exponential")
        return self.mp.exp(self.inexact(number))

    def to_the_base(self, number: Any, base: Any) -> Any:
        if isinstance(number, Fraction) and isinstance(base, Fraction) and base > 1 and number > 0:
            exponent = self.nearest(self.over(self.logarithm(number), self.logarithm(base)))
            if abs(exponent) <= 2_000 and self.whole_power(base, exponent) == number:
                return Fraction(exponent)
        return self.over(self.logarithm(number), self.logarithm(base))

    def nearest(self, number: Any) -> int:
        try:
            return round(float(number))
        except (OverflowError, ValueError) as error:
            raise TooLarge("a logarithm") from error

    def call(self, name: str, number: Any) -> Any:
        if self.exponent(number) > MAX_ARGUMENT:
            raise TooLarge("an argument of a trigonometric function")
        try:
            return getattr(self.mp, name)(self.inexact(number))
        except ZeroDivisionError as error:
            raise Undefined("a pole") from error


def exact_root(number: int, n: int) -> int | None:
    if n == 2:
        root = isqrt(number)
    elif number.bit_length() > 1_000:
        return None
    else:
        root = round(number ** (1 / n)) if number.bit_length() < 50 else _newton(number, n)
    return root if root**n == number else None


def _newton(number: int, n: int) -> int:
    root = 1 << -(-number.bit_length() // n)
    while True:
        better = ((n - 1) * root + number // root ** (n - 1)) // n
        if better >= root:
            return root
        root = better


def _called(name: str) -> Any:
    return lambda self, number: self.call(name, number)


CONSTANTS: dict[str, Any] = {
    "pi": lambda mp: +mp.pi, "e": lambda mp: +mp.e, "i": lambda mp: mp.mpc(0, 1), "infty": lambda mp: mp.inf,
    "base": lambda mp: BASE, "degree": lambda mp: mp.pi / 180,
}  # fmt: skip
OPERATIONS: dict[str, Any] = {
    "inverse": lambda self, number: self.over(Fraction(1), number), "/": Arithmetic.over, "^": Arithmetic.power,
    "root": Arithmetic.root, "sqrt": lambda self, number: self.root(number, Fraction(2)), "!": Arithmetic.factorial,
    "binom": Arithmetic.binomial, "abs": Arithmetic.absolute, "exp": Arithmetic.exponential,
}  # fmt: skip
FUNCTIONS: dict[str, Any] = {
    "floor": Arithmetic.floor, "ceil": lambda self, number: -self.floor(-number), "ln": Arithmetic.logarithm,
    "log": Arithmetic.to_the_base, "arcsin": _called("asin"), "arccos": _called("acos"), "arctan": _called("atan"),
} | {name: _called(name) for name in ("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh")}  # fmt: skip
