"""Turns what a cell shows into PNG images and text, as a notebook would.

Becomes an image: a PIL image, a matplotlib figure, and a numpy array of dtype uint8 with shape (H, W), (H, W, 1),
(H, W, 3) or (H, W, 4) whose height and width are at least `SMALLEST_IMAGE_SIDE`; of dtype float too where it has 3 or 4
channels and all values are between 0 and 1. Channels are taken as R, G, B(, A), as PIL and matplotlib have them; only
`cv2.imshow` takes B, G, R, as OpenCV does. Every other array prints as numbers.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from . import png
from .limits import Limits
from .pixels import as_rgb
from .wire import Message

SMALLEST_IMAGE_SIDE = 16
MOST_CUTS = 8
"""Most entries of `truncated` about sizes."""


class Display:
    """Collector of the images of one cell. `send` gets each as a message `{"image": …}` as soon as it is shown."""

    def __init__(self, limits: Limits, send: Callable[[Message], None]) -> None:
        self._limits = limits
        self._send = send
        self._count = 0
        self._dropped = 0
        self._shrunk: list[str] = []

    def show(self, value: Any) -> None:
        """Shows a value as `display(value)` does: an image if it is one, else its text."""
        image = _as_image(value)
        if image is not None:
            self.show_image(image)
        elif callable(shows_itself := getattr(type(value), "codedance_show", None)):
            shows_itself(value, self)
        elif isinstance(value, getattr(sys.modules.get("matplotlib.figure"), "Figure", ())):
            self.show_figure(value)
        elif not _is_artist(value):
            print(repr(value))

    def show_image(self, image: Any) -> None:
        """Sends a PIL image as RGB PNG, shrunk to the pixel bound when it is larger.

        Raises `ValueError` when it has no pixels.
        """
        if 0 in image.size:
            raise ValueError(f"an image of {image.width} x {image.height} has no pixels: nothing can be shown")
        # Before the conversion, which costs time and memory.
        if self._count >= self._limits.images:
            self._dropped += 1
            return
        self._count += 1
        width, height = image.size
        if width * height > self._limits.image_pixels:
            # Area by the bound, so sides by its square root.
            scale = (self._limits.image_pixels / (width * height)) ** 0.5
            size = (max(1, int(width * scale)), max(1, int(height * scale)))
            image = image.resize(size, reducing_gap=2.0)  # a tenth of the time for very large ones
            self._note_size(width, height, image)
        self._send({"image": {"png": png.encode(as_rgb(image))}})

    def show_figure(self, figure: Any) -> None:
        """Draws a matplotlib figure at its own resolution, on fewer inches when it would break the pixel bound.

        An empty one, which `plt.gcf()` makes after a `plt.show()`, shows nothing.
        """
        import numpy
        from matplotlib import pyplot
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from PIL import Image

        if not _is_drawn_on(figure):
            return
        inches = figure.get_size_inches()
        width, height = (int(side * figure.dpi) for side in inches)
        if min(width, height) < 1:
            pyplot.close(figure)
            raise ValueError(f"a figure of {inches[0]:g} x {inches[1]:g} inches has no pixels: nothing can be shown")
        shrink = width * height > self._limits.image_pixels
        if shrink:
            figure.set_size_inches(inches * (self._limits.image_pixels / (width * height)) ** 0.5)
        # A canvas of another kind (PDF, SVG) has no pixels.
        canvas = figure.canvas if isinstance(figure.canvas, FigureCanvasAgg) else FigureCanvasAgg(figure)
        canvas.draw()  # type: ignore[no-untyped-call]
        pixels = numpy.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
        image = Image.fromarray(pixels, "RGBA")
        if shrink:
            self._note_size(width, height, image)
        figure.set_size_inches(inches)  # code may use the figure again
        pyplot.close(figure)
        self.show_image(image)

    def show_open_figures(self) -> None:
        """Shows and closes every figure that pyplot still holds."""
        pyplot = sys.modules.get("matplotlib.pyplot")
        if pyplot is None:
            return
        for number in pyplot.get_fignums():
            self.show_figure(pyplot.figure(number))
        pyplot.close("all")

    @property
    def truncated(self) -> list[str]:
        """Entries of what was cut: the number of images dropped, and each size that was shrunk with its new one."""
        return [*([f"images: {self._dropped} dropped"] if self._dropped else []), *self._shrunk]

    def _note_size(self, width: int, height: int, image: Any) -> None:
        if len(self._shrunk) < MOST_CUTS:
            self._shrunk.append(f"image_size: {width} x {height} to {image.width} x {image.height}")


_active: Display | None = None


def activate(display: Display) -> None:
    """Makes `display` the one that `plt.show()`, `Image.show()` and `display()` of the running cell reach."""
    global _active
    _active = display


def show(*values: Any, **_options: Any) -> None:
    """The `display()` function cells can call; what IPython's takes beside values (`metadata`, ...) has no effect."""
    for value in values:
        if _active is not None:
            _active.show(value)


def show_open_figures(*_args: Any, **_kwargs: Any) -> None:
    """The `plt.show()` of cells."""
    if _active is not None:
        _active.show_open_figures()


def show_image(image: Any) -> None:
    """Shows a PIL image whatever its size."""
    if _active is not None:
        _active.show_image(image)


def _as_image(value: Any) -> Any:
    """Returns `value` as a PIL image where the rules of this module make it one, else None."""
    from PIL import Image

    if isinstance(value, Image.Image):
        return value
    numpy = sys.modules.get("numpy")
    if numpy is None or not isinstance(value, numpy.ndarray) or value.ndim not in (2, 3):
        return None
    # value: (H, W) or (H, W, channels)
    channels = value.shape[2] if value.ndim == 3 else 1
    if channels in (3, 4) and value.dtype == numpy.uint8 and 0 in value.shape:
        return Image.new("RGB", (value.shape[1], value.shape[0]))  # without pixels: the caller says so
    # Smaller ones are matrices: their numbers say more than their image.
    if channels not in (1, 3, 4) or min(value.shape[:2]) < SMALLEST_IMAGE_SIDE:
        return None
    # Of one channel, floats from 0 to 1 may as well be probabilities or a mask: they print as numbers.
    if channels > 1 and value.dtype in (numpy.float16, numpy.float32, numpy.float64):
        value = fractions_as_bytes(value) if ((value >= 0) & (value <= 1)).all() else value
    return image_of(value) if value.dtype == numpy.uint8 else None


def fractions_as_bytes(array: Any) -> Any:
    """Converts floats from 0 to 1 to uint8 from 0 to 255, as matplotlib and OpenCV show them; others are clipped."""
    import numpy

    return numpy.rint(numpy.clip(numpy.nan_to_num(array), 0, 1) * 255).astype(numpy.uint8)


def image_of(array: Any) -> Any:
    """Converts a uint8 array of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) to a PIL image."""
    import numpy
    from PIL import Image

    return Image.fromarray(numpy.ascontiguousarray(array[:, :, 0] if array.shape[2:] == (1,) else array))


def _is_drawn_on(figure: Any) -> bool:
    parts = (figure.axes, figure.texts, figure.images, figure.lines, figure.patches, figure.legends, figure.artists)
    return any(map(len, parts)) or bool(figure.subfigs)


def _is_artist(value: Any) -> bool:
    """Returns true for what plotting calls return (a line, a title, bars): its repr says nothing about the figure."""
    artist = sys.modules.get("matplotlib.artist")
    if artist is None:
        return False
    if isinstance(value, (list, tuple)):
        return bool(value) and all(_is_artist(item) for item in value[:50])
    return isinstance(value, artist.Artist)
