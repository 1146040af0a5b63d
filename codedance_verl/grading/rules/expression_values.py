"""Values of two formulas at a few points: cheap evidence that they differ, where simplifying may take for ever.

For `expression_worker` alone, as it needs sympy.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

# Where points lie; a root, a logarithm or an arcsine is defined in one of them at least.
RANGES = ((0.1, 0.9), (1.1, 2.9), (-2.9, -0.1), (3.1, 8.9))
POINTS_PER_RANGE = 3
# Decimal digits of the two evaluations; what they disagree about was lost to cancellation.
DIGITS = (40, 100)
# Relative; values that differ by no more may be the same.
CLEAR = 1e-9
# Bound of an argument of a function and of an exponent: an exponential of an exponential takes for ever itself.
LARGEST_ARGUMENT = 10**9


def differ_everywhere(given: Any, truth: Any) -> bool:
    """True if what is given, or a part of it, clearly differs from the truth, or from each of its parts.

    Both are of sympy, parts the elements of a list, set or matrix. Two differ where they do so at each point at which
    both are real and known: what agrees at one is left to sympy, with its signs and branches, as is what is known
    nowhere. Symbols of one name have one value, whatever sympy assumes of them.
    """
    points = _points(sorted({symbol.name for symbol in given.free_symbols | truth.free_symbols}))
    true_values = [[_known_value(part, point) for point in points] for part in _parts(truth)]
    for part in _parts(given):
        values = [_known_value(part, point) for point in points]
        if true_values and all(_apart(values, others) for others in true_values):
            return True
    return False


def ratio_varies(given: Any, truth: Any) -> bool:
    """True if the quotient of two expressions clearly differs from point to point."""
    points = _points(sorted({symbol.name for symbol in given.free_symbols | truth.free_symbols}))
    pairs = [(_known_value(given, point), _known_value(truth, point)) for point in points]
    ratios = [first / second for first, second in pairs if first is not None and second]
    return any(not _alike(ratio, ratios[0]) for ratio in ratios)


def _parts(value: Any) -> list[Any]:
    from sympy import Expr, FiniteSet, MatrixBase, Tuple

    if isinstance(value, Tuple | FiniteSet | MatrixBase):
        return list(value)
    return [value] if isinstance(value, Expr) else []


def _apart(values: Sequence[Any], others: Sequence[Any]) -> bool:
    known = [pair for pair in zip(values, others, strict=True) if None not in pair]
    return bool(known) and not any(_alike(*pair) for pair in known)


def _points(names: Sequence[str]) -> list[dict[str, float]]:
    draw = random.Random(0)  # the same points for the same names: verdicts repeat
    return [{name: draw.uniform(*limits) for name in names} for limits in RANGES for _ in range(POINTS_PER_RANGE)]


def _known_value(expression: Any, point: Mapping[str, float]) -> Any:
    """Value at a point; None where it is not real, not defined or not known well enough."""
    try:
        rough, fine = (_value(expression, point, digits) for digits in DIGITS)
        known = rough.is_real and fine.is_real and fine.is_finite and _alike(rough, fine)
    except Exception:  # sympy raises what it likes outside of a domain and on what has no values
        return None
    return fine if known else None


def _value(expression: Any, point: Mapping[str, float], digits: int) -> Any:
    """Value from the leaves upwards, so that nothing is multiplied out.

    Raises:
        OverflowError: it has too large an exponent, or argument of a function.
    """
    from sympy import Float

    if expression.is_Symbol:
        return Float(point[expression.name], digits)
    values = [_value(part, point, digits) for part in expression.args]
    # sums and products cannot explode; an exponent, and any argument of a function, can
    critical = [] if expression.is_Add or expression.is_Mul else values[1:] if expression.is_Pow else values
    if any(abs(value) > LARGEST_ARGUMENT for value in critical):
        raise OverflowError
    return (expression.func(*values) if values else expression).evalf(digits)


def _alike(first: Any, second: Any) -> bool:
    return bool(abs(first - second) <= CLEAR * max(abs(first), abs(second)))
