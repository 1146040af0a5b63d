"""Ground truths as data sets write them: with the tags and marks of a solution, or as the text of a Python list.

"<answer>7</answer>", "... #### 7" and a solution with one boxed result are what they mark. "['red', 'crimson']" is a
list of texts (`str` of a list or of a NumPy array, or JSON).
"""

from __future__ import annotations

import ast
import contextlib
import json
import re

from codedance_verl.grading import question_kind as asks
from codedance_verl.grading.context import Context
from codedance_verl.grading.rules.choice import compare_options
from codedance_verl.grading.rules.normalise import normalise
from codedance_verl.grading.rules.number import parse_quantity
from codedance_verl.grading.rules.options import parse_choice
from codedance_verl.grading.rules.sequence import compare_lists, compare_sets
from codedance_verl.types import Grade, Verdict

LIST_RULE = "list"

# Bounds of a list: characters and items; beyond them a text is none.
MAX_LIST_CHARS = 4_000
MAX_ITEMS = 64

_TAGGED = re.compile(r"<answer>\s*(.*?)\s*</answer>\s*", re.DOTALL | re.IGNORECASE)
# GSM8K ends its solutions so
_HASHES = re.compile(r"(?:^|\s)####\s*(\S[^\n]*?)\s*$")
_BOXED = re.compile(r"\\boxed\s*\{")
_ARRAY = re.compile(r"(?:np\.)?array\((\[.*?\])(?:,\s*dtype=[^()]*)?\)", re.DOTALL)
_QUOTED = re.compile(r"'[^'\\]*'|\"[^\"\\]*\"")


def unmarked(ground_truth: str) -> str:
    """Answer that a ground truth marks with tags, hashes or a box; itself, where nothing is marked."""
    text = ground_truth.strip()
    if len(tagged := _TAGGED.findall(text)) == 1 and tagged[0]:
        text = tagged[0]
    if found := _HASHES.search(text):
        text = found.group(1)
    # several boxes may be steps or several answers
    if len(boxes := list(_BOXED.finditer(text))) == 1 and not text.startswith("\\boxed"):
        inner = _braced(text, boxes[0].end())
        text = inner if inner is not None and _is_prose(text[: boxes[0].start()]) else text
    return text


def list_of(ground_truth: str) -> tuple[str, ...] | None:
    """Items of a text that is a Python list of texts, also of a NumPy array; None for anything else."""
    text = ground_truth.strip()
    if len(text) > MAX_LIST_CHARS:
        return None
    if array := _ARRAY.fullmatch(text):
        text = array.group(1)
    if not (text.startswith("[") and text.endswith("]") and text[1:].lstrip()[:1] in ("'", '"')):
        return None
    quoted = _QUOTED.findall(text[1:-1])
    if quoted and not _QUOTED.sub("", text[1:-1]).strip():  # NumPy writes no commas
        return _texts([item[1:-1] for item in quoted])
    for read in (ast.literal_eval, json.loads):
        with contextlib.suppress(ValueError, SyntaxError, MemoryError, RecursionError):
            return _texts(read(text))
    return None


def alternatives_in(items: tuple[str, ...], question: str) -> bool:
    """True if each item of a list is a right answer of its own.

    So it is with texts, unless the question asks for several things. Numbers and the letters of options are several
    answers, all of which are needed, where they differ.
    """
    if len({normalise(item) for item in items}) == 1:
        return True
    values = [parse_quantity(item) for item in items]
    if all(values) and len({value.value for value in values if value is not None}) == 1:
        return True
    single = any(value is not None and not value.words for value in values) or any(map(parse_choice, items))
    return not single and not asks.asks_several(question)


def compare_items(answer: str, items: tuple[str, ...], context: Context) -> Grade:
    """Compares with all items, of texts in any order unless the question asks for one."""
    if all(re.fullmatch("[A-H]", item) for item in items):
        return compare_options(answer, ", ".join(sorted(items)), context) or Grade(Verdict.WRONG, LIST_RULE)
    truth = ", ".join(items) if not any("," in item for item in items) else "; ".join(items)
    answer = answer if list_of(answer) is None else ", ".join(list_of(answer) or ())
    ordered = any(parse_quantity(item) is not None for item in items) or asks.asks_order(context.question)
    grade = (compare_lists if ordered else compare_sets)(answer, truth, context)
    return Grade(grade.verdict, LIST_RULE, grade.evidence)


def _texts(value: object) -> tuple[str, ...] | None:
    if not isinstance(value, list) or not 0 < len(value) <= MAX_ITEMS:
        return None
    texts = tuple(item.strip() for item in value if isinstance(item, str) and item.strip())
    return texts if len(texts) == len(value) else None


def _braced(text: str, start: int) -> str | None:
    """Text up to the brace that closes the one before `start`."""
    depth = 1
    for place in range(start, len(text)):
        depth += (text[place] == "{") - (text[place] == "}")
        if depth == 0:
            return text[start:place]
    return None


def _is_prose(text: str) -> bool:
    return len(re.findall(r"[^\W\d_]{2,}", text)) >= 2
