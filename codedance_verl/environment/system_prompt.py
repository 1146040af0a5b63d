"""System message of a record that has none: how to call, how to answer, and what coordinates mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from codedance_verl.environment.resized_images import image_parts
from codedance_verl.formats import TurnFormat, render_answer, render_think

_TEXT = """\
You are asked a question about a picture. Think first: {think}. Then answer: {answer}. Where a look at the picture is \
not enough, run Python code instead of answering, as often as it helps:
{call}
You are shown what the code prints and displays. Variables stay from call to call. `input_image` is the picture of the \
question in full size (a PIL image), while you may see a smaller view of it: coordinates are pixels of `input_image`, \
from the upper left corner, up to `input_image.size`."""
_SEVERAL = " `input_images` is the list of all images of the question, in order; `input_image` is the first of them."


def instructions(format: TurnFormat, images: int = 1) -> str:
    """Returns the system message for a model that was not trained on this environment.

    It neither asks for calls nor against them: whether a call helps is for the reward to teach. `images`: count of the
    question's images; `input_images` is named where there are several.
    """
    call = format.render_call("input_image.crop((left, top, right, bottom))")
    text = _TEXT.format(think=render_think("..."), answer=render_answer("..."), call=call)
    return text + _SEVERAL if images > 1 else text


def with_instructions(messages: Sequence[dict[str, Any]], format: TurnFormat) -> list[dict[str, Any]]:
    """Returns the messages, led by the instructions unless they have a system message of their own."""
    if any(message["role"] == "system" for message in messages):
        return list(messages)
    images = sum(1 for _ in image_parts(messages))
    return [{"role": "system", "content": instructions(format, images)}, *messages]
