"""Charts as inline SVG. Colours come from the page's CSS variables, so that light and dark mode both work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH, HEIGHT = 380, 220
COLOURS = 12
"""The page defines the CSS variables --c0 to --c11."""

_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 10, 10, 34
_ROW = 34

Point = tuple[float, float | None]


@dataclass(frozen=True)
class Series:
    """A line through (x, y) points. A point without y leaves a gap; `colour` is below COLOURS; thin: no legend."""

    label: str
    points: Sequence[Point]
    colour: int
    thin: bool = False


@dataclass(frozen=True)
class Bar:
    """A value with its interval, in the units of the chart's range."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Comparison:
    """A row of a before-and-after chart."""

    label: str
    before: Bar
    after: Bar


@dataclass(frozen=True)
class Part:
    """A piece of a stacked bar, in seconds."""

    label: str
    seconds: float
    colour: int


def line_chart(title: str, series: Sequence[Series], *, percent: bool, x_label: str = "RL step") -> Markup:
    """Lines over a shared x axis; `percent` fixes the y axis to 0-100 %, else it fits the values."""
    xs = [x for line in series for x, y in line.points if y is not None]
    ys = [y for line in series for _, y in line.points if y is not None]
    if not xs:
        return _empty(title)
    low, high = (0.0, 1.0) if percent else _nice_range(min(ys), max(ys))
    x_scale = _Scale(min(xs), max(xs), _LEFT, WIDTH - _RIGHT)
    y_scale = _Scale(low, high, HEIGHT - _BOTTOM, _TOP)
    parts = [_y_axis(y_scale, low, high, percent), _x_axis(x_scale, x_label)]
    # Thin lines first, so that bold ones lie on top.
    for line in sorted(series, key=lambda item: not item.thin):
        style = f"line c{line.colour}" + (" thin" if line.thin else "")
        parts += [
            Markup('<polyline class="{}" points="{}"/>').format(style, run) for run in _runs(line, x_scale, y_scale)
        ]
    return _figure(title, _svg(title, WIDTH, HEIGHT, parts), _legend(series))


def comparison_chart(title: str, rows: Sequence[Comparison], labels: tuple[str, str]) -> Markup:
    """Before and after for each row on one scale from 0 to 100 %, with intervals."""
    width, left = 640, 150
    height = _ROW * len(rows) + 30
    scale = _Scale(0.0, 1.0, left, width - 16)
    parts = [_vertical_grid(scale, height)]
    for index, row in enumerate(rows):
        middle = _ROW * index + _ROW / 2
        parts.append(_text(left - 10, middle + 4, row.label, "end"))
        parts.append(_interval(row.before, scale, middle - 6, 1))
        parts.append(_interval(row.after, scale, middle + 6, 0))
    legend = _legend([Series(labels[0], [], 1), Series(labels[1], [], 0)])
    return _figure(title, _svg(title, width, height, parts), legend)


def stacked_bar(title: str, parts: Sequence[Part]) -> Markup:
    """One bar whose pieces are shares of the total seconds, with a legend that names them."""
    total = sum(part.seconds for part in parts)
    if total <= 0:
        return _empty(title)
    width, height, x = 640.0, 34, 0.0
    pieces = []
    for part in parts:
        size = part.seconds / total * width
        hint = f"{part.label}: {part.seconds:.1f} s"
        pieces.append(
            Markup('<rect class="fill c{}" x="{}" y="2" width="{}" height="30"><title>{}</title></rect>').format(
                part.colour, f"{x:.1f}", f"{size:.1f}", hint
            )
        )
        x += size
    legend = [
        Series(f"{part.label} {part.seconds:.1f} s ({part.seconds / total:.0%})", [], part.colour) for part in parts
    ]
    return _figure(title, _svg(title, int(width), height, pieces), _legend(legend))


@dataclass(frozen=True)
class _Scale:
    """Maps values from [low, high] to pixels from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        span = self.high - self.low
        # A single value stands in the middle.
        share = 0.5 if span == 0 else (value - self.low) / span
        return self.start + share * (self.end - self.start)


def _runs(line: Series, x_scale: _Scale, y_scale: _Scale) -> list[str]:
    """The line's pixel coordinates, broken where a point is missing. A lone point becomes a short dash."""
    runs: list[list[str]] = [[]]
    for x, y in line.points:
        if y is None:
            runs.append([])
        else:
            runs[-1].append(f"{x_scale(x):.1f},{y_scale(y):.1f}")
    return [" ".join(run if len(run) > 1 else run * 2) for run in runs if run]


def _interval(bar: Bar, scale: _Scale, y: float, colour: int) -> Markup:
    if bar.value is None:
        return Markup("")
    drawn = Markup("")
    if bar.low is not None and bar.high is not None:
        drawn = Markup('<line class="line c{}" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
            colour, f"{scale(bar.low):.1f}", f"{scale(bar.high):.1f}", y, y
        )
    return drawn + Markup('<circle class="fill c{}" cx="{}" cy="{}" r="4.5"/>').format(
        colour, f"{scale(bar.value):.1f}", y
    )


def _y_axis(scale: _Scale, low: float, high: float, percent: bool) -> Markup:
    drawn = Markup("")
    for index in range(5):
        value = low + (high - low) * index / 4
        label = f"{value:.0%}" if percent else f"{value:.3g}"
        y = f"{scale(value):.1f}"
        drawn += Markup('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(_LEFT, WIDTH - _RIGHT, y, y)
        drawn += _text(_LEFT - 6, scale(value) + 4, label, "end")
    return drawn


def _x_axis(scale: _Scale, label: str) -> Markup:
    drawn = _text((_LEFT + WIDTH) / 2, HEIGHT - 4, label, "middle")
    for value in sorted({scale.low, (scale.low + scale.high) // 2, scale.high}):
        drawn += _text(scale(value), HEIGHT - _BOTTOM + 16, f"{value:g}", "middle")
    return drawn


def _vertical_grid(scale: _Scale, height: float) -> Markup:
    drawn = Markup("")
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = f"{scale(share):.1f}"
        drawn += Markup('<line class="grid" x1="{}" x2="{}" y1="0" y2="{}"/>').format(x, x, height - 24)
        drawn += _text(scale(share), height - 8, f"{share:.0%}", "middle")
    return drawn


def _nice_range(low: float, high: float) -> tuple[float, float]:
    """A range that holds the values, zero if it is near, and some room."""
    # Zero is near where it is closer to the lowest value than the values span.
    low = min(low, 0.0) if low < (high - low) else low
    room = (high - low) * 0.08 or max(abs(high), 1.0) * 0.1
    return (low if low == 0 else low - room), high + room


def _text(x: float, y: float, text: str, anchor: str) -> Markup:
    return Markup('<text x="{}" y="{}" text-anchor="{}">{}</text>').format(f"{x:.1f}", f"{y:.1f}", anchor, text)


def _svg(title: str, width: int, height: int, parts: Sequence[Markup]) -> Markup:
    head = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">').format(width, height, title)
    return head + Markup("").join(parts) + Markup("</svg>")


def _legend(series: Sequence[Series]) -> Markup:
    keys = [
        Markup('<span class="key"><i class="c{}"></i>{}</span>').format(line.colour, line.label)
        for line in series
        if not line.thin
    ]
    return Markup('<div class="legend">') + Markup("").join(keys) + Markup("</div>")


def _figure(title: str, chart: Markup, legend: Markup) -> Markup:
    return Markup("<figure><figcaption>{}</figcaption>").format(escape(title)) + chart + legend + Markup("</figure>")


def _empty(title: str) -> Markup:
    return _figure(title, Markup('<p class="muted">not recorded</p>'), Markup(""))
