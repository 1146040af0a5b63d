r"""Values of formulas: those of latex2sympy 1.9.1 and Python's `eval`, found once, and bounds for hostile text."""

from __future__ import annotations

import math

import pytest

from codedance_verl.tasks import latex_value
from codedance_verl.tasks.latex_value import value_of

# values to two decimals of latex2sympy2 1.9.1 with sympy 1.14.0; None where it or `eval` raises an error
VALUES = {
    "0.5": 0.5,
    "-1/2": -0.5,
    "5.": 5,
    "5)": 5,
    "5_2": 5,
    "(5": None,
    "5!": 120,
    "3!!": 720,
    "|3|": None,
    r"\sqrt{4}": 2.0,
    r"\sqrt[3]{8}": 2.0,
    r"\sqrt4": None,
    "2^-1": None,
    "2^{-1}": 0.5,
    "2^3^2": 64,
    "2^10": 1024,
    "-2^2": -4,
    "(-2)^2": 4,
    "--3": 3,
    "2*-3": -6,
    "6/2*3": 9.0,
    "1/2/3/4": 0.04,
    r"\frac{6}{2}": 3.0,
    r"\frac12": None,
    r"\frac{1}{0}": None,
    r"3\frac{1}{2}": 1.5,
    "2 3": 6,
    "2(3)": 6,
    "[2]": 2,
    r"2\pi": 6.28,
    r"\pi r": None,
    "e": None,
    "e^2": 7.39,
    r"\ln 2": None,
    r"\log 100": 2.0,
    r"\log_{2}{8}": 3.0,
    r"\sin 30": -0.99,
    r"\sin^2 30": 0.98,
    r"\sin(\pi/2)": 1.0,
    r"\cos\pi": -1.0,
    r"\cot 1": None,
    r"\lfloor 3.5 \rfloor": 3,
    r"\binom{5}{2}": 10,
    r"\gcd(4,6)": 2,
    r"\gamma": None,
    "1,000": 1000,
    "1,00": None,
    "1,2": None,
    "1.2.3": 0.36,
    "10%": None,
    r"10\%": 0.1,
    "$5$": 5,
    r"\$5": None,
    "5 000": 0,
    "3:4": 0.75,
    "3x4": None,
    "2-": None,
    "a": None,
    "(3,4)": None,
    r"\{3\}": 3,
    "1e3": None,
    "5°": None,
    "4^{0.5}": 2.0,
    "(-8)^{1/3}": None,
    "0^0": 1,
    "2.675": 2.67,
    "0.125": 0.12,
    r"1\over2": 0.5,
    "5'2": 10,
    "5 apples": None,
    "4 triangles": 4,
    "27normal{cm}": 27,
    r"2\sqrt{3}^2": 6.0,
    r"5\frac{1}": None,
    "()": None,
    "": None,
    "\N{FULLWIDTH DIGIT FIVE}": None,
}


@pytest.mark.parametrize("text", VALUES)
def test_values_are_those_of_the_script(text: str) -> None:
    found = value_of(text)

    assert (found if found is None else round(found, 2)) == VALUES[text]
    assert type(found if found is None else round(found, 2)) is type(VALUES[text])


def test_large_whole_numbers_are_exact() -> None:
    assert value_of("10^{400}") == 10**400
    assert value_of("3^{2014}+2^{2014}-2") == 3**2014 + 2**2014 - 2


@pytest.mark.parametrize(
    "text",
    [
        "9^{9^{9^{9}}}",
        "9^9^9^9^9",
        "9" * 900 + "^99",
        "99999!",
        "9!!!!",
        "\\binom{99999}{50000}",
        "(" * 400 + "1" + ")" * 400,
        "\\frac{1}{" * 90 + "1" + "}" * 90,
        "-" * 999 + "1",
        "2^{5000}" * 120,
        "2^{4000}" * 4,
        "1000!1000!",
        "\\sin" * 249 + "1",
        "e^{999}",
        "1" * 10_000,
        "\\sqrt{-1}",
        "__import__('os').system('true')",
        "1/0",
        "\\log 0",
        "\x00",
        "\ud800",
    ],
)
def test_hostile_text_has_a_bounded_value_or_none(text: str) -> None:
    found = value_of(text)  # of the first of them it would take for ever

    assert found is None or math.isfinite(float(str(found)))  # Python writes an int of 4,300 digits at most


def test_functions_of_functions_are_counted_like_brackets() -> None:
    assert value_of("\\sin" * 39 + "1") == pytest.approx(_repeated_sine(39))
    assert value_of("\\sin" * 40 + "1") is None


def _repeated_sine(times: int) -> float:
    value = 1.0
    for _ in range(times):
        value = math.sin(value)
    return value


def test_text_that_is_nested_beyond_the_stack_has_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latex_value, "MAX_DEPTH", 1_000)

    assert value_of("(" * 499 + "1" + ")" * 499) is None
