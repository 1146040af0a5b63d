r"""Matcher: the same formula, equation, interval or matrix (`math-verify`), in LaTeX or as typed ("sqrt(2)/2").

math-verify is generous: it drops units and primes, reads "1 1/2" as 1 and holds 3 = 4 and 7 = 8 for the same. So both
sides must first be formulas from end to end, of known commands and short names, with as many parts and relations as
each other. The comparison itself may run for ever and is done in a process of its own (`expression_process`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from codedance_verl.grading import question_kind as asks
from codedance_verl.grading.context import STRICT, Context
from codedance_verl.grading.rules.asked_names import strip_name
from codedance_verl.grading.rules.dates import parse_date
from codedance_verl.grading.rules.expression_process import NoResult, shared_process
from codedance_verl.grading.rules.labels import is_label
from codedance_verl.grading.rules.latex import depth, to_plain, unwrap
from codedance_verl.grading.rules.normalise import ascii_digits
from codedance_verl.grading.rules.ordinals import parse_ordinal
from codedance_verl.grading.rules.typed_formula import to_latex
from codedance_verl.grading.rules.units import DEGREE, Unit, names_unit, parse_unit
from codedance_verl.types import Grade, Verdict

RULE = "math"

# Bounds of a formula: characters, nested brackets, digits of one number. Beyond them an answer is none.
MAX_CHARS = 300
MAX_DEPTH = 12
MAX_DIGITS = 30

# Commands that math-verify reads as they are meant; with any other a text is no formula, and nothing is dropped.
_KNOWN = """
    frac dfrac tfrac sqrt pi cdot times div pm mp infty left right leq le geq ge neq ne lt gt log ln exp sin cos tan
    cot sec csc arcsin arccos arctan sinh cosh tanh alpha beta gamma delta epsilon theta lambda mu nu phi varphi psi rho
    sigma tau omega xi eta zeta kappa Delta Omega cup cap emptyset varnothing binom begin end in mathbb circ degree
    overline bar min max gcd lcm equiv lbrace rbrace vert lvert rvert quad qquad displaystyle text mathrm
"""
_COMMANDS = frozenset(_KNOWN.split())
_SEPARATING_WORDS = frozenset({"or", "and"})
# math-verify drops primes, so that f' would be f: they go into the index
_PRIMED = re.compile(r"([A-Za-z])(?:_\{?(\w+)\}?)?('+)")
_COMMAND = re.compile(r"\\([A-Za-z]+)|\\(.)", re.DOTALL)
_ENVIRONMENT = re.compile(r"\\(?:begin|end)\{([a-z]*matrix)\}")
_RELATION = re.compile(r"\\(?:leq|le|geq|ge|neq|ne|lt|gt|in|equiv)(?![A-Za-z])|[<>=]")
# a question that asks for one form of an equation: rearranging it is the task
_ASKS_FORM = re.compile(
    r"\b(?:solve|in\s+terms\s+of|as\s+a\s+function|subject|rearrange\w*|isolate|form|express\w*|explicit\w*)\b",
    re.IGNORECASE,
)
_ASSIGNED = re.compile(r"\s*([A-Za-z](?:_\{?\w\}?)?|f\(x\))\s*(?:=|\\in(?![A-Za-z]))\s*(?=\S)")
# no other character: what the parser skips would be ignored
_ALLOWED = re.compile(r"[A-Za-z0-9\s+\-*/^_=<>(){}\[\],;.!|\\&:]*")
_LOOKS_LIKE_MATH = re.compile(
    r"[\u2200-\u2265\u00b7\u00d7\u00f7\u00b1\u00b2\u00b3\u00bc-\u00be\u2070-\u2079\u2080-\u2089\u03b1-\u03c9]|\bsqrt\b|\bpi\b|\|[^|]+\||"
    r"\\[A-Za-z]+|[\^=<>]|\d\s*[-+*/]|[-+*/]\s*\d|\d[A-Za-z]|[A-Za-z]\d|[(\[].*,.*[)\]]|\d!"
)
_BARE_NUMBER = re.compile(r"[-+]?[\d.,]*\d")
_DATE_OR_RANGE = re.compile(r"\d+(?:\s*[-/.:\N{EN DASH}]\s*\d+)+")
# towers of powers, exponents of five digits, factorials of four: working them out takes for ever
_HUGE = re.compile(r"\d\s*\^\s*\{?\s*\d+\s*\^|\^\s*\{?\s*-?\d{5}|\d{4,}\s*!|!\s*!")
_UNIT_BEHIND = re.compile(
    r"(?P<formula>.*\S)\s*(?P<unit>\\(?:text|mathrm)\s*\{[^{}]+\}(?:\s*\^\s*\{?-?\d\}?)?"
    r"|(?<=\s)[A-Za-z]{1,3}[\N{SUPERSCRIPT TWO}\N{SUPERSCRIPT THREE}]?(?:\^\d)?)",
    re.DOTALL,
)
# 1,000 is one number, and no pair
_GROUPED_NUMBER = re.compile(r"[-+]?\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_EXPONENT = re.compile(r"\A([-+]?\d+(?:\.\d+)?)[eE]\+?(-?\d{1,3})\Z")
# "3x4" and "x1" are read as products
_SIZE = re.compile(r"\d+\s*[xX]\s*\d+")
_INDEXED = re.compile(r"[A-Za-z]+\s?\d+")
# math-verify reads "1 1/2" as 1
_TWO_NUMBERS = re.compile(r"(?<![_\d])\d+\s+[\d.]")


@dataclass(frozen=True)
class Formula:
    """A formula in the LaTeX that math-verify reads, the variable that it was assigned to, and its shape.

    `whole` is the formula with its assignment.
    """

    latex: str
    variable: str
    parts: int
    relations: int
    whole: str = ""


def parse_formula(text: str) -> Formula | None:
    """Reads a text that is a formula from end to end; None for anything else, and beyond the bounds."""
    latex = ascii_digits(unwrap(text)).strip().rstrip(".,;").strip()
    if len(latex) > MAX_CHARS or depth(latex) > MAX_DEPTH or re.search(rf"\d{{{MAX_DIGITS + 1}}}", latex):
        return None
    whole = _PRIMED.sub(_as_subscript, to_latex(_plain_number(latex)))
    if not _is_formula(whole):
        return None
    latex, variable = _without_assignment(whole)
    # the shape, which both sides must share: math-verify accepts one answer for several
    bare = _ENVIRONMENT.sub("", latex)
    parts = 1 + len(re.findall(r"[,;]|\\pm(?![A-Za-z])|\b(?:or|and)\b", bare))
    return Formula(latex, variable, parts, len(_RELATION.findall(bare)), whole)


def compare(answer: str, ground_truth: str, context: Context = STRICT) -> Grade | None:
    """Applies where the ground truth is a formula; an answer that is none is then wrong.

    `UNGRADED` where the comparison did not end in time or could not be made.
    """
    question = context.question
    if _DATE_OR_RANGE.fullmatch(ground_truth.strip()) or is_label(ground_truth, question):
        return None
    if parse_ordinal(ground_truth, question) is not None or parse_date(ground_truth, question) is not None:
        return None
    if not _LOOKS_LIKE_MATH.search(ground_truth) and not _BARE_NUMBER.fullmatch(to_plain(ground_truth).strip()):
        return None
    if not _RELATION.search(to_latex(ground_truth)):
        if (named := strip_name(answer, question)) is None:
            return Grade(Verdict.WRONG, RULE, "the value of another name")
        answer = named
    if _SIZE.fullmatch(answer.strip()) or (_INDEXED.fullmatch(answer.strip()) and not asks.asks_formula(question)):
        return Grade(Verdict.WRONG, RULE, "a label, and no formula")
    return compare_formulas(answer, ground_truth, context)


def compare_formulas(answer: str, ground_truth: str, context: Context = STRICT) -> Grade | None:
    """Compares as `compare`, also where only the record says that the truth is a formula, such as "x"."""
    true_formula, true_unit = _split_unit(unwrap(ground_truth))
    if (truth := parse_formula(true_formula)) is None:
        return None
    given_formula, given_unit = _split_unit(unwrap(answer))
    if (given := parse_formula(given_formula)) is None:
        return Grade(Verdict.WRONG, RULE, "not one formula")
    if not _units_agree(given_unit, true_unit, context.question):
        return Grade(Verdict.WRONG, RULE, "another unit")
    given, truth = _as_equations(given, truth, answer, context.question)
    other_name = given.variable and truth.variable and given.variable != truth.variable
    if other_name or (given.parts, given.relations) != (truth.parts, truth.relations):
        return Grade(Verdict.WRONG, RULE, f"{given.latex!r} is built differently from {truth.latex!r}")
    try:
        same = shared_process().equal(given.latex, truth.latex, context.relative_tolerance, context.math_timeout_s)
    except NoResult as reason:
        return Grade(Verdict.UNGRADED, RULE, str(reason))
    return None if same is None else Grade.of(same, RULE, f"{given.latex!r} against {truth.latex!r}")


def _as_subscript(found: re.Match[str]) -> str:
    """Symbol with its primes in its index: "x_1'" becomes "x_{1p}"."""
    return f"{found.group(1)}_{{{found.group(2) or ''}{'p' * len(found.group(3))}}}"


def _as_equations(given: Formula, truth: Formula, answer: str, question: str) -> tuple[Formula, Formula]:
    """Formulas with their assignments, where one is solved for a name and the other is an equation in the same names.

    Not where the truth is a value ("x = 5": an equation still to be solved is no answer), nor where the question asks
    for a form, or has the very equation in it.
    """
    if bool(given.variable) == bool(truth.variable) or given.parts != 1 or truth.parts != 1:
        return given, truth
    solved, other = (given, truth) if given.variable else (truth, given)
    names = re.findall(r"(?<![\\A-Za-z])[A-Za-z]", re.sub(r"\\[A-Za-z]+", " ", solved.latex))
    swapped = re.fullmatch(rf".*=\s*{re.escape(solved.variable)}\s*", other.latex, re.DOTALL) is not None
    if other.relations != 1 or "=" not in other.latex or not (names or swapped):
        return given, truth
    if not swapped and (_squeezed(answer) in _squeezed(question) or _ASKS_FORM.search(question)):
        return given, truth
    return tuple(replace(one, latex=one.whole, variable="", relations=1) for one in (given, truth))  # type: ignore[return-value]


def _plain_number(text: str) -> str:
    """A number without the commas that group its digits, and with a power of ten for its exponent."""
    if _GROUPED_NUMBER.fullmatch(text):
        return text.replace(",", "")
    return _EXPONENT.sub(r"\1\\times 10^{\2}", text)


def _squeezed(text: str) -> str:
    return re.sub(r"[\s$*{}]|\\[()\[\],;! ]", "", text)


def _split_unit(text: str) -> tuple[str, Unit | None]:
    """Formula and the unit behind it, if there is one."""
    found = _UNIT_BEHIND.fullmatch(text.strip().rstrip("."))
    unit = parse_unit(to_plain(found.group("unit"))) if found else None
    return (found.group("formula"), unit) if found and unit else (text, None)


def _units_agree(given: Unit | None, truth: Unit | None, question: str) -> bool:
    if given is None or truth is None:
        extra = given or truth
        return extra is None or extra == DEGREE or names_unit(question, extra)
    return given == truth


def _is_formula(latex: str) -> bool:
    """True for known commands, allowed characters, short names alone, and no two numbers side by side."""
    if not latex or not _ALLOWED.fullmatch(latex) or _TWO_NUMBERS.search(latex) or _HUGE.search(latex):
        return False
    for name, sign in _COMMAND.findall(latex):
        if (name and name not in _COMMANDS) or (sign and sign not in "{}|\\ "):
            return False
    if re.search(r"\\(?:text|mathrm)(?![A-Za-z])", latex):
        return False
    bare = _ENVIRONMENT.sub(" ", latex)
    if "\\begin" in bare or "\\end" in bare:
        return False
    words = re.findall(r"[A-Za-z]+", re.sub(r"\\[A-Za-z]+", " ", bare))
    return all(len(word) <= 2 or word in _SEPARATING_WORDS for word in words)


def _without_assignment(latex: str) -> tuple[str, str]:
    """Removes "x =" in front, of every part where each has it; returns the rest and the variable."""
    parts = re.split(r"\s*(?:[,;]|\bor\b|\band\b)\s*", latex)
    found = [_ASSIGNED.match(part) for part in parts]
    nested_comma = re.search(r"[(\[{][^()\[\]{}]*,", latex)
    if not found[0] or nested_comma:
        single = _ASSIGNED.match(latex)
        if single is None or _RELATION.search(latex[single.end() :]):
            return latex, ""
        return latex[single.end() :], single.group(1)
    names = {match.group(1) for match in found if match}
    bodies = [part[match.end() :] if match else part for part, match in zip(parts, found, strict=True)]
    if len(names) > 1 or any(_RELATION.search(body) for body in bodies):
        return latex, ""
    return ", ".join(bodies), names.pop()
