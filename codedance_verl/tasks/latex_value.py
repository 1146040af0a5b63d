r"""Values of arithmetic in LaTeX, as MathVision's script finds them with latex2sympy 1.9 and Python's `eval`.

Nothing is evaluated but numbers and operators of a grammar, within bounds, so that hostile text costs microseconds.
Results have the script's peculiarities, as figures depend on them: `/` gives a float; `3\frac{1}{2}` is the product
1.5; powers associate to the left; angles are radians; what stands behind a closing bracket, `_` or `.` is not read; a
letter, `|x|` or `\ln` has no value. Not followed: comparisons (`3<5` counts as 1 there), assignments (`x=5` has a
value there the first time) and the name `\tau`.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping

# Bounds of a text and its nesting; of the bits of a power and the argument of a factorial; of the bits of a value, so
# that Python writes it in digits (4,300 of them at most).
MAX_CHARS = 1_000
MAX_DEPTH = 40
MAX_BITS = 8_192
MAX_FACTORIAL = 1_000
MAX_VALUE_BITS = 14_000

Number = int | float

# `\left`, spaces and signs of currency are skipped.
_SKIPPED = re.compile(r"(?:\\(?:(?:left|right|quad|qquad|displaystyle)(?![a-z])|,)|[\s$~])+")
_NUMBER = re.compile(r"(\d*(?:,\d{3})*\.\d+|\d+(?:,\d{3})*)(\\%)?", re.ASCII)
_COMMAND = re.compile(r"\\(?:[a-z]+|[{}])")

_BRACKETS = {"(": ")", "{": "}", "[": "]", r"\{": r"\}", r"\lfloor": r"\rfloor"}
_MULTIPLICATIVE: Mapping[str, Callable[[Number, Number], Number]] = {
    "*": operator.mul,
    r"\times": operator.mul,
    r"\cdot": operator.mul,
    "/": operator.truediv,
    r"\div": operator.truediv,
    r"\over": operator.truediv,
    ":": operator.truediv,
}
_FUNCTIONS: Mapping[str, Callable[[Number], Number]] = {
    r"\sin": math.sin,
    r"\cos": math.cos,
    r"\tan": math.tan,
    r"\arcsin": math.asin,
    r"\arccos": math.acos,
    r"\arctan": math.atan,
    r"\sinh": math.sinh,
    r"\cosh": math.cosh,
    r"\tanh": math.tanh,
    r"\floor": math.floor,
}
# Signs and words of the grammar that may follow an expression, and end what is read of the text: "4 triangles" is 4.
_ENDS = (")", "}", "]", r"\}", "_", ".", "", r"\choose", r"\to", r"\rightarrow")
_ENDING_WORDS = re.compile(
    "tr|norm|rank|rows|cols|ones|zeros|eye|diag|eig|orth|floor|ceil|gcd|lcm|svd|[pbv]?matrix|nullspace|rref|[hv]stack"
)


class _NoValue(Exception):
    pass


def value_of(text: str) -> Number | None:
    """Value of a formula in lower case, an int or a float that is finite; None for any other text."""
    if len(text) > MAX_CHARS:
        return None
    reader = _Reader(text.replace(r"\dfrac", r"\frac").replace(r"\tfrac", r"\frac"))
    try:
        found = reader.sum()
    except (_NoValue, ArithmeticError, ValueError, TypeError, RecursionError):  # TypeError: a root that is complex
        return None
    return found if reader.ends() and _is_bounded(found) else None


def _is_bounded(value: Number) -> bool:
    return value.bit_length() <= MAX_VALUE_BITS if isinstance(value, int) else math.isfinite(value)


class _Reader:
    """Recursive descent over a text, which it reads once. Methods raise `_NoValue` where it is no arithmetic."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = self._depth = 0

    def peek(self) -> str:
        """Next sign: a character or a command; empty at the end."""
        if skipped := _SKIPPED.match(self._text, self._at):
            self._at = skipped.end()
        if command := _COMMAND.match(self._text, self._at):
            return command.group()
        return self._text[self._at : self._at + 1]

    def ends(self) -> bool:
        """True where nothing more is read."""
        return self.peek() in _ENDS or _ENDING_WORDS.match(self._text, self._at) is not None

    def _take(self, *signs: str) -> bool:
        if (sign := self.peek()) not in signs:
            return False
        self._at += len(sign)
        return True

    def _expect(self, sign: str) -> None:
        if not self._take(sign):
            raise _NoValue

    def _descend(self) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _NoValue

    def sum(self) -> Number:
        self._descend()
        found = self._product()
        while (sign := self.peek()) in ("+", "-"):
            self._at += 1
            other = self._product()
            found = found + other if sign == "+" else found - other
        self._depth -= 1
        return found

    def _product(self, functions: bool = True) -> Number:
        """`functions`: False in the argument of a function without brackets, which ends at the next one."""
        found = self._signed(functions)
        while (operation := _MULTIPLICATIVE.get(sign := self.peek())) is not None:
            self._at += len(sign)
            found = operation(found, self._signed(functions))
        return found

    def _signed(self, functions: bool) -> Number:
        sign = 1
        while (found := self.peek()) in ("+", "-") and found:
            self._at += 1
            sign = -sign if found == "-" else sign
        value = self._with_postfix()
        while self._begins_factor(functions):
            value = value * self._with_postfix()
        return sign * value

    def _begins_factor(self, functions: bool) -> bool:
        sign = self.peek()
        if sign in (r"\log", *_FUNCTIONS):
            return functions
        begins = sign in _BRACKETS or sign in (r"\frac", r"\sqrt", r"\pi", r"\binom", r"\gcd")
        is_letter = sign.isalpha() and not _ENDING_WORDS.match(self._text, self._at)
        return begins or is_letter or _NUMBER.match(self._text, self._at) is not None

    def _with_postfix(self) -> Number:
        value = self._power(self._factor())
        while self._take("!", "'"):
            if self._text[self._at - 1] == "!":
                value = _factorial(value)
        return value

    def _power(self, base: Number) -> Number:
        while self._take("^"):
            # to the left, so that 2^3^2 is 64
            base = _power(base, self._group("{") if self.peek() == "{" else self._atom())
        return base

    def _atom(self) -> Number:
        if self._take(r"\pi"):
            return math.pi
        self.peek()  # skips blanks, so that the number begins where it is looked for
        found = _NUMBER.match(self._text, self._at)
        if found is None:
            raise _NoValue
        self._at = found.end()
        return _decimal(found.group(1)) / 100 if found.group(2) else _decimal(found.group(1))

    def _group(self, opening: str) -> Number:
        self._expect(opening)
        found = self.sum()
        self._expect(_BRACKETS[opening])
        return math.floor(found) if opening == r"\lfloor" else found

    def _factor(self) -> Number:
        sign = self.peek()
        if sign in _BRACKETS:
            return self._group(sign)
        if sign in _FUNCTIONS or sign == r"\log":
            return self._function()
        if self._take(r"\frac"):
            return self._group("{") / self._group("{")
        if self._take(r"\sqrt"):
            degree = self._group("[") if self.peek() == "[" else 2
            return math.sqrt(self._group("{")) if degree == 2 else _power(self._group("{"), 1 / degree)
        if self._take(r"\binom"):
            return _integer(math.comb, self._group("{"), self._group("{"))
        if self._take(r"\gcd"):
            return self._greatest_divisor()
        if self._take("e"):
            self._expect("^")
            return math.exp(self._group("{") if self.peek() == "{" else self._atom())
        return self._atom()

    def _function(self) -> Number:
        name = self.peek()
        self._at += len(name)
        base: Number = 10
        if name == r"\log" and self._take("_"):
            base = self._group("{") if self.peek() == "{" else self._atom()
        exponent: Number = 1
        if self._take("^"):
            exponent = self._group("{") if self.peek() == "{" else self._atom()
        argument = self._group("(") if self.peek() == "(" else self._bare_argument()
        return _power(math.log(argument, base) if name == r"\log" else _FUNCTIONS[name](argument), exponent)

    def _bare_argument(self) -> Number:
        self._descend()
        found = self._product(functions=False)
        self._depth -= 1
        return found

    def _greatest_divisor(self) -> Number:
        self._expect("(")
        first = self.sum()
        self._expect(",")
        second = self.sum()
        self._expect(")")
        return _integer(math.gcd, first, second)


def _decimal(digits: str) -> Number:
    """Number as written, an int where it is whole."""
    digits = digits.replace(",", "")
    if "." not in digits:
        return int(digits)
    value = float(digits)
    return int(value) if value.is_integer() else value


def _integer(function: Callable[[int, int], int], first: Number, second: Number) -> int:
    # of numbers below 0 `comb` raises ValueError, which `value_of` takes for no value
    if not (isinstance(first, int) and isinstance(second, int)) or max(first, second) > MAX_FACTORIAL:
        raise _NoValue
    return function(first, second)


def _factorial(value: Number) -> int:
    if not isinstance(value, int) or value > MAX_FACTORIAL:
        raise _NoValue
    return math.factorial(value)


def _power(base: Number, exponent: Number) -> Number:
    if exponent == 1:
        return base
    # before it is computed: a tower of powers would fill the memory
    if isinstance(base, int) and isinstance(exponent, int) and base.bit_length() * abs(exponent) > MAX_BITS:
        raise _NoValue
    found = base**exponent
    if not isinstance(found, int | float):  # complex, as the root of a number below 0
        raise _NoValue
    return found
