"""Questions of mathematics and science: ThinkLite, MMK12 and GEOQA+ in the forms of R1-V, MM-Eureka and InternVL.

Layouts are those of the cards (`russwang/ThinkLite-VL-hard-11k`, `FanqingM/MMK12`, `leonardPKU/GEOQA_R1V_Train_8K`) and
of MM-Eureka's code (bccddd7), that of InternVL is the one that its guide to fine-tuning asks for; no row of the files
was read here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from codedance_verl.data.fields import messages_of
from codedance_verl.data.rows import Kind
from codedance_verl.datasets.column_types import ANSWER, ANYTHING, IMAGE, TEXT, list_of
from codedance_verl.datasets.converter import Converter, Field, Form, Values, question_record
from codedance_verl.datasets.converters.conversations import question_and_answer
from codedance_verl.grading.matchers import MODEL

_ANSWER_TAGS = re.compile(r"</?answer>")


def _builder(data_source: str, style: str) -> Callable[[Values], Mapping[str, Any]]:
    def build(values: Values) -> Mapping[str, Any]:
        return question_record(
            data_source,
            values["question"],
            [values["image"]],
            values["answer"],
            ability="maths",
            style=style,
            source_id=values.get("id"),
            kind=values.get("subject"),
        )

    return build


def _last_asked(conversations: Any) -> str:
    """Text of the last user message; of a system message, which asks for another format, nothing is kept."""
    messages, _ = messages_of(conversations, "conversations")
    return [message.content for message in messages if message.role == "user"][-1]


def _with_several_images(values: Values) -> Mapping[str, Any]:
    return question_record(
        "geoqa",
        values["question"],
        values["images"],
        values["answer"],
        ability="maths",
        style=MODEL,
        source_id=values["id"],
    )


def _of_one_exchange(values: Values) -> Mapping[str, Any]:
    question, answer = values["exchange"]
    return question_record(
        "geoqa", question, [values["image"]], answer, ability="maths", style=MODEL, source_id=values["id"]
    )


THINKLITE = Converter(
    name="thinklite",
    title="russwang/ThinkLite-VL-hard-11k, -70k",
    kind=Kind.QUESTIONS,
    forms=(
        Form(
            "the hub's files",
            (
                Field("id", ANSWER, "id", required=False),
                Field("problem", TEXT, "question"),
                Field("answer", ANSWER, "answer"),
                Field("image", IMAGE, "image"),
            ),
            _builder("thinklite", MODEL),
        ),
    ),
)

MMK12 = Converter(
    name="mmk12",
    title="FanqingM/MMK12",
    kind=Kind.QUESTIONS,
    forms=(
        Form(
            "the hub's files",
            (
                Field("id", ANSWER, "id", required=False),
                Field("question", TEXT, "question"),
                Field("answer", ANSWER, "answer"),
                Field("subject", TEXT, "subject"),
                Field("image", IMAGE, "image"),
            ),
            _builder("mmk12", MODEL),
        ),
    ),
    notes=("its test file is a benchmark: what is trained on it cannot be evaluated on it",),
)

GEOQA = Converter(
    name="geoqa",
    title="leonardPKU/GEOQA_R1V_Train_8K, GEOQA+ of MM-Eureka and InternVL, Geo170K",
    kind=Kind.QUESTIONS,
    forms=(
        Form(
            "the hub's files",
            (
                Field("image", IMAGE, "image"),
                Field("problem", TEXT, "question"),
                Field("solution", TEXT, "answer", lambda text: _ANSWER_TAGS.sub("", text).strip()),
            ),
            _builder("geoqa", MODEL),
        ),
        Form(
            "JSON lines of MM-Eureka",
            (
                Field("id", ANSWER, "id", required=False),
                Field("conversations", ANYTHING, "question", _last_asked),
                Field("answer", ANSWER, "answer"),
                Field("image_urls", list_of(TEXT), "images"),
            ),
            _with_several_images,
        ),
        Form(
            "JSON lines of InternVL, conversations of Geo170K",
            (
                Field("id", ANSWER, "id", required=False),
                Field("image", IMAGE, "image"),
                Field("conversations", ANYTHING, "exchange", question_and_answer),
            ),
            _of_one_exchange,
            taken_for_another=("conversations",),
        ),
    ),
)
