"""Images for the measurement of the audit: distinct ones of three kinds, and edits that make copies of them.

Photographs are windows of those that scikit-image, scikit-learn and matplotlib carry; no two windows of one scale
overlap, and one of a larger scale shows at least four times the area of one within it. Charts are of one template:
frame, title, axes and ticks are the same, the data differ. Drawings are lines, circles and triangles.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import matplotlib
import numpy as np
import skimage
import sklearn
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageEnhance

PHOTOGRAPH_SIDE = 320
_WINDOWS = (192, 96, 64)  # pixels; each is enlarged to PHOTOGRAPH_SIDE
_LEAST_DEVIATION = 12.0  # grey levels: plain sky shows nothing that could be told apart
_NAMES = (
    *("astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "grass.png", "gravel.png"),
    *("hubble_deep_field.jpg", "ihc.png", "moon.png", "motorcycle_left.png", "retina.jpg", "rocket.jpg"),
)


def photographs(count: int, seed: int) -> list[Image.Image]:
    """Windows of photographs, in an order that the seed draws."""
    found: list[tuple[Path, tuple[int, int, int, int]]] = []
    for path in _photograph_files():
        with Image.open(path) as opened:
            grey = np.asarray(opened.convert("L"), np.float32)
        for side in _WINDOWS:
            for top in range(0, grey.shape[0] - side + 1, side):
                for left in range(0, grey.shape[1] - side + 1, side):
                    if grey[top : top + side, left : left + side].std() >= _LEAST_DEVIATION:
                        found.append((path, (left, top, left + side, top + side)))
    order = np.random.default_rng(seed).permutation(len(found))[:count]
    return [_window(*found[number]) for number in order]


def _photograph_files() -> list[Path]:
    """Files of photographs that installed packages carry."""
    pictures = Path(skimage.__file__).parent / "data"
    others = [Path(sklearn.__file__).parent / "datasets" / "images" / name for name in ("china.jpg", "flower.jpg")]
    others.append(Path(matplotlib.__file__).parent / "mpl-data" / "sample_data" / "grace_hopper.jpg")
    return [path for path in [*(pictures / name for name in _NAMES), *others] if path.is_file()]


def _window(path: Path, box: tuple[int, int, int, int]) -> Image.Image:
    with Image.open(path) as opened:
        return opened.convert("RGB").crop(box).resize((PHOTOGRAPH_SIDE, PHOTOGRAPH_SIDE), Image.Resampling.LANCZOS)


def charts(count: int, seed: int) -> list[Image.Image]:
    """Bar and line charts of one template each, 400 x 300, axes from 0 to 100."""
    draws = np.random.default_rng(seed)
    return [_chart(draws, lines=bool(number % 2)) for number in range(count)]


def _chart(draws: np.random.Generator, lines: bool) -> Image.Image:
    figure = Figure(figsize=(4, 3), dpi=100)
    axes = figure.add_axes((0.12, 0.12, 0.84, 0.76))
    values = draws.uniform(10, 95, (2, 8))
    if lines:
        for row in values:
            axes.plot(row)
    else:
        axes.bar(np.arange(8), values[0])
    axes.set_ylim(0, 100)
    axes.set_xticks(range(8), [str(year) for year in range(2010, 2018)])
    axes.set_title("Share of respondents by year")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    with Image.open(buffer) as opened:
        return opened.convert("RGB")


def drawings(count: int, seed: int) -> list[Image.Image]:
    """Black lines on white, 320 x 320: a triangle, a circle, lines, with letters at their corners."""
    draws = np.random.default_rng(seed)
    return [_drawing(draws) for _ in range(count)]


def _drawing(draws: np.random.Generator) -> Image.Image:
    image = Image.new("RGB", (320, 320), "white")
    pen = ImageDraw.Draw(image)
    corners = [tuple(map(float, corner)) for corner in draws.uniform(30, 290, (3, 2))]
    pen.polygon(corners, outline="black", width=2)
    for letter, (left, top) in zip("ABC", corners, strict=True):
        pen.text((left + 4, top - 12), letter, fill="black")
    left, top, radius = draws.uniform(90, 230), draws.uniform(90, 230), draws.uniform(20, 80)
    pen.ellipse((left - radius, top - radius, left + radius, top + radius), outline="black", width=2)
    for start, end in draws.uniform(10, 310, (2, 2, 2)):
        pen.line((*start, *end), fill="black", width=2)
    return image


KINDS: dict[str, Callable[[int, int], list[Image.Image]]] = {
    "photograph": photographs,
    "chart": charts,
    "drawing": drawings,
}


def reencoded(image: Image.Image, draws: np.random.Generator) -> bytes:
    """JPEG of quality 30 to 70."""
    return encoded(image, int(draws.integers(30, 71)))


def resized(image: Image.Image, draws: np.random.Generator) -> bytes:
    """Half or third of the size, or a square of another size."""
    width, height = image.size
    sizes = ((width // 2, height // 2), (width // 3, height // 3), (256, 256))
    return encoded(image.resize(sizes[int(draws.integers(3))], Image.Resampling.BICUBIC))


def cropped(image: Image.Image, draws: np.random.Generator) -> bytes:
    """95 % of each side, at any offset."""
    width, height = round(0.95 * image.width), round(0.95 * image.height)
    left, top = int(draws.integers(image.width - width + 1)), int(draws.integers(image.height - height + 1))
    return encoded(image.crop((left, top, left + width, top + height)))


def recoloured(image: Image.Image, draws: np.random.Generator) -> bytes:
    """Grey, brighter or darker, more or less contrast, gamma, turned hue, or swapped channels."""
    factor = float(draws.choice([0.7, 1.3]))
    change = int(draws.integers(6))
    if change == 0:
        image = image.convert("L").convert("RGB")
    elif change == 1:
        image = ImageEnhance.Brightness(image).enhance(factor)
    elif change == 2:
        image = ImageEnhance.Contrast(image).enhance(factor)
    elif change == 3:
        gamma = float(draws.choice([0.7, 1.4]))
        image = image.point([round(255 * (level / 255) ** gamma) for level in range(256)] * 3)
    elif change == 4:
        hue, saturation, value = image.convert("HSV").split()
        turn = int(draws.integers(20, 236))
        hue = hue.point([(level + turn) % 256 for level in range(256)])
        image = Image.merge("HSV", (hue, saturation, value)).convert("RGB")
    else:
        image = Image.merge("RGB", image.split()[::-1])
    return encoded(image)


EDITS: dict[str, Callable[[Image.Image, np.random.Generator], bytes]] = {
    "re-encoded": reencoded,
    "resized": resized,
    "cropped": cropped,
    "recoloured": recoloured,
}


def copies(originals: list[Image.Image], seed: int) -> Iterator[tuple[str, int, bytes]]:
    """Edit, number of the original, and the encoded copy: each original once by each edit."""
    draws = np.random.default_rng(seed)
    for edit, make in EDITS.items():
        for number, image in enumerate(originals):
            yield edit, number, make(image, draws)


def encoded(image: Image.Image, quality: int = 85) -> bytes:
    """JPEG file."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
