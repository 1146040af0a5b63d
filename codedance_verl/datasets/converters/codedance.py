"""CodeDance-RL and CodeDance-SFT, the sets that the authors published.

Layouts are those of the cards (`Peterwatwec/CodeDance-RL` at eafdc20, `-SFT` at 22f1566) and of the release's README;
no row of the files was read here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from codedance_verl.data.fields import BadRow
from codedance_verl.data.rows import Kind
from codedance_verl.datasets.column_types import ANSWER, ANYTHING, BINARY, IMAGES, MESSAGES, TEXT, list_of
from codedance_verl.datasets.converter import Converter, Field, Form, Values

_REST = (
    Field("data_source", TEXT, "data_source"),
    Field("images", IMAGES, "images"),
    Field("ability", TEXT, "ability", required=False),
    Field("reward_model.ground_truth", ANSWER, "truth"),
    Field("reward_model.style", TEXT, "style", required=False),
    Field("extra_info.index", ANYTHING, "index", required=False),
    Field("extra_info.question", TEXT, "question", required=False),
    Field("extra_info.answer", ANSWER, "answer", required=False),
    Field("extra_info.split", TEXT, "split", required=False),
    Field("extra_info.difficulty", TEXT, "difficulty", required=False),  # of files that were sorted into strata
    Field("extra_info.detected_objects", ANYTHING, "points", lambda value: points_of(value), required=False),
)


def points_of(value: Any) -> list[dict[str, Any]]:
    """Points of `{label, point: {x: [...], y: [...]}}`, or of a list of such. Raises BadRow where x and y differ."""
    return [point for item in (value if isinstance(value, list) else [value]) for point in _points(item)]


def _points(item: Any) -> Iterator[dict[str, Any]]:
    if not isinstance(item, Mapping):
        raise BadRow("extra_info.detected_objects is no mapping with label and point")
    point = item.get("point") or {}
    across, down = point.get("x") or [], point.get("y") or []
    if len(across) != len(down):
        raise BadRow(f"extra_info.detected_objects has {len(across)} x and {len(down)} y")
    for x, y in zip(across, down, strict=True):
        yield {"label": item.get("label"), "x": float(x), "y": float(y)}


def _question(values: Values) -> Mapping[str, Any]:
    extra = {key: values[key] for key in ("index", "question", "answer", "split", "difficulty", "points")}
    return {
        "data_source": values["data_source"],
        "prompt": values["prompt"],
        "images": values["images"],
        "ability": values["ability"],
        "reward_model": {"style": values["style"], "ground_truth": values["truth"]},
        "extra_info": extra,
    }


CODEDANCE_RL = Converter(
    name="codedance-rl",
    title="Peterwatwec/CodeDance-RL",
    kind=Kind.QUESTIONS,
    forms=(
        Form("the hub's files, with messages", (Field("messages", MESSAGES, "prompt"), *_REST), _question),
        Form(
            "the release's files, with prompt",
            (Field("prompt", MESSAGES, "prompt"), *_REST),
            _question,
            taken_for_another=("env_name", "source", "record_id", "extra_info.record_id"),
        ),
    ),
    notes=("the image that some rows have a second time, in tools_kwargs, is left out",),
)

CODEDANCE_SFT = Converter(
    name="codedance-sft",
    title="Peterwatwec/CodeDance-SFT",
    kind=Kind.DEMONSTRATIONS,
    forms=(
        Form(
            "the hub's files",
            (Field("messages", MESSAGES, "messages"), Field("images", list_of(BINARY), "images", may_be_empty=True)),
            lambda values: {"messages": values["messages"], "images": values["images"]},
            never=("reward_model",),
        ),
    ),
)
