"""Renderer of `report.html`: the report as one page without scripts or outside resources.

Everything a model or a data file wrote is hostile here: jinja2 escapes it, the viewer's `visible` shows control and
direction characters, and images are re-encoded before they are inlined.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image
from pygments.formatters import HtmlFormatter

from codedance_verl.evaluation.examples import Example, ExampleGroup
from codedance_verl.evaluation.plots import (
    COLOURS,
    Bar,
    Comparison,
    Part,
    Series,
    comparison_chart,
    line_chart,
    stacked_bar,
)
from codedance_verl.evaluation.report import BlankFigures, Curve, CurvePoint, Figure, GroupFigures, Report, Seconds
from codedance_verl.runtime.atomic import write_atomically
from codedance_verl.trajectories.schema import ImageRef
from codedance_verl.viewer.trajectory_view import Bounds, TrajectoryView, trajectory_view

MAX_IMAGE_SIDE = 640
"""Pixels; larger images are made smaller before they are inlined."""

_TEMPLATES = Path(__file__).parent / "templates"
_BOUNDS = Bounds(images=500)

GROUP_COLUMNS = (
    ("accuracy", "accuracy", "at temperature 1"),
    ("accuracy_greedy", "greedy accuracy", "at temperature 0"),
    ("tool_rate", "tool rate", "share that ran code"),
    ("turns", "turns", "mean per rollout"),
    ("execution_success", "execution success", "share of executions"),
    ("format", "format", "share well-formed"),
)
_SECONDS_LABELS = {
    "generate": "generate",
    "execute": "execute",
    "sandbox_wait": "wait for sandbox",
    "grade": "grade",
    "log_prob": "log-probs",
    "update": "update",
    "weight_sync": "weight sync",
    "checkpoint": "checkpoint",
    "validation": "validation",
    "other": "other",
}


@dataclass(frozen=True)
class ExampleView:
    """One trajectory as the page shows it, with the folder of its images."""

    model: str
    score: float
    view: TrajectoryView
    folder: Path

    def image(self, image: ImageRef) -> str | None:
        """The image as a PNG of bounded size inside a data URI; None where it is gone or broken."""
        try:
            with Image.open(image.file(self.folder), formats=["PNG"]) as opened:
                bounded = opened.convert("RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            return None
        bounded.thumbnail((MAX_IMAGE_SIDE, MAX_IMAGE_SIDE))
        buffer = io.BytesIO()
        bounded.save(buffer, "PNG", optimize=True)
        return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def write_html(report: Report, exhibits: Sequence[ExampleGroup], path: Path) -> None:
    """Write the page atomically."""
    write_atomically(path, render(report, exhibits))


def render(report: Report, exhibits: Sequence[ExampleGroup]) -> str:
    """The page as HTML."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(figure=figure_text, percent=percent, points=points, duration=duration)
    return environment.get_template("report.html.j2").render(
        report=report,
        groups=_groups(report),
        columns=GROUP_COLUMNS,
        blank_rows=_blank_rows(report),
        headline=_headline_chart(report),
        curves=_curve_charts(report.training),
        stage_chart=_stage_chart(report.stages),
        step_chart=_step_chart(report.rl_steps.mean_seconds),
        step_rows=_step_rows(report.rl_steps.mean_seconds),
        exhibits=[(exhibit.title, list(map(_example_view, exhibit.examples))) for exhibit in exhibits],
        colours=COLOURS,
        code_style=Markup(_code_style()),
    )


def percent(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.1%}".replace("%", "\N{NO-BREAK SPACE}%")


def points(value: float | None) -> str:
    """A difference of shares in percentage points, with its sign."""
    return "n/a" if value is None else f"{value * 100:+.1f}"


def duration(seconds: float | None) -> str:
    if seconds is None:
        return "n/a"
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"


def figure_text(figure: Figure, name: str) -> str:
    """A figure in the unit of its column."""
    if figure.value is None:
        return "n/a"
    return f"{figure.value:.2f}" if name == "turns" else percent(figure.value)


def _groups(report: Report) -> list[tuple[str, GroupFigures, GroupFigures]]:
    """(title, before, after) for every group; a kind that only one side has is left out."""
    rows = [(name, getattr(report.sft, name), getattr(report.rl, name)) for name in ("overall", "easy", "hard")]
    shared = [kind for kind in report.sft.kinds if kind in report.rl.kinds]
    return rows + [(kind, report.sft.kinds[kind], report.rl.kinds[kind]) for kind in shared]


def _blank_rows(report: Report) -> list[tuple[str, BlankFigures, BlankFigures]]:
    before, after = report.blank_image.sft, report.blank_image.rl
    rows = [(name, getattr(before, name), getattr(after, name)) for name in ("overall", "easy", "hard")]
    rows += [(kind, before.kinds[kind], after.kinds[kind]) for kind in before.kinds if kind in after.kinds]
    return [row for row in rows if row[1].blank.n or row[2].blank.n]


def _headline_chart(report: Report) -> Markup:
    before, after = report.sft, report.rl
    rows = [
        Comparison("accuracy", _bar(before.overall.accuracy), _bar(after.overall.accuracy)),
        Comparison("greedy accuracy", _bar(before.overall.accuracy_greedy), _bar(after.overall.accuracy_greedy)),
        Comparison("accuracy, easy", _bar(before.easy.accuracy), _bar(after.easy.accuracy)),
        Comparison("accuracy, hard", _bar(before.hard.accuracy), _bar(after.hard.accuracy)),
        Comparison("tool rate, easy", _bar(before.easy.tool_rate), _bar(after.easy.tool_rate)),
        Comparison("tool rate, hard", _bar(before.hard.tool_rate), _bar(after.hard.tool_rate)),
        Comparison("execution success", _bar(before.overall.execution_success), _bar(after.overall.execution_success)),
        Comparison("format", _bar(before.overall.format), _bar(after.overall.format)),
    ]
    return comparison_chart("Held-out questions, with 95 % intervals", rows, ("before RL (SFT)", "after RL"))


def _bar(figure: Figure) -> Bar:
    return Bar(figure.value, figure.low, figure.high)


def _curve_charts(curves: Sequence[Curve]) -> list[Markup]:
    def lines(names: Sequence[tuple[str, str]]) -> list[Series]:
        return [line for colour, (name, label) in enumerate(names) for line in _with_mean(curves, name, label, colour)]

    return [
        line_chart("Training accuracy", lines([("accuracy", "accuracy")]), percent=True),
        line_chart(
            "Tool rate",
            lines([("tool_rate_hard", "hard questions"), ("tool_rate_easy", "easy questions")]),
            percent=True,
        ),
        line_chart("Reward", lines([("reward", "mean reward")]), percent=False),
        line_chart("Turns", lines([("turns", "turns per rollout")]), percent=False),
        line_chart(
            "Form", lines([("format", "well-formed"), ("execution_success", "executions that succeed")]), percent=True
        ),
    ]


def _with_mean(curves: Sequence[Curve], name: str, label: str, colour: int) -> list[Series]:
    """A thin line per seed and a bold one for their mean, where there are several."""

    def value(point: CurvePoint) -> float | None:
        found: float | None = getattr(point, name)
        return found

    seeds = [
        Series(f"seed {curve.seed}", [(point.step, value(point)) for point in curve.points], colour, thin=True)
        for curve in curves
    ]
    if len(curves) == 1:
        return [Series(f"{label} (seed {curves[0].seed})", seeds[0].points, colour)]
    # Seeds may lack a step: the mean at a step is over those that have it.
    by_step: dict[int, list[float]] = {}
    for curve in curves:
        for point in curve.points:
            if (found := value(point)) is not None:
                by_step.setdefault(point.step, []).append(found)
    mean = [(step, sum(values) / len(values)) for step, values in sorted(by_step.items())]
    return [*seeds, Series(f"{label} (bold: mean of {len(curves)} seeds)", mean, colour)]


def _stage_chart(stages: dict[str, float]) -> Markup:
    parts = [Part(name, seconds, index % COLOURS) for index, (name, seconds) in enumerate(stages.items())]
    return stacked_bar("Wall time by stage", parts)


def _step_rows(seconds: Seconds) -> list[tuple[str, float | None]]:
    return [(label, getattr(seconds, name)) for name, label in _SECONDS_LABELS.items()]


def _step_chart(seconds: Seconds) -> Markup:
    known = [(label, value) for label, value in _step_rows(seconds) if value]
    return stacked_bar("One RL step, mean", [Part(label, value, i % COLOURS) for i, (label, value) in enumerate(known)])


def _example_view(example: Example) -> ExampleView:
    trajectory = example.trajectory
    return ExampleView(example.model, trajectory.reward.score, trajectory_view(trajectory, _BOUNDS), example.folder)


def _code_style() -> str:
    """Colours of highlighted code for both modes."""
    light = HtmlFormatter(style="default").get_style_defs(".code")
    dark = HtmlFormatter(style="github-dark").get_style_defs(".code")
    page = ".code { background: var(--page); color: var(--text) }"
    return f"{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}\n{page}"
