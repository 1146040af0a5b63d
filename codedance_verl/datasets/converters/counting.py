"""PixmoCount, train and validation: photographs behind addresses, published with the SHA-256 of each file.

Images are matched by digest in a local folder of downloads, whatever they are called; those that are not there are
listed. The question is built of the label. Layout is that of the card (`allenai/pixmo-count` at 59b2301); no row of
the files was read here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from codedance_verl.data.fields import BadRow
from codedance_verl.data.rows import Kind
from codedance_verl.datasets.column_types import ANYTHING, INTEGER, TEXT
from codedance_verl.datasets.converter import Converter, Field, Form, Values, question_record
from codedance_verl.grading.rules import count
from codedance_verl.tasks.pixmocount import question_about

DIGEST = "image_sha256"


def _points(value: Any) -> list[dict[str, Any]]:
    """Points as `{x: [...], y: [...]}` or as a list of `{x, y}`."""
    if isinstance(value, Mapping):
        across, down = value.get("x") or [], value.get("y") or []
        if len(across) != len(down):
            raise BadRow(f"points has {len(across)} x and {len(down)} y")
        value = [{"x": x, "y": y} for x, y in zip(across, down, strict=True)]
    if not isinstance(value, list) or not all(isinstance(item, Mapping) and {"x", "y"} <= set(item) for item in value):
        raise BadRow("points is no list of x and y")
    return [{"label": None, "x": float(item["x"]), "y": float(item["y"])} for item in value]


def _count(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise BadRow(f"count is {value!r}; must be a whole number from 0")
    return str(value)


def _question(values: Values) -> Mapping[str, Any]:
    label = values["label"].strip()
    points = [{**point, "label": label} for point in values["points"] or ()]
    # `image_sha256` and `image_url` are for the matching, which puts the file in the place of the image
    return question_record(
        "pixmo_count",
        question_about(label),
        [{"sha256": values["digest"].lower(), "url": values["url"]}],
        values["count"],
        ability="count",
        style=count.RULE,
        source_id=values["digest"].lower(),
        points=points,
    )


PIXMOCOUNT = Converter(
    name="pixmocount",
    title="allenai/pixmo-count",
    kind=Kind.QUESTIONS,
    forms=(
        Form(
            "the hub's files",
            (
                Field("image_url", TEXT, "url", required=False),
                Field(DIGEST, TEXT, "digest"),
                Field("count", INTEGER, "count", _count),
                Field("points", ANYTHING, "points", _points, required=False),
                Field("label", TEXT, "label"),
            ),
            _question,
        ),
    ),
    needs_folder=True,
    notes=(
        "train counts come from a detector; those of validation and test were checked by people",
        "its test file is a benchmark: what is trained on it cannot be evaluated on it",
    ),
)
