"""`codedance plot`: the curves of a training run as one PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from codedance_verl.errors import UserError
from codedance_verl.evaluation.report import PARTS, CurvePoint, StepSplit

if TYPE_CHECKING:
    from codedance_verl.evaluation.training import StepMetrics

FILE = "curves.png"
_COLOUR = ["#4878a8", "#c44e52", "#55a868", "#8172b2", "#ccb974", "#64b5cd", "#8c8c8c", "#dd8452", "#937860", "#da8bc3"]

Run = Annotated[Path, typer.Argument(help="folder of a training run, also one that goes on", show_default=False)]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="where to write the PNG; RUN/curves.png by default")
]


Line = tuple[str, Sequence[tuple[int, float]]]
"""A curve: its label, and its (step, value) pairs."""


def plot(run: Run, output: Output = None) -> None:
    """Draw the curves of a training run into a PNG."""
    path = output or run / FILE
    steps = draw(run, path)
    print(f"{path}: {steps} steps")


def draw(run: Path, path: Path) -> int:
    """Write the PNG; returns how many steps it shows.

    Raises:
        UserError: the folder holds no metrics of a training step, or the PNG cannot be written.
    """
    from matplotlib.figure import Figure

    from codedance_verl.evaluation.training import TrainingLog, read_metrics, read_training, rl_steps

    metrics = [line for line in read_metrics(run) if line.step > 0] if run.is_dir() else []
    if not metrics:
        raise UserError(f"{run}: no metrics of a training step ({run / 'metrics'}/*.jsonl)")
    log = read_training(run / "trajectories") if (run / "trajectories" / "train").is_dir() else TrainingLog((), {})
    figure = Figure(figsize=(15, 8), dpi=110, layout="constrained")
    axes = figure.subplots(2, 4).flat
    # seven panels on eight axes: the last is for the split of a step
    for axis, (title, lines, is_share) in zip(axes, _panels(metrics, log.points), strict=False):
        _draw_lines(axis, title, lines, is_share)
    _draw_split(figure.axes[7], rl_steps([(0, metrics, log)]).per_seed[0].steps)
    figure.suptitle(f"{run.resolve().name}, step {metrics[-1].step}", parse_math=False)
    try:
        figure.savefig(path, format="png")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    return len(metrics)


def _panels(metrics: Sequence[StepMetrics], points: Sequence[CurvePoint]) -> list[tuple[str, list[Line], bool]]:
    def metric(label: str, name: str) -> Line:
        return label, [(line.step, line.values[name]) for line in metrics if name in line.values]

    def seen(label: str, name: str) -> Line:
        return label, [(point.step, value) for point in points if (value := getattr(point, name)) is not None]

    rewards = [seen("trajectories", "reward"), metric("trained on", "critic/score/mean")]
    tools = [seen("easy", "tool_rate_easy"), seen("hard", "tool_rate_hard")]
    rates = [seen("accuracy", "accuracy"), seen("format", "format"), seen("code that runs", "execution_success")]
    return [
        ("reward", rewards, False),
        ("right answers, format, code that runs", rates, True),
        ("rollouts with a call", tools, True),
        ("turns of a rollout", [seen("turns", "turns")], False),
        ("entropy, nats", [metric("entropy", "actor/entropy")], False),
        ("gradient norm", [metric("gradient", "actor/grad_norm")], False),
        ("tokens a second, by device", [metric("tokens", "perf/throughput")], False),
    ]


def _draw_lines(axes: Any, title: str, lines: Sequence[Line], is_share: bool) -> None:
    drawn = [line for line in lines if line[1]]
    for (label, points), colour in zip(drawn, _COLOUR, strict=False):
        axes.plot(*zip(*points, strict=True), color=colour, lw=1.6, marker="o", ms=2.5, label=label)
    axes.set(title=title, xlabel="step")
    axes.xaxis.get_major_locator().set_params(integer=True)
    if is_share:
        # a little beyond, or a curve along 0 or 1 would be cut in half
        axes.set_ylim(-0.02, 1.02)
    if drawn:
        axes.legend(frameon=False, fontsize=8)
    else:
        axes.text(0.5, 0.5, "not recorded", ha="center", va="center", transform=axes.transAxes, color="#777777")


def _draw_split(axes: Any, splits: Sequence[StepSplit]) -> None:
    """Stacked bars, one a step."""
    steps = [split.step for split in splits]
    below = [0.0] * len(splits)  # seconds already stacked on each bar
    for part, colour in zip(PARTS, _COLOUR, strict=True):
        heights = [getattr(split.seconds, part) or 0.0 for split in splits]
        if any(heights):
            axes.bar(steps, heights, bottom=below, color=colour, width=0.9, label=part.replace("_", " "))
        below = [low + height for low, height in zip(below, heights, strict=True)]
    axes.set(title="seconds of a step", xlabel="step")
    axes.xaxis.get_major_locator().set_params(integer=True)
    if splits:
        axes.legend(frameon=False, fontsize=7, ncols=2)
