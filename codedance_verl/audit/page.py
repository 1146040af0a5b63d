"""Renderer of `audit.html`: the findings as one page without scripts or outside resources, of bounded size.

Questions, answers and names come from data files and are hostile: jinja2 escapes them, control and direction
characters are shown, images are decoded and encoded again.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL import Image

from codedance_verl.audit.comparison import Compared
from codedance_verl.audit.findings import Findings
from codedance_verl.audit.image_store import Small, SmallImages
from codedance_verl.audit.lengths import Histogram
from codedance_verl.runtime.atomic import write_atomically
from codedance_verl.viewer.text import shown, templates

MOST_PAIRS = 200
"""Pairs of images, and matches of questions, that the page shows; `audit.json` has all."""

MAX_SIDE = 220
"""Pixels of the larger side of an image on the page."""

_SHOWN_CHARS = 400
_MOST_ROWS = 60  # data sources of the table of balance
_TEMPLATES = Path(__file__).parent / "templates"
_NARROWEST = 8  # pixels of the smaller side


def write_page(path: Path, found: Findings, compared: Compared) -> None:
    """Writes the page, whole or not at all. Raises OSError."""
    write_atomically(path, render(found, compared))


def render(found: Findings, compared: Compared) -> str:
    """The page as HTML."""
    environment = templates(_TEMPLATES, clipped=_clipped, count=lambda number: f"{number:,}")
    pairs = [
        (
            pair,
            _source(compared.evaluation.store.small, pair.evaluation_image),
            _source(compared.shown, pair.training_image),
        )
        for pair in found.image_pairs[:MOST_PAIRS]
    ]
    return environment.get_template("audit.html.j2").render(
        found=found,
        pairs=pairs,
        more_pairs=len(found.image_pairs) - len(pairs),
        matches=found.question_matches[:MOST_PAIRS],
        more_matches=max(0, len(found.question_matches) - MOST_PAIRS),
        balance=found.balance[:_MOST_ROWS],
        more_balance=max(0, len(found.balance) - _MOST_ROWS),
        bars=_bars,
        percent=_percent,
    )


def _source(images: SmallImages, number: int) -> str:
    """Address of an image with its data, in the shape that it had."""
    return data_address(images[number])


def data_address(small: Small) -> str:
    """`data:` address of a JPEG of at most `MAX_SIDE` pixels a side, in the shape of the image."""
    width, height = small.size
    ratio = min(1.0, MAX_SIDE / max(width, height))
    size = (max(_NARROWEST, round(width * ratio)), max(_NARROWEST, round(height * ratio)))
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(small.jpeg), formats=["JPEG"]) as opened:
        opened.resize(size, Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _clipped(text: str) -> str:
    part = shown(text, _SHOWN_CHARS)
    return f"{part.head} [... {part.left_out} characters left out ...] {part.tail}" if part.left_out else part.head


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "none"


def _bars(histogram: Histogram) -> list[tuple[int, int, int, float]]:
    """Lower edge, upper edge, count, and percent of the largest count, of each bin."""
    largest = max(histogram.counts, default=0) or 1
    edges = zip(histogram.edges, histogram.edges[1:], strict=False)
    return [
        (low, high - 1, count, 100 * count / largest)
        for (low, high), count in zip(edges, histogram.counts, strict=True)
    ]
