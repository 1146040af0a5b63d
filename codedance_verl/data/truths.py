"""Ground truths of files, brought to the text that is graded.

Text is taken as it is (grading strips what marks it as an answer), numbers and booleans become text, a list of them
means any of them. Mappings, nested lists and what is empty are refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from codedance_verl.data.faults import BadRow
from codedance_verl.grading.rules.alternatives import encode_alternatives

_NAME = "reward_model.ground_truth"


def truth_of(value: Any) -> str:
    """Ground truth as text; alternatives by `encode_alternatives`. Raises BadRow where there is none."""
    if isinstance(value, list | tuple):
        texts = [_text(item, f"{_NAME}[{index}]") for index, item in enumerate(value)]
        if not texts:
            raise BadRow(f"{_NAME} is missing or empty: a list without an item")
        try:
            return encode_alternatives(texts)
        except ValueError as error:
            raise BadRow(f"{_NAME}: {error}") from None
    return _text(value, _NAME)


def _text(value: Any, name: str) -> str:
    if isinstance(value, Mapping):
        raise BadRow(f"{name} is a mapping; give text, a number, or a list of texts of which any is right")
    blank = not re.sub(r"</?answer>", "", str(value)).strip()  # but for the tags that mark an answer
    if value is None or (isinstance(value, float) and not math.isfinite(value)) or blank:
        raise BadRow(f"{name} is missing or empty")
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))  # pandas makes whole numbers floats where a row has none
    if isinstance(value, str | bool | int | float | Decimal | date | datetime):
        return str(value)
    raise BadRow(f"{name} is a {type(value).__name__}; give text, a number, or a list of texts")
