"""Compares formulas on request: one JSON line in, one out. The program of `expression_process`; imports math-verify.

Request: {"given": latex, "truth": latex, "tolerance": relative, "seconds": n}. Answer: {"equal": bool}, or
{"equal": null} where the truth cannot be read.
"""

from __future__ import annotations

import logging
import resource
from collections.abc import Mapping
from typing import Any

from codedance_verl.grading.rules.expression_values import differ_everywhere, ratio_varies
from codedance_verl.isolated.loop import Handler, limit, serve

# Address space of this process: sympy grows without end on some formulas.
MEMORY_BYTES = 2 << 30
# Decimal digits to which numbers are evaluated where symbols alone do not decide.
PRECISION = 40
# Relative; two numbers that differ by no more are the same.
NO_DIFFERENCE = 1e-30


def _prepare() -> Handler:
    limit(resource.RLIMIT_AS, MEMORY_BYTES)
    logging.disable(logging.CRITICAL)
    import math_verify  # noqa: F401

    return _answer


def _answer(request: Mapping[str, Any]) -> Mapping[str, Any]:
    _allow_cpu_seconds(float(request["seconds"]))
    return {"equal": compare(request["given"], request["truth"], float(request["tolerance"]))}


def compare(given: str, truth: str, tolerance: float = 0.0) -> bool | None:
    """True if two formulas are equal; False where the given one cannot be read, None where the true one cannot.

    Plain expressions are compared here, numbers within the relative tolerance, as math-verify rounds what is small to
    zero; relations, sets, intervals and matrices by math-verify.
    """
    from math_verify import verify
    from sympy import Eq, Expr, nsimplify, simplify

    right = _parse(truth)
    if right is None:
        return None
    left = _parse(given)
    if left is None:
        return False
    try:
        if left == right:
            return True
        if _is_number(left) and _is_number(right):
            return _close(left, right, 0.0 if right.is_integer else tolerance)
        if isinstance(left, Eq) and isinstance(right, Eq):
            return _same_equation(left, right)
        if differ_everywhere(left, right):
            return False
        if isinstance(left, Expr) and isinstance(right, Expr):
            return bool(simplify(nsimplify(left, rational=True) - nsimplify(right, rational=True)) == 0)
        return bool(verify(right, left, strict=True, float_rounding=12, timeout_seconds=None, raise_on_error=True))
    except MemoryError:
        raise
    except Exception:  # sympy raises what it likes on expressions it cannot handle
        return False


def _parse(latex: str) -> Any:
    from latex2sympy2_extended import latex2sympy
    from latex2sympy2_extended.latex2sympy2 import ConversionConfig
    from sympy import Basic, MatrixBase, nan, zoo
    from sympy.core.relational import Relational

    try:
        # symbols are real unless there may be an imaginary unit; X is another name than x
        config = ConversionConfig(lowercase_symbols=False)
        parsed = latex2sympy(latex, is_real="i" not in latex, conversion_config=config)
    except MemoryError:
        raise
    except Exception:  # the parser raises plain Exception and AttributeError
        return None
    if not isinstance(parsed, Basic | MatrixBase):
        return None
    relations = parsed.atoms(Relational) if isinstance(parsed, Basic) else set()
    if any(not relation.free_symbols for relation in relations) or parsed.has(nan, zoo):
        return None  # "3 = 4" is no answer
    return parsed


def _is_number(value: Any) -> bool:
    from sympy import Expr

    return isinstance(value, Expr) and not value.free_symbols


def _close(left: Any, right: Any, tolerance: float) -> bool:
    from sympy import N, nsimplify

    if not left.is_finite or not right.is_finite:
        return False
    left, right = nsimplify(left, rational=True), nsimplify(right, rational=True)  # decimals as they were written
    # relative to the truth; without a tolerance only what agrees to 30 digits is the same
    limit = max(tolerance, NO_DIFFERENCE) * abs(N(right, PRECISION))
    return bool(abs(N(left - right, PRECISION)) <= limit)


def _same_equation(left: Any, right: Any) -> bool:
    """True if one is the other rearranged: left side less right side, they differ by a constant factor."""
    from sympy import Symbol, nsimplify, simplify

    given, truth = (
        nsimplify(equation.lhs - equation.rhs, rational=True).xreplace(
            {symbol: Symbol(symbol.name, real=True) for symbol in equation.free_symbols}
        )
        for equation in (left, right)
    )
    if given.free_symbols != truth.free_symbols or ratio_varies(given, truth):
        return False
    factor = simplify(given / truth)
    return bool(not factor.free_symbols and factor.is_finite and not factor.is_zero)


def _allow_cpu_seconds(seconds: float) -> None:
    """Lets the kernel end this process when a comparison takes longer, also if its parent is gone."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    limit(resource.RLIMIT_CPU, int(usage.ru_utime + usage.ru_stime + seconds) + 2)


if __name__ == "__main__":
    serve(_prepare)
