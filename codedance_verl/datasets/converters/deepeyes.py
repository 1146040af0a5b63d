"""DeepEyes-47k: questions of V*'s training set, ArxivQA and ThinkLite, asked for a tool that is not here.

The system message describes `image_zoom_in_tool`, and the user message asks for it. Both go: what is left is the
question, and the environment adds its own instructions to a record without a system message. Layout and wording are
those of the card (`ChenShawn/DeepEyes-Datasets-47k` at 5546681e) and of others' readers; no row of the files was read
here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from codedance_verl.data.fields import BadRow
from codedance_verl.data.rows import Kind
from codedance_verl.datasets.column_types import ANSWER, ANYTHING, IMAGES, MESSAGES, TEXT
from codedance_verl.datasets.converter import Converter, Field, Form, Values, question_record

TOOL = "image_zoom_in_tool"

# neither begins or ends with a repetition that a long text could be tried against at each of its places
_ASKS_FOR_TOOL = re.compile(rf"\bThink first, call \W{{0,16}}{TOOL}")
_THINKLITE = re.compile(r"(?:^|\n)Question:[ \t]{0,16}\n")


def question_in(text: str) -> str:
    """Question in a user message: behind ThinkLite's `Question:` line, before the sentence that asks for the tool.

    Raises BadRow where the tool is still named in what is left.
    """
    head = _THINKLITE.search(text)
    question = text[head.end() :] if head else text
    tail = _ASKS_FOR_TOOL.search(question)
    question = (question[: tail.start()] if tail else question).strip()
    if TOOL in question or "<tool_call>" in question:
        raise BadRow(f"its question asks for {TOOL} in words that are not known; cut them out, or drop the row")
    return question


def _asked(messages: Any) -> str:
    texts = [message["content"] for message in messages if message.get("role") == "user" and message.get("content")]
    if len(texts) != 1:
        raise BadRow(f"prompt has {len(texts)} user messages; a question has one")
    return question_in(texts[0])


def _question(values: Values) -> Mapping[str, Any]:
    return question_record(
        values["data_source"],
        values["asked"],
        values["images"],
        values["truth"],
        ability=values["ability"] or "",
        style=values["style"],
        index=values["index"],
        split=values["split"],
        answer=values["answer"],
    )


DEEPEYES = Converter(
    name="deepeyes-47k",
    title="ChenShawn/DeepEyes-Datasets-47k",
    kind=Kind.QUESTIONS,
    forms=(
        Form(
            "the hub's files",
            (
                Field("data_source", TEXT, "data_source"),
                Field("prompt", MESSAGES, "asked", _asked),
                Field("images", IMAGES, "images"),
                Field("ability", TEXT, "ability", required=False),
                # what tells these files from others of the same layout; the environment of this project is not named
                Field("env_name", TEXT, "env_name", may_be_empty=True),
                Field("reward_model.ground_truth", ANSWER, "truth"),
                Field("reward_model.style", TEXT, "style", required=False),
                Field("extra_info.index", ANYTHING, "index", required=False),
                Field("extra_info.split", TEXT, "split", required=False),
                Field("extra_info.answer", ANSWER, "answer", required=False),
            ),
            _question,
        ),
    ),
    notes=(f"system message and the request for {TOOL} are left out; the environment adds its own instructions",),
)
