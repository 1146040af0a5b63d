"""Small curves over steps as SVG paths, drawn without a script.

matplotlib's SVG is no choice here: it has `style` attributes, which the pages' Content-Security-Policy forbids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT, PAD = 240, 56, 4


@dataclass(frozen=True)
class Spark:
    """A curve: its name, the values at both ends and the SVG path; `width` and `height` are those of its box."""

    name: str
    first: float
    last: float
    low: float
    high: float
    path: str
    width: int = WIDTH
    height: int = HEIGHT


def spark(name: str, points: Sequence[tuple[int, float | None]]) -> Spark | None:
    """A curve through the points that have a value; None for fewer than two."""
    known = [(step, value) for step, value in points if value is not None]
    if len(known) < 2:
        return None
    values = [value for _, value in known]
    low, high, left, right = min(values), max(values), known[0][0], known[-1][0]
    # Pixels per step and per unit of value; y grows downwards in SVG.
    across = (WIDTH - 2 * PAD) / max(right - left, 1)
    up = (HEIGHT - 2 * PAD) / (high - low) if high > low else 0.0
    places = [
        f"{PAD + (step - left) * across:.1f},{HEIGHT - PAD - (value - low) * up if up else HEIGHT / 2:.1f}"
        for step, value in known
    ]
    return Spark(name, values[0], values[-1], low, high, "M" + " L".join(places))
