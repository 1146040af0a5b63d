"""Interventions on the rollouts of an evaluation: what the model may write, and what it is shown.

`data/conditions.py` names them. A record states them (`extra_info.control`), or a request to a
server (`codedance.control`).
"""

from __future__ import annotations

import functools
import hashlib
import io
from dataclasses import replace

from PIL import Image

from codedance_verl.data.conditions import Control
from codedance_verl.formats import ANSWER_START, ParsedTurn, TurnFormat
from codedance_verl.types import Execution, RenderedImage

GREY = (128, 128, 128)

NO_CALLS = "calls are switched off"
"""Reason that the model is given for a call under `NO_TOOLS`."""


def banned_strings(control: Control, format: TurnFormat, turn: int) -> tuple[str, ...]:
    """Returns the strings that a turn, numbered from 1, may not contain."""
    if control is Control.NO_TOOLS:
        return (format.call_prefix,)
    if control is Control.FORCED_TOOLS and turn == 1:
        return (ANSWER_START,)
    return ()


def allowed(control: Control, parsed: ParsedTurn, turn: int) -> ParsedTurn:
    """Returns what counts of a turn: a call or an answer that the control excludes does not, should one appear.

    Such a call is refused as one that cannot be read, so the trajectory continues with the reason; such an answer is
    none, so the trajectory ends as `no_action`.
    """
    if control is Control.NO_TOOLS and (parsed.code is not None or parsed.fault is not None):
        return ParsedTurn(fault=NO_CALLS)
    if control is Control.FORCED_TOOLS and turn == 1 and parsed.answer is not None:
        return ParsedTurn()
    return parsed


def as_shown(control: Control, execution: Execution) -> Execution:
    """Returns an execution as the model is shown it, its images in grey under `GREY_OBSERVATIONS`."""
    if control is not Control.GREY_OBSERVATIONS or not execution.images:
        return execution
    return replace(execution, images=tuple(_grey(image.width, image.height) for image in execution.images))


@functools.lru_cache(maxsize=32)
def _grey(width: int, height: int) -> RenderedImage:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), GREY).save(buffer, "PNG")
    png = buffer.getvalue()
    return RenderedImage(hashlib.sha256(png).hexdigest(), width, height, png)
