"""Draws the image of docs/data.md: `python docs/draw_generators.py -o docs/pictures`.

`generators.png`: one question of each kind at levels 1, 3 and 5, with its answer and a frame around the evidence.
"""

from __future__ import annotations

import argparse
import io
import textwrap
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle
from PIL import Image

from codedance_verl.generators.choices import Split
from codedance_verl.generators.item import Item
from codedance_verl.generators.kinds import KINDS, draw_item

SHOWN_LEVELS = (1, 3, 5)
SEED = 1
_FRAME = "#c0189a"
_BETWEEN = 6
"""Pixels between the images of one question."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder of the images")
    draw_sheet(parser.parse_args().out / "generators.png")


def draw_sheet(path: Path) -> None:
    """Sheet of the kinds by level."""
    figure, panels = plt.subplots(len(SHOWN_LEVELS), len(KINDS), figsize=(17, 11.4), dpi=75, layout="constrained")
    for row, level in zip(panels, SHOWN_LEVELS, strict=True):
        for panel, (name, kind) in zip(row, KINDS.items(), strict=True):
            _show(panel, draw_item(name, kind.settings(level, {}), SEED, Split.TRAIN, level), f"{name}, level {level}")
    drawn = io.BytesIO()
    figure.savefig(drawn)
    plt.close(figure)
    # noise does not compress: a palette makes a quarter of it, and an octree keeps the few colours of the objects
    sheet = Image.open(drawn).convert("RGB")
    sheet.quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(path, optimize=True)


def _show(panel: Any, item: Item, title: str) -> None:
    """One question: its images side by side, words below."""
    lefts = np.cumsum([0, *(image.width + _BETWEEN for image in item.images)]).tolist()
    for left, image in zip(lefts, item.images, strict=False):
        panel.imshow(np.asarray(image), extent=(left, left + image.width, image.height, 0))
    for region in item.regions:
        left, top, right, bottom = region.box
        corner = (left + lefts[region.image] - 2, top - 2)
        panel.add_patch(Rectangle(corner, right - left + 4, bottom - top + 4, fill=False, ec=_FRAME, lw=1.2))
    panel.set_xlim(0, lefts[-1] - _BETWEEN)
    panel.set_ylim(max(image.height for image in item.images), 0)
    panel.set_xticks([])
    panel.set_yticks([])
    panel.set_title(title, fontsize=11)
    panel.set_xlabel(textwrap.fill(f"{item.question} → {item.answer}", 46), fontsize=9)


if __name__ == "__main__":
    main()
