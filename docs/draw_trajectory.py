"""Draws one logged rollout as a picture: `python docs/draw_trajectory.py <run_dir>/trajectories -o trajectory.png`.

Picks the first rollout that answered rightly with code, of the kind asked for (`--kind`), unless `--record` names one.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

WIDTH = 11.0  # inches
LINE = 0.152  # inches per line of text
PADDING = 0.14
COLOURS = {"question": "#eef2f7", "assistant": "#fff7e0", "observation": "#e7f5ec"}
TITLES = {"question": "question", "assistant": "model", "observation": "sandbox"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("log", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--kind")
    parser.add_argument("--record")
    arguments = parser.parse_args()
    rollout = next(_rollouts(arguments.log, arguments.kind, arguments.record))
    draw(rollout, arguments.log, arguments.out)


def _rollouts(log: Path, kind: str | None, record: str | None) -> Iterator[dict[str, Any]]:
    for path in sorted(log.glob("*/*.jsonl")):
        for line in path.read_text().splitlines():
            rollout = json.loads(line)
            right = rollout["grade"]["verdict"] == "correct" and any(turn["execution"] for turn in rollout["turns"])
            if record == rollout["record_id"] or (record is None and right and kind in (None, rollout["kind"])):
                yield rollout


def draw(rollout: dict[str, Any], log: Path, out: Path) -> None:
    """Write the picture: the question's image on the left, the turns under one another on the right."""
    blocks = list(_blocks(rollout))
    heights = [(text.count("\n") + 1) * LINE + 2 * PADDING + 0.2 for _, text in blocks]
    height = sum(heights) + 0.1 * len(blocks)
    figure = plt.figure(figsize=(WIDTH, height), dpi=130, facecolor="white")
    image = plt.imread(log / rollout["input_images"][0]["path"])
    side = 2.6
    left = figure.add_axes((0.01, 1 - side / height - 0.02, side / WIDTH, side / height))
    left.imshow(image, interpolation="nearest")
    left.set_axis_off()
    axes = figure.add_axes(((side + 0.3) / WIDTH, 0, 1 - (side + 0.3) / WIDTH, 1))
    axes.set_xlim(0, WIDTH - side - 0.3)
    axes.set_ylim(height, 0)
    axes.set_axis_off()
    top = 0.05
    for (role, text), block_height in zip(blocks, heights, strict=True):
        _draw_block(axes, role, text, top, block_height, WIDTH - side - 0.45)
        top += block_height + 0.1
    figure.savefig(out)
    plt.close(figure)


def _blocks(rollout: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "question", rollout["question"]
    for turn in rollout["turns"]:
        yield "assistant", turn["text"].strip()
        if turn["observation"]:
            yield "observation", turn["observation"]


def _draw_block(axes: Axes, role: str, text: str, top: float, height: float, width: float) -> None:
    box = FancyBboxPatch((0.02, top), width, height, boxstyle="round,pad=0,rounding_size=0.08", linewidth=0)
    box.set_facecolor(COLOURS[role])
    axes.add_patch(box)
    axes.text(0.12, top + 0.16, TITLES[role], fontsize=7.5, color="#777777", va="center")
    axes.text(0.12, top + PADDING + 0.2, text, fontsize=9, family="monospace", va="top", parse_math=False)


if __name__ == "__main__":
    main()
