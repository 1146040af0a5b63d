"""Draws the figures of `benchmarks.sandbox_load`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.sandbox_plot import colour

Found = dict[str, Any]


def draw(found: Found, path: Path) -> None:
    """Latency and late sessions of the open loop, and rates by core, as a PNG."""
    figure = Figure(figsize=(15, 4.5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    latency, late, scaling = figure.subplots(1, 3)
    arrivals, machine = found["arrivals"], found["machine"]
    measured = [one for one in found["open_loop"] if one["open"]]
    _latencies(latency, measured, arrivals)
    _late(late, measured, arrivals)
    _scaling(scaling, found["scaling"])
    figure.suptitle(f"{arrivals['rate']:g} sessions a second with a crop each, {machine['cores']} cores")
    figure.savefig(path, format="png")


def _latencies(axes: Axes, measured: Sequence[Found], arrivals: Found) -> None:
    axes.set_title("latency from the moment due, ms: p50, p95, p99")
    for row, one in enumerate(measured):
        if times := one["open"]["latency_ms"]:
            points = [times["p50"], times["p95"], times["p99"]]
            axes.plot(points, [row] * 3, "-o", color=colour(one["name"]), lw=2)
            axes.annotate(f"{times['p99']:.0f}", (times["p99"], row), textcoords="offset points", xytext=(4, 6))
    axes.axvline(arrivals["deadline_s"] * 1000, color="#999999", ls=":")
    axes.set_xscale("log")
    _names(axes, measured)


def _late(axes: Axes, measured: Sequence[Found], arrivals: Found) -> None:
    axes.set_title(f"sessions late, past {arrivals['deadline_s'] * 1000:g} ms")
    shares = [one["open"]["late_share"] for one in measured]
    bars = axes.barh(range(len(measured)), shares, color=[colour(one["name"]) for one in measured])
    axes.bar_label(bars, [f"{share:.1%}" for share in shares], padding=3)
    axes.set_xlim(0, 1.15)
    _names(axes, measured)


def _scaling(axes: Axes, lines: Sequence[Found]) -> None:
    axes.set_title("calls a second and core")
    for name in dict.fromkeys(name for line in lines for name in line["calls_per_s_and_core"]):
        points = [(line["cores"], line["calls_per_s_and_core"][name]) for line in lines if name in line["calls_per_s"]]
        axes.plot(*zip(*points, strict=True), "-o", label=name)
    if lines:
        axes.legend(frameon=False)
        axes.set_xticks([line["cores"] for line in lines])
    axes.set_xlabel("cores")
    axes.set_ylim(bottom=0)


def _names(axes: Axes, measured: Sequence[Found]) -> None:
    axes.set_yticks(range(len(measured)), [one["name"] for one in measured])
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
