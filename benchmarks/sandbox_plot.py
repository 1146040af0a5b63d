"""Draws the figures of `benchmarks.sandbox`: `python -m benchmarks.sandbox_plot results.json plot.png`."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

from benchmarks.sandbox_bars import RELEASE

Found = dict[str, Any]
Value = Callable[[Found], float | None]

_PANELS = ("open", "trivial", "crop", "figure")
_COLOURS = {
    "ours (docker)": "#0b5fa5",
    "ours (docker, Ray)": "#6a3d9a",
    "ours (process)": "#58a6dd",
    "bare exec": "#777777",
    "plain processes": "#b0893b",
    "a container each": "#c44e52",
    "a process each": "#8c6d31",
    "llm-sandbox": "#dd8452",
    "Jupyter kernels": "#55a868",
}
_OTHER = "#000000"


def draw(found: Found, path: Path) -> None:
    """Latency, throughput and memory against the number of sessions, as a PNG."""
    contenders = [one for one in found["contenders"] if one["levels"]]
    figure = Figure(figsize=(17, 8.5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(2, len(_PANELS) + 1, squeeze=False)
    for column, name in enumerate(_PANELS):
        _latencies(grid[0, column], contenders, name)
        _throughputs(grid[1, column], contenders, name)
    _memory(grid[0, -1], contenders)
    _legend(grid[1, -1], contenders)
    grid[0, 0].set_ylabel("latency, ms")
    grid[1, 0].set_ylabel("calls per second")
    machine = found["machine"]
    figure.suptitle(f"Sandbox sessions side by side, {machine['cores']} cores, {machine['memory_gib']:g} GiB")
    figure.savefig(path, format="png")


def _latencies(axes: Axes, contenders: Sequence[Found], name: str) -> None:
    axes.set_title(f"{name}: p50, and p99 dotted")
    _lines(axes, contenders, name, lambda measure: measure["latency_ms"]["p50"], "-")
    _lines(axes, contenders, name, lambda measure: measure["latency_ms"]["p99"], ":")
    marks = [(item.sessions, item.p50_ms) for item in RELEASE if item.cell == name and item.p50_ms]
    _finish(axes, contenders, marks)


def _throughputs(axes: Axes, contenders: Sequence[Found], name: str) -> None:
    axes.set_title(f"{name}: throughput")
    _lines(axes, contenders, name, lambda measure: measure["calls_per_s"], "-")
    marks = [(item.sessions, item.calls_per_s) for item in RELEASE if item.cell == name and item.calls_per_s]
    _finish(axes, contenders, marks)
    axes.set_xlabel("concurrent sessions")


def _lines(axes: Axes, contenders: Sequence[Found], name: str, value: Value, style: str) -> None:
    for contender in contenders:
        points = [
            (level["sessions"], value(level["measures"][name]))
            for level in contender["levels"]
            if level["measures"].get(name, {}).get("latency_ms")
        ]
        if points:
            width = 2.4 if contender["name"].startswith("ours") else 1.3
            width = width if style == "-" else 1.0
            axes.plot(
                *zip(*points, strict=True), style, marker="o", markersize=4, lw=width, color=colour(contender["name"])
            )


def _finish(axes: Axes, contenders: Sequence[Found], release: Sequence[tuple[int, float]]) -> None:
    for sessions, value in release:
        axes.plot([sessions], [value], "kx", markersize=8, markeredgewidth=2)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(sorted({level["sessions"] for one in contenders for level in one["levels"]}))
    plain = FuncFormatter(lambda value, _position: f"{value:g}")
    axes.xaxis.set_major_formatter(plain)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(plain)
    axes.yaxis.set_minor_formatter(NullFormatter())
    low, high = axes.get_ylim()
    axes.set_ylim(10 ** math.floor(math.log10(low)), 10 ** math.ceil(math.log10(high)))
    axes.grid(alpha=0.3)


def _memory(axes: Axes, contenders: Sequence[Found]) -> None:
    """All that serves, by session, at the most sessions each contender was weighed with."""
    weighed = []
    for contender in contenders:
        known = [level for level in contender["levels"] if level["memory_mib"] is not None and level["sessions"] > 1]
        weighed += [(contender, known[-1])] if known else []
    axes.set_title("MiB a session, base included")
    if not weighed:
        axes.text(0.5, 0.5, "not measured", ha="center")
        return
    names = [f"{contender['name']}\n{level['sessions']} sessions" for contender, level in weighed]
    values = [max(level["memory_mib"] + level["base_mib"] / level["sessions"], 0.01) for _, level in weighed]
    bars = axes.barh(names, values, color=[colour(contender["name"]) for contender, _ in weighed])
    axes.bar_label(bars, [f"{value:.1f}" for value in values], padding=3)
    axes.set_xscale("log")
    axes.margins(x=0.25)
    axes.invert_yaxis()


def _legend(axes: Axes, contenders: Sequence[Found]) -> None:
    axes.axis("off")
    for contender in contenders:
        label = f"{contender['name']}{'' if contender['isolated'] else ' (not isolated)'}"
        axes.plot([], [], "-o", color=colour(contender["name"]), lw=2, label=label)
    axes.plot([], [], "kx", markersize=8, markeredgewidth=2, label="published release,\nmeasured elsewhere")
    axes.legend(loc="center", frameon=False)


def colour(name: str) -> str:
    """Returns the colour of a contender."""
    return _COLOURS.get(name, _OTHER)


def main() -> None:
    source, target = map(Path, sys.argv[1:3])
    draw(json.loads(source.read_text(encoding="utf-8")), target)


if __name__ == "__main__":
    main()
