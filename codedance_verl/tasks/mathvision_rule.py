r"""Rule of MathVision's authors, which needs no judge.

An answer is found by fixed phrases, brought into plain LaTeX, and compared as text, then by its value to two decimals.
The authors evaluate what the model wrote with Python's `eval`; here `latex_value` does it. Replies of 14 models, 42,560
in all, get the same answer and the same score as from their script.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from codedance_verl.tasks.item import Item, Score
from codedance_verl.tasks.latex_value import value_of

RULE = "mathvision"

LETTERS = "ABCDE"

# Phrases in front of an answer, looked for in this order where nothing is boxed, each also with a capital T.
_PHRASES = ("the final answer is", "the answer is", "the correct answer is", "the answer should be")

# Removed from what is boxed or all of the reply, in this order, or replaced by the second text.
_FIRST_CHANGES = (
    (" ", ""),
    (r"\,", ""),
    ("\N{INFINITY}", r"\infty"),
    (r"+\infty", r"\infty"),
    ("\\\\", "\\"),
    ("\n", ""),
    (r"\text", ""),
    (r"\mbox", ""),
    ("bmatrix", "pmatrix"),
    (r"\left", ""),
    (r"\right", ""),
    (r"^{\circ}", ""),
    (r"^\circ", ""),
    ("{m}^3", ""),
    ("m^3", ""),
    ("{units}", ""),
    ("units", ""),
    ("{km}", ""),
    ("km", ""),
)
_SECOND_CHANGES = (
    (r"\!", ""),
    ("\\\\", "\\"),
    ("tfrac", "frac"),
    ("dfrac", "frac"),
    (r"\left", ""),
    (r"\right", ""),
    (r"^{\circ}", ""),
    (r"^\circ", ""),
    (r"\$", ""),
    ("$", ""),
    (r"\%", ""),
    ("{.", "{0."),
)
_INTEGERS_WITH_SLASH = re.compile(r"(0|-?[1-9]\d*)/(0|-?[1-9]\d*)", re.ASCII)


def score(item: Item, reply: str) -> Score:
    """Score of a reply by the authors' rule; only text that has no value counts as unequal where they raise errors."""
    if item.truth is None:
        return Score(None, RULE, reason="the item has no truth")
    found = extracted(reply)
    right = is_equal(item.facts["answer"], found) or is_equal(item.facts["option"], found)
    return Score.of(right, RULE, found or None)


def extracted(reply: str) -> str:
    """Answer in a reply, in lower case and plain LaTeX; all of the reply where no phrase or box is found."""
    text = _behind_phrase(_number_behind_is(_leading_or_final_letter(reply.strip())))
    return _marked_letters_bare(_plain(text)).rstrip(".").lstrip(":").strip()


def _leading_or_final_letter(text: str) -> str:
    for letter in LETTERS:
        starts = (f"{letter}\n", f"({letter})\n", f"({letter}) {letter}\n")
        if text.endswith((f" {letter}.", f" ({letter}).")) or text.startswith(starts):
            return letter
    return text


def _number_behind_is(text: str) -> str:
    last = text.split("is ")[-1].rstrip(".")
    try:
        float(last)
    except ValueError:
        return text
    return last


def _behind_phrase(text: str) -> str:
    """What the last box holds, with its mark, or what follows the phrases up to the end of line or sentence."""
    if "oxed{" in text:
        return "\\boxed{" + text.split("oxed{")[-1] if text.count("oxed{") > 1 else text
    for phrase in _PHRASES:
        # without an end at the first hit: a phrase may stand in what follows another one
        for spelled in (phrase, "T" + phrase[1:]):
            before, found, behind = text.rpartition(spelled)
            text = behind.strip().split("\n")[0].split(". ")[0] if found else (before + behind).strip()
    return text


def _plain(text: str) -> str:
    text = text.lower().replace("{}", "")
    opening, closing = text.find("oxed{"), text.rfind("}")
    if opening >= 0 and opening + len("oxed{") <= closing:
        text = text[opening + len("oxed{") : closing]
    if (closing := text.find("}")) >= 0 and not 0 <= text.find("{") < closing:
        text = text[:closing]  # a bracket that closes what is not open
    text = text.split("=")[-1].split(r"\approx")[-1]
    return _plain_latex(_changed(text, _FIRST_CHANGES))


def _plain_latex(text: str) -> str:
    text = _changed(text, _SECOND_CHANGES)
    text = "0" + text if text.startswith(".") else text
    if text.count(r"\approx") == 1:  # one that the removals have made
        text = text.split(r"\approx")[-1]
    if "sqrt" in text:
        text = _braced_fractions(_braced_roots(text))
    if text == "0.5":
        return r"\frac{1}{2}"
    return _INTEGERS_WITH_SLASH.sub(r"\\frac{\1}{\2}", text) if _INTEGERS_WITH_SLASH.fullmatch(text) else text


def _changed(text: str, changes: Sequence[tuple[str, str]]) -> str:
    for old, new in changes:
        text = text.replace(old, new)
    return text


def _braced_roots(text: str) -> str:
    first, *rest = text.split(r"\sqrt")
    return first + "".join(r"\sqrt" + (_braced(one, 1) if one and one[0] != "{" else one) for one in rest)


def _braced_fractions(text: str) -> str:
    r"""Text with `\frac12` as `\frac{1}{2}`; the text as it is where a fraction is cut off."""
    first, *rest = text.split(r"\frac")
    pieces = []
    for one in rest:
        if one.startswith("{"):
            pieces.append(one)
        elif len(one) < 2:
            return text
        else:
            pieces.append(_braced(one, 1) if one[1] == "{" else _braced(one, 2))
    return first + "".join(r"\frac" + piece for piece in pieces)


def _braced(text: str, count: int) -> str:
    return "".join(f"{{{sign}}}" for sign in text[:count]) + text[count:]


def _marked_letters_bare(text: str) -> str:
    for letter in LETTERS.lower():
        text = text.replace(f"({letter})", letter)
    for letter in LETTERS.lower():
        text = text.replace(f"{{{letter}}}", letter)
    return text


def is_equal(gold: str, answer: str) -> bool:
    """True for equal texts, case aside, equal tuples or lists by element, or equal values to two decimals."""
    first, second = gold.lower(), answer.lower()
    if not first.replace(" ", "") or not second.replace(" ", ""):
        return False
    if first.strip() == second.strip():
        return True
    first, second = _rounded_elements(first), _rounded_elements(second)
    if first == second:
        return True
    values = value_of(first), value_of(second)
    return None not in values and round(values[0], 2) == round(values[1], 2)  # type: ignore[arg-type]


def _rounded_elements(text: str) -> str:
    """Tuple or list with its elements' values to two decimals; any other text as it is."""
    elements = text[1:-1].split(",")
    if len(elements) < 2 or text[0] + text[-1] not in ("()", "[]"):
        return text
    rounded = []
    for element in elements:
        if "infty" not in element and element not in ("a", "-a"):
            if (value := value_of(element)) is None:
                return text
            element = str(round(value, 2))
        rounded.append(element)
    return f"{text[0]}{','.join(rounded)}{text[-1]}"
