"""Turns what a cell shows into PNG images and text, as a notebook would.

Becomes an image: a PIL image, a matplotlib figure, and a numpy array of dtype uint8 with shape (H, W), (H, W, 1),
(H, W, 3) or (H, W, 4) whose height and width are at least `SMALLEST_IMAGE_SIDE`. Channels are taken as R, G, B(, A), as
PIL and matplotlib have them; only `cv2.imshow` takes B, G, R, as OpenCV does. Every other array prints as numbers.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from typing import Any

from . import png
from .limits import Limits
from .pixels import as_rgb
from .wire import Message

SMALLEST_IMAGE_SIDE = 16


class Display:
    """Collects the images of one cell. `send` gets each as a message `{"image": …}` as soon as it is shown."""

    def __init__(self, limits: Limits, send: Callable[[Message], None]) -> None:
        self._limits = limits
        self._send = send
        self._count = 0
        self.truncated: list[str] = []

    def show(self, value: Any) -> None:
        """Show a value as `display(value)` does: an image if it is one, else its text."""
        image = _as_image(value)
        if image is not None:
            self.show_image(image)
        elif _is_figure(value):
            self.show_figure(value)
        elif not _is_artist(value):
            print(repr(value))

    def show_image(self, image: Any) -> None:
        """Send a PIL image as RGB PNG, shrunk to the pixel bound when it is larger."""
        if self._count >= self._limits.images:
            self._note("images")
            return
        self._count += 1
        pixels = image.width * image.height
        if pixels > self._limits.image_pixels:
            scale = (self._limits.image_pixels / pixels) ** 0.5
            image = image.resize((max(1, int(image.width * scale)), max(1, int(image.height * scale))))
            self._note("image_size")
        image = as_rgb(image)
        data = png.encode(image)
        digest = hashlib.sha256(data).hexdigest()
        self._send({"image": {"png": data, "sha256": digest, "width": image.width, "height": image.height}})

    def show_figure(self, figure: Any) -> None:
        """Draw a matplotlib figure at its own resolution, on fewer inches when it would break the pixel bound."""
        from matplotlib import pyplot
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from PIL import Image

        inches = figure.get_size_inches()
        pixels = float(inches[0] * inches[1]) * figure.dpi**2
        if pixels > self._limits.image_pixels:
            figure.set_size_inches(inches * (self._limits.image_pixels / pixels) ** 0.5)
            self._note("image_size")
        canvas = figure.canvas if isinstance(figure.canvas, FigureCanvasAgg) else FigureCanvasAgg(figure)
        canvas.draw()  # type: ignore[no-untyped-call]
        image = Image.fromarray(_rgba(canvas), "RGBA")
        figure.set_size_inches(inches)
        pyplot.close(figure)
        self.show_image(image)

    def show_open_figures(self) -> None:
        """Show and close every figure pyplot still holds that has something drawn on it."""
        pyplot = sys.modules.get("matplotlib.pyplot")
        if pyplot is None:
            return
        for number in pyplot.get_fignums():
            figure = pyplot.figure(number)
            if figure.axes or figure.texts or figure.images:
                self.show_figure(figure)
        pyplot.close("all")

    def _note(self, what: str) -> None:
        if what not in self.truncated:
            self.truncated.append(what)


_active: Display | None = None


def activate(display: Display) -> None:
    """Make `display` the one that `plt.show()`, `Image.show()` and `display()` of the running cell reach."""
    global _active
    _active = display


def show(*values: Any) -> None:
    """The `display()` function cells can call."""
    for value in values:
        if _active is not None:
            _active.show(value)


def _show_open_figures(*_args: Any, **_kwargs: Any) -> None:
    if _active is not None:
        _active.show_open_figures()


def _show_bgr(_window: str, array: Any) -> None:
    import cv2

    show(cv2.cvtColor(array, cv2.COLOR_BGR2RGB) if array.ndim == 3 and array.shape[2] == 3 else array)


def install_hooks() -> None:
    """Route the show functions of PIL, matplotlib and OpenCV here. Call once, after those libraries are imported."""
    import cv2
    import matplotlib.figure
    from matplotlib import pyplot
    from PIL import Image

    Image.Image.show = lambda self, *_a, **_k: show(self)  # type: ignore[method-assign]
    pyplot.show = _show_open_figures
    matplotlib.figure.Figure.show = lambda self, *_a, **_k: show(self)  # type: ignore[method-assign]
    cv2.imshow = _show_bgr  # type: ignore[assignment]
    cv2.setNumThreads = lambda nthreads: None  # its thread pool would not survive the fork to the next cell
    cv2.waitKey = lambda *_a: -1
    cv2.destroyAllWindows = lambda: None
    cv2.destroyWindow = lambda winname: None


def _as_image(value: Any) -> Any:
    """`value` as a PIL image when the rules of this module say it is one, else None."""
    from PIL import Image

    if isinstance(value, Image.Image):
        return value
    numpy = sys.modules.get("numpy")
    if numpy is None or not isinstance(value, numpy.ndarray) or value.dtype != numpy.uint8:
        return None
    channels = value.shape[2] if value.ndim == 3 else 1
    if value.ndim not in (2, 3) or channels not in (1, 3, 4) or min(value.shape[:2]) < SMALLEST_IMAGE_SIDE:
        return None
    return Image.fromarray(numpy.ascontiguousarray(value[:, :, 0] if value.ndim == 3 and channels == 1 else value))


def _is_figure(value: Any) -> bool:
    figure = sys.modules.get("matplotlib.figure")
    return figure is not None and isinstance(value, figure.Figure)


def _is_artist(value: Any) -> bool:
    """What plotting calls return (a line, a title, a list of bars): its repr says nothing about the picture."""
    artist = sys.modules.get("matplotlib.artist")
    if artist is None:
        return False
    if isinstance(value, (list, tuple)):
        return bool(value) and all(_is_artist(item) for item in value[:50])
    return isinstance(value, artist.Artist)


def _rgba(canvas: Any) -> Any:
    import numpy

    return numpy.asarray(canvas.buffer_rgba())
