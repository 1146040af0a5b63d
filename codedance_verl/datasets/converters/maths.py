"""Questions of mathematics and science: ThinkLite, MMK12 and GEOQA+ in the form of R1-V.

Layouts are those of the cards (`russwang/ThinkLite-VL-hard-11k`, `FanqingM/MMK12`, `leonardPKU/GEOQA_R1V_Train_8K`); no
row of the files was read here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from codedance_verl.data.rows import Kind
from codedance_verl.datasets.column_types import ANSWER, IMAGE, TEXT
from codedance_verl.datasets.converter import Converter, Field, Form, Values, question_record
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
)

GEOQA = Converter(
    name="geoqa",
    title="leonardPKU/GEOQA_R1V_Train_8K",
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
    ),
)
