"""Published rows that stand beside measured figures, with half-widths that follow from the number of items.

The papers give one number a benchmark, without seeds or intervals. A half-width is therefore ours: half of Wilson's
95 % interval for that accuracy and that many items, once as if all were independent, once for the clusters alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from codedance_verl.statistics.intervals import wilson

CODEDANCE = "CodeDance-7B"
BASE = "Qwen2.5-VL-7B"
DEEPEYES = "DeepEyesV2"

SOURCES = {
    CODEDANCE: "paper of CodeDance",
    BASE: "base model as the paper of CodeDance measured it",
    DEEPEYES: "reported in third-party notes on the paper of DeepEyesV2",
}
"""Origin of the rows, by model."""


@dataclass(frozen=True)
class _Benchmark:
    """Benchmark of the published tables.

    Attributes:
        tasks: benchmarks of this project that the row may be of.
        items: number of items, or of problems for a score of problems; by task where they differ.
        clusters: those that are independent.
        percent: published figures by model.
        note: what the papers leave open.
    """

    tasks: tuple[str, ...]
    items: tuple[int, ...]
    clusters: tuple[int, ...]
    percent: dict[str, float]
    note: str = ""


_VERSIONS = ("text_dominant", "text_lite", "vision_intensive", "vision_dominant", "vision_only")
_MATHVERSE_NOTE = "not said: which versions of the problems, and whether reasoning was asked for"
_BENCHMARKS = (
    _Benchmark(("countbench",), (491,), (491,), {CODEDANCE: 91.2, BASE: 76.5}, "no official rule is published"),
    _Benchmark(("pixmocount",), (540,), (540,), {CODEDANCE: 77.1, BASE: 50.4}, "not said: how many images were found"),
    _Benchmark(("vstar",), (191,), (191,), {CODEDANCE: 84.8, BASE: 76.4, DEEPEYES: 81.8}),
    # rows are 200 questions in four orders each, and orders of one question are no independent items
    _Benchmark(("hrbench_4k",), (800,), (200,), {CODEDANCE: 75.2, BASE: 69.0, DEEPEYES: 77.9}),
    _Benchmark(("hrbench_8k",), (800,), (200,), {CODEDANCE: 72.3, BASE: 66.0, DEEPEYES: 73.8}),
    _Benchmark(("chartqa",), (2500,), (2500,), {CODEDANCE: 87.5, BASE: 86.3, DEEPEYES: 88.4}),
    _Benchmark(("charxiv",), (1000,), (1000,), {CODEDANCE: 44.1, BASE: 42.1}, "judged; the judge decides the figure"),
    _Benchmark(
        ("mathvision", "mathvision_testmini"),
        (3040, 304),
        (3040, 304),
        {CODEDANCE: 29.6, BASE: 25.0, DEEPEYES: 28.9},
        "not said: test or testmini",
    ),
    _Benchmark(
        ("mathvista", "mathvista_corrected"), (1000, 1000), (1000, 1000), {CODEDANCE: 70.3, BASE: 68.1, DEEPEYES: 71.9}
    ),
    _Benchmark(
        ("mathverse", *(f"mathverse_{version}" for version in _VERSIONS)),
        (3940, *[788] * len(_VERSIONS)),
        (788,) * (1 + len(_VERSIONS)),
        {CODEDANCE: 46.8, BASE: 45.1, DEEPEYES: 52.7},
        _MATHVERSE_NOTE,
    ),
    # 525 problems, not their 1,740 questions: the published score is one of problems
    _Benchmark(("wemath",), (525,), (525,), {CODEDANCE: 39.6, BASE: 35.4, DEEPEYES: 38.1}, "strict score of problems"),
)


class PublishedFigure(msgspec.Struct, frozen=True):
    """Figure of a paper, beside that of a run.

    Attributes:
        model: name of the model.
        source: where the number stands.
        value: share in [0, 1].
        items: items that the half-width is computed for.
        half_width: half of the 95 % interval, as if all items were independent.
        half_width_clusters: the same for the clusters alone: the most that it can be.
        note: what the paper leaves open; empty for nothing.
    """

    model: str
    source: str
    value: float
    items: int
    half_width: float
    half_width_clusters: float
    note: str = ""


def published(task: str) -> tuple[PublishedFigure, ...]:
    """Published figures of a benchmark, which compare with the first figure of its official rule; empty for none."""
    return tuple(
        _figure(model, percent / 100, row, row.tasks.index(task))
        for row in _BENCHMARKS
        if task in row.tasks
        for model, percent in row.percent.items()
    )


def half_width(share: float, items: int) -> float:
    """Half of Wilson's 95 % interval of that share of so many independent items."""
    low, high = wilson(share * items, items)  # no whole count: the published percentages are rounded
    return (high - low) / 2


def _figure(model: str, share: float, row: _Benchmark, place: int) -> PublishedFigure:
    widths = half_width(share, row.items[place]), half_width(share, row.clusters[place])
    return PublishedFigure(model, SOURCES[model], share, row.items[place], *widths, row.note)
