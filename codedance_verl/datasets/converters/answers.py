"""Sets of answers without calls that run here: Thyme as questions, Mulberry as demonstrations.

Code of Thyme opens its image by a path and names the files that it saved, which this sandbox does not show: its
questions and answers are taken, the trajectories are not. Mulberry's replies come in sections, the answer last.
Layouts are those of the cards (`Kwai-Keye/Thyme-SFT`, `HuanjinYao/Mulberry-SFT`) and of others' readers; no row of the
files was read here.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any

from codedance_verl.data.fields import BadRow
from codedance_verl.data.rows import Kind
from codedance_verl.datasets.column_types import MESSAGES, TEXT, any_of, list_of
from codedance_verl.datasets.converter import Converter, Field, Form, Values, question_record
from codedance_verl.formats.base import ANSWER_END, ANSWER_START, THINK_END, THINK_START
from codedance_verl.grading.matchers import MODEL
from codedance_verl.types import IMAGE_PLACEHOLDER

_BEHIND_THE_QUESTION = re.compile(r"\n\s{0,16}#{2,4} \*{0,2}(?:User Image|Output Format)", re.IGNORECASE)
_FINAL = re.compile(r"#{2,4} The final answer is:{1,2}", re.IGNORECASE)  # its makers' models write two colons too


def decoded(text: str) -> bytes:
    """Bytes of an image in base64, with or without the head of a data URL. Raises BadRow."""
    _, comma, data = text.partition(";base64,")
    try:
        return base64.b64decode(data if comma else text, validate=True)
    except binascii.Error:
        raise BadRow("image holds text that is no base64") from None


def question_in(text: str) -> str:
    """Question of a prompt of Thyme: what stands before the image's path and the output format.

    Raises BadRow where a code block is still asked for.
    """
    behind = _BEHIND_THE_QUESTION.search(text)
    question = text[: behind.start()] if behind else text
    if "<code>" in question:
        raise BadRow("its question asks for code in words that are not known; cut them out, or drop the row")
    return question


def answer_in(response: str) -> str:
    """Text of the last answer block. Raises BadRow where there is none."""
    start, end = response.rfind(ANSWER_START), response.rfind(ANSWER_END)
    answer = response[start + len(ANSWER_START) : end].strip() if 0 <= start < end else ""
    if not answer:
        raise BadRow(f"response has no text between {ANSWER_START} and {ANSWER_END}")
    return answer


def _question(values: Values) -> Mapping[str, Any]:
    prompt, images = values["prompt"], values["images"]
    given = prompt.count(IMAGE_PLACEHOLDER) or 1
    return question_record(
        "thyme",
        question_in(prompt),
        # what code made of them comes behind those of the question
        [decoded(image) for image in ([images] if isinstance(images, str) else images[:given])],
        values["answer"],
        style=MODEL,
    )


THYME = Converter(
    name="thyme",
    title="Kwai-Keye/Thyme-SFT",
    kind=Kind.QUESTIONS,
    forms=(
        Form(
            "the hub's files",
            (
                Field("image", any_of(list_of(TEXT), TEXT), "images"),
                Field("question", TEXT, "prompt"),
                Field("response", TEXT, "answer", answer_in),
            ),
            _question,
        ),
    ),
    notes=("questions and answers alone; its code is written for another sandbox",),
)


def _sections(values: Values) -> Mapping[str, Any]:
    messages = [dict(message) for message in values["messages"]]
    for message in messages:
        if message["role"] == "assistant":
            message["content"] = _as_turn(message["content"])
    images = values["images"]
    # a path may begin with a slash, though it is one inside the archive
    paths = [path.lstrip("/") for path in ([images] if isinstance(images, str) else images)]
    return {"messages": messages, "images": paths}


def _as_turn(text: str) -> str:
    """Turn with everything before the section of the answer as its thought. Raises BadRow where there is no answer."""
    final = _FINAL.search(text)
    answer = text[final.end() :].strip() if final else ""
    if final is None or not answer:
        raise BadRow("messages has an answer without text behind `### The final answer is:`")
    return f"{THINK_START}{text[: final.start()].strip()}{THINK_END}\n{ANSWER_START}{answer}{ANSWER_END}"


MULBERRY = Converter(
    name="mulberry",
    title="HuanjinYao/Mulberry-SFT",
    kind=Kind.DEMONSTRATIONS,
    forms=(
        Form(
            "its JSON file",
            (Field("messages", MESSAGES, "messages"), Field("images", any_of(list_of(TEXT), TEXT), "images")),
            _sections,
            never=("reward_model",),
            taken_for_another=("messages",),
        ),
    ),
    notes=("no call is demonstrated", "its paths begin in the folder of mulberry_images.tar: the JSON file goes there"),
)
