"""Renderer of `report.html` of `codedance eval`: one page without scripts or outside resources.

Everything that a model, an endpoint or a data file wrote is hostile here: jinja2 escapes it, `visible` shows control
and direction characters, and images are re-encoded before they are inlined.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from codedance_verl.evaluation import report_html as training_report
from codedance_verl.evaluation.plots import COLOURS
from codedance_verl.formats import DEFAULT_FORMAT, FORMATS
from codedance_verl.harness.estimate import Estimate
from codedance_verl.harness.measured import Measured
from codedance_verl.harness.report import BenchmarkReport, EvaluationReport
from codedance_verl.harness.report_charts import bar_charts, curves, overview_chart
from codedance_verl.harness.shown import PageImages, ShownTrajectory, choose, shown
from codedance_verl.runtime.atomic import write_atomically
from codedance_verl.runtime.text import visible
from codedance_verl.viewer.text import templates

_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Section:
    """Benchmark on the page, with the charts and trajectories that stand there."""

    found: BenchmarkReport
    bars: tuple[Markup, ...]
    curves: tuple[Markup, ...]
    trajectories: tuple[ShownTrajectory, ...]


def write_html(report: EvaluationReport, path: Path, measured: Mapping[str, Sequence[Measured]], folder: Path) -> None:
    """Writes the page atomically.

    Args:
        report: what stands in it.
        path: of the page.
        measured: replies by the name of the benchmark, of which a few are shown.
        folder: output folder of the run, which has `images/`.

    Raises OSError.
    """
    write_atomically(path, render(report, measured, PageImages(folder)))


def render(report: EvaluationReport, measured: Mapping[str, Sequence[Measured]], images: PageImages) -> str:
    """The page as HTML."""
    filters: dict[str, Any] = {"words": words, "points": points, "visible": visible, "share": share}
    environment = templates(_TEMPLATES, training_report.TEMPLATES, **filters)
    return environment.get_template("evaluation.html.j2").render(
        report=report,
        sections=[_section(found, measured.get(found.task, ()), images) for found in report.benchmarks],
        overview=overview_chart(report.benchmarks),
        images=images,
        colours=COLOURS,
        code_style=Markup(training_report.code_style()),
    )


def words(estimate: Estimate) -> Markup:
    """Share in percent with its interval below it."""
    if estimate.value is None:
        return Markup("n/a")
    return Markup("{}{}").format(share(estimate.value), _ends(estimate, 1))


def points(estimate: Estimate) -> Markup:
    """Difference in points of percent with its interval below it."""
    if estimate.value is None:
        return Markup("n/a")
    return Markup("{}{}").format(f"{100 * estimate.value:+.1f}", _ends(estimate, 1, "+"))


def share(value: float | None) -> str:
    """Share in percent."""
    return training_report.percent(value)


def _ends(estimate: Estimate, digits: int, sign: str = "") -> Markup:
    if estimate.low is None or estimate.high is None:
        return Markup("<small>no interval</small>")
    low, high = (f"{100 * end:{sign}.{digits}f}" for end in (estimate.low, estimate.high))
    return Markup("<small>{} to {}</small>").format(low, high)


def _section(found: BenchmarkReport, measured: Sequence[Measured], images: PageImages) -> Section:
    # stated by whoever served the model, whose formats may be others than those here
    format_name = found.call_format if found.call_format in FORMATS else DEFAULT_FORMAT
    trajectories = tuple(shown(title, one, images, format_name) for title, one in choose(measured))
    if found.tools is None:
        return Section(found, (), (), trajectories)
    return Section(found, bar_charts(found.tools), curves(found.tools), trajectories)
