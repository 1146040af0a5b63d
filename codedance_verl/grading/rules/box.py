"""Matcher: bounding boxes, compared by intersection over union.

Boxes are (x1, y1, x2, y2), two corners, in whatever units both sides share. Read are "[1, 2, 30, 40]",
"(1,2),(30,40)", `<box>`, `<|box_start|>` and JSON with `bbox_2d`, `bbox` or `box`; several boxes as a list.
"""

from __future__ import annotations

import contextlib
import json
import re
from typing import Any

from codedance_verl.grading.context import STRICT, Context
from codedance_verl.grading.rules.latex import unwrap
from codedance_verl.grading.rules.normalise import ascii_digits
from codedance_verl.grading.rules.pairing import most_pairs
from codedance_verl.types import Grade, Verdict

RULE = "box"

Box = tuple[float, float, float, float]

# The first bounds the time of a comparison, the second keeps areas finite. Units are those of both sides.
MAX_BOXES = 100
MAX_COORDINATE = 1e7

_KEYS = ("bbox_2d", "bbox", "box")
_MARKS = re.compile(r"<\|?/?(?:box|box_start|box_end)\|?>")
_FENCE = re.compile(r"```(?:json)?\s*(.*?)\s*```", re.DOTALL)
# two points, as Qwen-VL writes a box
_CORNERS = re.compile(r"\(\s*(-?[\d.]+)\s*,\s*(-?[\d.]+)\s*\)\s*,\s*\(\s*(-?[\d.]+)\s*,\s*(-?[\d.]+)\s*\)")


def parse_boxes(text: str) -> tuple[Box, ...] | None:
    """Reads one box or several; None for anything else, also for a box without an area."""
    plain = _MARKS.sub("", ascii_digits(unwrap(text))).strip()
    if found := _FENCE.fullmatch(plain):
        plain = found.group(1)
    plain = _CORNERS.sub(r"[\1, \2, \3, \4]", plain)
    if plain.startswith("(") and plain.endswith(")"):
        plain = f"[{plain[1:-1]}]"
    for candidate in (plain, f"[{plain}]"):
        with contextlib.suppress(ValueError, RecursionError):
            return _boxes(json.loads(candidate))
    return None


def iou(left: Box, right: Box) -> float:
    """Intersection over union of two boxes, 0 to 1."""
    width = min(left[2], right[2]) - max(left[0], right[0])
    height = min(left[3], right[3]) - max(left[1], right[1])
    if width <= 0 or height <= 0:  # both negative would give a positive area
        return 0.0
    shared = width * height
    return shared / (_area(left) + _area(right) - shared)


def compare(answer: str, ground_truth: str, context: Context = STRICT) -> Grade | None:
    """Applies where the ground truth is marked as a box; four numbers in a row may be a list, bare corners points."""
    marked = _MARKS.search(ground_truth) or any(key in ground_truth for key in _KEYS)
    return compare_boxes(answer, ground_truth, context) if marked else None


def compare_boxes(answer: str, ground_truth: str, context: Context = STRICT) -> Grade | None:
    """Applies where the ground truth is boxes: as many are needed, each over one of its own by `box_iou` or more."""
    truth = parse_boxes(ground_truth)
    if truth is None:
        return None
    given = parse_boxes(answer)
    if given is None or len(given) != len(truth):
        return Grade(Verdict.WRONG, RULE, f"{0 if given is None else len(given)} boxes against {len(truth)}")
    overlaps = [[iou(box, other) for box in given] for other in truth]
    paired = most_pairs([[shared >= context.box_iou for shared in row] for row in overlaps])
    evidence = f"{paired} of {len(truth)} have an IoU of {context.box_iou:g}, the best is {max(map(max, overlaps)):.3f}"
    return Grade.of(paired == len(truth), RULE, evidence)


def _boxes(value: Any) -> tuple[Box, ...]:
    """Boxes of a JSON value. Raises ValueError for anything else."""
    if isinstance(value, dict):
        return _boxes(next((value[key] for key in _KEYS if key in value), None))
    if not isinstance(value, list) or not value:
        raise ValueError("no box")
    if all(isinstance(item, int | float) and not isinstance(item, bool) for item in value):
        return (_box(value),)
    boxes = tuple(box for item in value for box in _boxes(item))
    if len(boxes) > MAX_BOXES:
        raise ValueError("too many boxes")
    return boxes


def _box(values: list[float]) -> Box:
    if len(values) != 4 or not all(abs(value) <= MAX_COORDINATE for value in values):
        raise ValueError("not four coordinates")
    x1, y1, x2, y2 = (float(value) for value in values)
    if x2 <= x1 or y2 <= y1:
        raise ValueError("no area")
    return x1, y1, x2, y2


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])
