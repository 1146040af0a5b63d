"""Chemical formulas, with their numbers on the line, in the index or in LaTeX ("H2O", "H₂O", "H_2O")."""

from __future__ import annotations

import re

# A longer text is no chemical formula.
MAX_CHARS = 60

_ELEMENTS_WORDS = """
    H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr Rb Sr Y Zr
    Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir
    Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr
"""
_ELEMENTS = frozenset(_ELEMENTS_WORDS.split())
_RAISED = re.compile("[\u2070\u00b9\u00b2\u00b3\u2074-\u2079](?![\u207a\u207b])")  # a power, and no charge
_CHARGE = re.compile(r"\^\s*\{?\s*(\d?[+-])\s*\}?\s*$")
_ON_THE_LINE = str.maketrans("₀₁₂₃₄₅₆₇₈₉₊₋⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻\N{MIDDLE DOT}", 2 * "0123456789+-" + ".", "_{}")
# coefficient, elements and groups with their counts, water of crystallisation behind a point, charge
_FORMULA = re.compile(r"\d*(?:[A-Z][a-z]?\d*|\((?:[A-Z][a-z]?\d*)+\)\d*)+(?:\.\d*(?:[A-Z][a-z]?\d*)+)?(?:\d?[+-])?")


def chemical_formula(text: str) -> str | None:
    """Formula on one line ("SO42-" for "SO_4^{2-}") where a text is one with a number in it; else None."""
    if len(text) > MAX_CHARS:
        return None
    text = _CHARGE.sub(r"\1", text)
    if _RAISED.search(text):
        return None
    flat = re.sub(r"\\ce(?![A-Za-z])|(?<=[A-Za-z0-9})])\s+(?=[A-Z(_])", "", text).translate(_ON_THE_LINE)
    if not any(char.isdigit() for char in flat) or not _FORMULA.fullmatch(flat):
        return None
    return flat if all(symbol in _ELEMENTS for symbol in re.findall(r"[A-Z][a-z]?", flat)) else None
