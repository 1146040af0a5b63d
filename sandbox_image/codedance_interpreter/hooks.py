"""Hooks that route what libraries do with screens, fonts and processes to what the sandbox has."""

from __future__ import annotations

import logging
import sys
from typing import Any

from . import display, fonts, hints, magics, shims, warning_text

_BACKENDS = ("agg", "pdf", "svg", "ps", "pgf", "cairo", "template")
_WINDOW_FUNCTIONS: dict[str, object] = {
    **dict.fromkeys(("namedWindow", "resizeWindow", "moveWindow", "destroyAllWindows", "destroyWindow")),
    **dict.fromkeys(("setWindowTitle", "setWindowProperty", "setMouseCallback", "createTrackbar")),
    **dict.fromkeys(("setTrackbarPos", "setTrackbarMin", "setTrackbarMax")),
    **dict.fromkeys(("waitKey", "waitKeyEx", "pollKey"), -1),  # where no key was pressed
    **dict.fromkeys(("startWindowThread", "getTrackbarPos"), 0),
    "getWindowProperty": -1.0,
    "getWindowImageRect": (-1, -1, -1, -1),
}
"""Functions of OpenCV for windows, each with what it returns here."""


def install() -> dict[str, Any]:
    """Installs all hooks, once, after PIL, matplotlib and OpenCV are imported. Returns names for cells to have."""
    notebook = magics.install()
    shims.install(notebook)
    _install_in_pil()
    _install_in_matplotlib()
    _install_in_opencv()
    fonts.install()
    warning_text.install()
    _fork_instead_of_spawn()
    sys.breakpointhook = lambda *_a, **_k: None
    return {"get_ipython": shims.get_ipython}


def _install_in_pil() -> None:
    from PIL import Image, ImageShow

    Image.Image.show = lambda self, *_a, **_k: display.show(self)  # type: ignore[method-assign]
    ImageShow.show = _show_titled


def _show_titled(image: Any, *_args: Any, **_options: Any) -> bool:
    """Replacement of `ImageShow.show`."""
    display.show(image)
    return True


def _install_in_matplotlib() -> None:
    import matplotlib as mpl
    import matplotlib.backend_bases
    import matplotlib.figure
    from matplotlib import pyplot

    use, switch = mpl.use, pyplot.switch_backend

    def use_agg(backend: Any, *args: Any, **kwargs: Any) -> None:
        if _is_here(backend):
            use(backend, *args, **kwargs)

    def switch_agg(newbackend: Any) -> None:
        if _is_here(newbackend):
            switch(newbackend)

    mpl.use = use_agg
    pyplot.switch_backend = switch_agg
    pyplot.show = display.show_open_figures
    mpl.figure.Figure.show = lambda self, *_a, **_k: display.show(self)  # type: ignore[method-assign]
    mpl.backend_bases.FigureManagerBase.window = _Window()  # type: ignore[attr-defined]
    logging.getLogger("matplotlib.font_manager").addFilter(_OncePerText())


class _Window:
    """Window of a figure, for code that maximizes, moves or names it: no effect."""

    def __getattr__(self, name: str) -> Any:
        # Special methods are looked up by copying and pickling, which must not find a function.
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *_a, **_k: None


def _is_here(backend: Any) -> bool:
    """Returns true for a backend that can draw here; for one with windows, prints that it is ignored."""
    if not isinstance(backend, str) or backend.lower() in _BACKENDS or backend.startswith("module://"):
        return not (isinstance(backend, str) and "inline" in backend)
    if "inline" not in backend.lower():
        print(f"(The backend stays Agg instead of {backend[:40]}: {hints.NO_WINDOWS}.)")
    return False


class _OncePerText(logging.Filter):
    """Filter that lets every message through once: matplotlib says the same for every text it draws."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        # Bounded: a cell could draw any number of texts.
        if record.levelno < logging.WARNING or len(self._seen) > 200:
            return record.levelno >= logging.ERROR
        text = record.getMessage()
        new = text not in self._seen
        self._seen.add(text)
        return new


def _install_in_opencv() -> None:
    import cv2

    cv2.imshow = _show_bgr
    cv2.setNumThreads = lambda nthreads: None  # its thread pool would not survive the fork to the next cell
    for name, result in _WINDOW_FUNCTIONS.items():
        setattr(cv2, name, lambda *_a, _result=result, **_k: _result)


def _show_bgr(winname: Any, mat: Any) -> None:
    """Replacement of `cv2.imshow`: floats are taken as 0..1, 16 bits as 0..65535, channels as B, G, R(, A)."""
    import cv2
    import numpy

    if mat is None:
        raise ValueError("cv2.imshow was given None instead of an image: did cv2.imread find its file?")
    array = numpy.asarray(mat.get() if hasattr(mat, "get") else mat)
    if array.ndim not in (2, 3) or array.shape[2:] not in ((), (1,), (3,), (4,)):
        raise ValueError(f"cv2.imshow needs an image of shape (H, W), (H, W, 3) or (H, W, 4), not {array.shape}")
    if array.size == 0:
        raise ValueError(f"an image of {array.shape[1]} x {array.shape[0]} has no pixels: nothing can be shown")
    if array.dtype.kind == "f":
        array = display.fractions_as_bytes(array)
    elif array.dtype == bool:
        array = array.astype(numpy.uint8) * 255
    elif array.dtype in (numpy.uint16, numpy.int32):
        array = numpy.clip(array // 256, 0, 255)
    array = numpy.ascontiguousarray(numpy.clip(array, 0, 255).astype(numpy.uint8))
    # OpenCV has B, G, R; PIL and the model have R, G, B.
    swap = {3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGB}.get(array.shape[2] if array.ndim == 3 else 1)
    display.show_image(display.image_of(array if swap is None else cv2.cvtColor(array, swap)))


def _fork_instead_of_spawn() -> None:
    """Makes `spawn` and `forkserver` start processes by fork, as Linux does by default.

    A spawned process imports the module `__main__` from its file, and cells have none: its workers would fail and be
    started again without end.
    """
    import multiprocessing.context as contexts

    methods = contexts._concrete_contexts  # type: ignore[attr-defined]
    methods["spawn"] = methods["forkserver"] = methods["fork"]
