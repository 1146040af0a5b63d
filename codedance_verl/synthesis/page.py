"""Renderer of `report.html`: rates of the checks, and trajectories with their images, kept and rejected ones.

One page without scripts or outside resources. What a teacher or a data file wrote is hostile: jinja2 escapes it,
control and direction characters are shown, and images are encoded again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from markupsafe import Markup

from codedance_verl.evaluation import report_html as training_report
from codedance_verl.evaluation.plots import COLOURS
from codedance_verl.harness.measured import Measured
from codedance_verl.harness.shown import PageImages, ShownTrajectory, shown
from codedance_verl.records.record import Status
from codedance_verl.runtime.atomic import write_atomically
from codedance_verl.runtime.text import visible
from codedance_verl.synthesis.report import SynthesisReport
from codedance_verl.synthesis.rows import Judged
from codedance_verl.tasks.item import Score
from codedance_verl.viewer.text import templates

OF_A_KIND = 3
"""Kept trajectories of each kind that the page shows."""

OF_A_STAGE = 2
"""Rejected trajectories of each stage that the page shows."""

_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class ShownExample:
    """Trajectory on the page, with the reason of its rejection; empty for a kept one."""

    trajectory: ShownTrajectory
    reason: str


@dataclass
class Examples:
    """Examples of the page: the first ones of each kind and of each stage; few are held however many come."""

    found: dict[str, list[Judged]] = field(default_factory=dict)

    def add(self, one: Judged, kept: bool) -> None:
        """Takes a reply, where there is room for one of its sort."""
        if kept:
            self._put(f"Kept, {one.checked.kind}", one, OF_A_KIND)
        elif one.rejected:
            self._put(f"Rejected, {one.checked.stage.replace('_', ' ')}", one, OF_A_STAGE)

    def _put(self, title: str, one: Judged, most: int) -> None:
        held = self.found.setdefault(title, [])
        if len(held) < most:
            held.append(one)


def write_page(path: Path, report: SynthesisReport, examples: Examples, folder: Path) -> None:
    """Writes the page, whole or not at all; `folder` has the images that code returned. Raises OSError."""
    write_atomically(path, render(report, examples, PageImages(folder)))


def render(report: SynthesisReport, examples: Examples, images: PageImages) -> str:
    """The page as HTML."""
    environment = templates(_TEMPLATES, training_report.TEMPLATES, visible=visible, count=lambda number: f"{number:,}")
    shown_ones = [_shown(title, one, images) for title, held in sorted(examples.found.items()) for one in held]
    return environment.get_template("synthesis.html.j2").render(
        report=report,
        examples=shown_ones,
        images=images,
        colours=COLOURS,
        code_style=Markup(training_report.code_style()),
    )


def _shown(title: str, one: Judged, images: PageImages) -> ShownExample:
    # a reply that failed before its answer was graded has no verdict
    value = None if one.checked.stage and not one.checked.right else 1.0
    score = Score(value, "grader", reason=one.checked.reason)
    measured = Measured(one.item, one.result.which.number, Status.ANSWERED, reply=one.reply, ours=score)
    return ShownExample(shown(title, measured, images), one.checked.reason)
