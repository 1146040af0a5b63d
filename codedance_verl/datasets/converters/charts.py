"""Charts: chart-refocus in its three forms, ChartQAPro and ChartGemma.

Layouts are those of the cards (`ReFocus/ReFocus_Data`, `VTOOL/Refocus_Chart`, `ahmed-masry/ChartQAPro`, `-/ChartGemma`)
and of the code of ReFocus; no row of the files was read here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from codedance_verl.data.fields import BadRow
from codedance_verl.data.rows import Kind
from codedance_verl.datasets.column_types import ANSWER, ANYTHING, IMAGE, IMAGES, MESSAGES, TEXT, list_of
from codedance_verl.datasets.converter import Converter, Field, Form, Values, question_record
from codedance_verl.grading.matchers import MODEL
from codedance_verl.types import IMAGE_PLACEHOLDER

REFOCUS_SOURCE, CHARTQAPRO_SOURCE = "chart_refocus", "chartqapro"


def regions_of(value: Any) -> list[dict[str, Any]]:
    """Regions from boxes `{x1, y1, x2, y2}` in pixels. Raises BadRow where a corner is missing."""
    corners = ("x1", "y1", "x2", "y2")
    boxes = value if isinstance(value, list) else [value]
    if not all(isinstance(box, Mapping) and all(box.get(corner) is not None for corner in corners) for box in boxes):
        raise BadRow("focus_areas_bbox has a box without x1, y1, x2 and y2")
    return [{"label": None, **{corner: float(box[corner]) for corner in corners}} for box in boxes]


def _published(values: Values) -> Mapping[str, Any]:
    return question_record(
        REFOCUS_SOURCE,
        values["question"],
        [values["image"]],
        values["answer"],
        ability="chart",
        style=MODEL,
        source_id=values["id"],
        split=values.get("split"),
        kind=values["source"],
        regions=values.get("regions"),
    )


_REQUEST = "USER REQUEST:"


def _verl(values: Values) -> Mapping[str, Any]:
    return question_record(
        values["data_source"],
        _asked_by_vtool(values),
        values["images"],
        values["truth"],
        ability="chart",
        style=values["style"],
        index=values["index"],
        split=values["split"],
        kind=values["source"],
    )


def _asked_by_vtool(values: Values) -> str:
    """Question without the description of tools that are not here. Raises BadRow where it cannot be told."""
    if values["question"]:
        return str(values["question"])
    last = [str(message["content"]) for message in values["prompt"] if message["role"] == "user"][-1]
    _, request, question = last.rpartition(_REQUEST)
    if not request:
        raise BadRow(f"extra_info.question is missing, and its prompt has no {_REQUEST}")
    return question


def _first_image(conversations: Any) -> Any:
    """First image of the conversations of the raw files: a path, relative to the file."""
    first = conversations[0] if isinstance(conversations, list) and conversations else None
    images = first.get("images") if isinstance(first, Mapping) else None
    image = images[0] if isinstance(images, list) and images else images
    if not image:
        raise BadRow("conversations[0].images is missing or empty")
    return image


REFOCUS = Converter(
    name="chart-refocus",
    title="ReFocus/ReFocus_Data, VTOOL/Refocus_Chart",
    kind=Kind.QUESTIONS,
    forms=(
        Form(
            "parquet of ReFocus_Data",
            (
                Field("id", ANSWER, "id"),
                Field("question", TEXT, "question"),
                Field("answer", ANSWER, "answer"),
                Field("image", IMAGE, "image"),
                Field("focus_areas_bbox", ANYTHING, "regions", regions_of, required=False),
                Field("source", TEXT, "source"),
                Field("split", TEXT, "split", required=False),
            ),
            _published,
        ),
        Form(
            "parquet of VTOOL, in verl's columns",
            (
                Field("data_source", TEXT, "data_source"),
                Field("prompt", MESSAGES, "prompt"),
                Field("images", IMAGES, "images"),
                Field("reward_model.ground_truth", ANSWER, "truth"),
                Field("reward_model.style", TEXT, "style", required=False),
                Field("extra_info.index", ANYTHING, "index", required=False),
                Field("extra_info.question", TEXT, "question", required=False),
                Field("source", TEXT, "source"),
                Field("split", TEXT, "split"),
            ),
            _verl,
        ),
        Form(
            "raw JSON lines",
            (
                Field("id", ANSWER, "id"),
                Field("query", TEXT, "question"),
                Field("answer", ANSWER, "answer"),
                Field("conversations", ANYTHING, "image", _first_image),
                Field("source", TEXT, "source"),
            ),
            _published,
        ),
    ),
    notes=("the rule by which the authors of CodeDance filtered these files is not published",),
)


def _asked(values: Values) -> Mapping[str, Any]:
    """Last question of a conversation, the earlier ones with their answers before it."""
    questions, answers = values["questions"], values["answers"]
    if len(questions) != len(answers):
        raise BadRow(f"Question has {len(questions)} entries and Answer {len(answers)}")
    if not questions:
        raise BadRow("Question is an empty list")
    earlier = [
        f"Question: {question}\nAnswer: {answer}" for question, answer in zip(questions[:-1], answers[:-1], strict=True)
    ]
    text = "\n\n".join([*([values["paragraph"].strip()] if values["paragraph"] else []), *earlier, questions[-1]])
    return question_record(
        CHARTQAPRO_SOURCE,
        text,
        [values["image"]],
        answers[-1],
        ability="chart",
        style=MODEL,
        kind=values["kind"],
        split="test",
    )


CHARTQAPRO = Converter(
    name="chartqapro",
    title="ahmed-masry/ChartQAPro",
    kind=Kind.QUESTIONS,
    forms=(
        Form(
            "the hub's file",
            (
                Field("image", IMAGE, "image"),
                Field("Question", list_of(TEXT), "questions"),
                Field("Answer", list_of(TEXT), "answers"),
                Field("Question Type", TEXT, "kind"),
                Field("Paragraph", TEXT, "paragraph", required=False),
            ),
            _asked,
        ),
    ),
    notes=("it is a test set: what is trained on it cannot be evaluated on it",),
)


def _instructed(values: Values) -> Mapping[str, Any]:
    asked = values["input"].replace(IMAGE_PLACEHOLDER, "").strip()
    messages = [
        {"role": "user", "content": f"{IMAGE_PLACEHOLDER}\n{asked}"},
        {"role": "assistant", "content": values["output"]},
    ]
    return {"messages": messages, "images": [values["image"]]}


CHARTGEMMA = Converter(
    name="chartgemma",
    title="ahmed-masry/ChartGemma",
    kind=Kind.DEMONSTRATIONS,
    forms=(
        Form(
            "the hub's files",
            (Field("image", IMAGE, "image"), Field("input", TEXT, "input"), Field("output", TEXT, "output")),
            _instructed,
        ),
    ),
    notes=("answers are as published, without answer tags: its instructions are of many kinds, captions among them",),
)
