"""Notebook semantics of one cell, run in this process: what is shown, and how errors read."""

from __future__ import annotations

import builtins
import io
import multiprocessing.context as contexts
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from typing import Any

import cv2
import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import font_manager
from matplotlib import pyplot as plt
from matplotlib._mathtext import UnicodeFonts
from matplotlib.backend_bases import FigureManagerBase
from matplotlib.figure import Figure
from PIL import Image, ImageFont, ImageShow

from sandbox_image.codedance_interpreter import display, hooks, shims
from sandbox_image.codedance_interpreter.cell import run_cell
from sandbox_image.codedance_interpreter.limits import Limits

LIMITS = Limits(1, 1, 1, 1, stdout_bytes=1000, images=3, image_pixels=200_000)


@dataclass
class Cells:
    """Runs cells over one namespace and keeps what they showed."""

    namespace: dict[str, Any] = field(default_factory=lambda: {"display": display.show})
    number: int = 0

    def run(self, code: str) -> Cells:
        self.number += 1
        messages: list[dict[str, Any]] = []
        shown = display.Display(LIMITS, messages.append)
        display.activate(shown)
        out = io.StringIO()
        with redirect_stdout(out):
            self.error = run_cell(code, self.number, self.namespace, shown)
        self.stdout = out.getvalue()
        self.images = [Image.open(io.BytesIO(message["image"]["png"])) for message in messages]
        self.truncated = shown.truncated
        return self


HOOKED: tuple[tuple[Any, tuple[str, ...]], ...] = (
    (cv2, ("imshow", "setNumThreads", "waitKey", "waitKeyEx", "pollKey", "namedWindow", "resizeWindow", "moveWindow")),
    (cv2, ("destroyAllWindows", "destroyWindow", "setWindowTitle", "setWindowProperty", "createTrackbar")),
    (cv2, ("setTrackbarPos", "setTrackbarMin", "setTrackbarMax", "getTrackbarPos", "setMouseCallback")),
    (cv2, ("startWindowThread", "getWindowProperty", "getWindowImageRect")),
    (Image.Image, ("show",)),
    (ImageShow, ("show",)),
    (ImageFont, ("truetype",)),
    (ImageFont.FreeTypeFont, ("getmask2", "getmask", "getbbox", "getlength")),
    (mpl, ("use",)),
    (plt, ("show", "switch_backend")),
    (Figure, ("show",)),
    (font_manager, ("findfont",)),
    (font_manager.FontManager, ("findfont", "_find_fonts_by_props", "_expand_aliases")),
    (UnicodeFonts, ("_get_glyph",)),
    (warnings, ("showwarning", "formatwarning")),
    (traceback.StackSummary, ("_extract_from_extended_frame_gen",)),
    (sys, ("breakpointhook", "meta_path")),
)
"""Attributes that `hooks.install` replaces, restored after each test."""


@pytest.fixture
def cells(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cells]:
    """Cells with the show functions of the libraries routed to them, as in the sandbox."""
    mpl.use("Agg")
    for holder, names in HOOKED:
        for name in names:
            monkeypatch.setattr(holder, name, vars(holder)[name])
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.setattr(FigureManagerBase, "window", None, raising=False)
    for name in ("spawn", "forkserver"):
        monkeypatch.setitem(contexts._concrete_contexts, name, contexts._concrete_contexts[name])  # type: ignore[attr-defined]
    for name in ("_", "__notebook__"):
        monkeypatch.setattr(builtins, name, None, raising=False)
    given = hooks.install()
    yield Cells({"display": display.show, "np": np, "Image": Image, "plt": plt, **given})
    plt.close("all")
    for name in [name for name in sys.modules if name in shims.MADE]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("code", "stdout"),
    [
        ("1 + 1", "2\n"),
        ("x = 3\nx", "3\n"),
        ("x = 3", ""),
        ("'a'", "'a'\n"),
        ("None", ""),
        ("3;", ""),
        ("# nothing", ""),
        ("", ""),
        ("print('a'); 5", "a\n5\n"),
        ("if True:\n    4", ""),
        ("np.arange(3)", "array([0, 1, 2])\n"),
        ("np.zeros((2, 2), np.uint8)", "array([[0, 0],\n       [0, 0]], dtype=uint8)\n"),
        ("plt.plot([1, 2]); plt.close()", ""),
        ("display(7)", "7\n"),
    ],
)
def test_a_trailing_expression_is_shown_as_in_a_notebook(cells: Cells, code: str, stdout: str) -> None:
    cells.run(code)
    assert cells.error is None
    assert cells.stdout == stdout
    assert not cells.images


@pytest.mark.parametrize(
    ("code", "size"),
    [
        ("Image.new('RGB', (40, 30))", (40, 30)),
        ("Image.new('RGBA', (40, 30)).show()", (40, 30)),
        ("display(Image.new('L', (9, 5)))", (9, 5)),
        ("np.zeros((20, 50), np.uint8)", (50, 20)),
        ("np.zeros((20, 50, 3), np.uint8)", (50, 20)),
        ("np.zeros((20, 50, 4), np.uint8)", (50, 20)),
        ("np.zeros((20, 50, 1), np.uint8)", (50, 20)),
        ("fig = plt.figure(figsize=(2, 1), dpi=100); fig.gca(); plt.show()", (200, 100)),
        ("fig = plt.figure(figsize=(2, 1), dpi=100); fig.gca(); fig", (200, 100)),
        ("fig = plt.figure(figsize=(2, 1), dpi=100); ax = fig.gca()", (200, 100)),
        ("fig = plt.figure(figsize=(2, 1), dpi=100); fig.gca(); fig.savefig('/dev/null', format='png')", (200, 100)),
    ],
)
def test_images_come_back_once(cells: Cells, code: str, size: tuple[int, int]) -> None:
    cells.run(code)
    assert [image.size for image in cells.images] == [size]
    assert all(image.mode == "RGB" for image in cells.images)
    assert not plt.get_fignums()


@pytest.mark.parametrize(
    "code",
    [
        "np.zeros((20, 50))",
        "np.zeros((20, 50), np.int64)",
        "np.zeros((20, 50), bool)",
        "np.zeros((15, 50), np.uint8)",
        "np.zeros((20, 50, 2), np.uint8)",
        "np.zeros(300, np.uint8)",
        "[Image.new('RGB', (4, 4))]",
    ],
)
def test_other_values_print(cells: Cells, code: str) -> None:
    cells.run(code)
    assert not cells.images
    assert cells.stdout


def test_colours_stay_what_they_are(cells: Cells) -> None:
    cells.run("Image.new('RGB', (4, 4), (200, 10, 0))")
    assert cells.images[0].getpixel((0, 0)) == (200, 10, 0)
    cells.run("a = np.zeros((20, 20, 3), np.uint8); a[:] = (200, 10, 0); a")
    assert cells.images[0].getpixel((0, 0)) == (200, 10, 0)
    cells.run("import cv2; cv2.imshow('', a)")
    assert cells.images[0].getpixel((0, 0)) == (0, 10, 200)
    cells.run("Image.new('RGBA', (4, 4), (0, 0, 0, 0))")
    assert cells.images[0].getpixel((0, 0)) == (255, 255, 255)
    cells.run("Image.fromarray(np.array([[0.0, 1000.0]], np.float32))")
    assert [cells.images[0].getpixel((x, 0)) for x in (0, 1)] == [(0, 0, 0), (255, 255, 255)]


def test_figures_made_before_an_exception_are_kept(cells: Cells) -> None:
    cells.run("plt.plot([1, 2])\nplt.show()\nplt.plot([3])\n1 / 0")
    assert len(cells.images) == 2
    assert cells.error is not None and cells.error["kind"] == "ZeroDivisionError"


def test_too_many_and_too_large_images_are_cut_and_noted(cells: Cells) -> None:
    cells.run("for _ in range(5): display(Image.new('RGB', (4, 4)))")
    assert (len(cells.images), cells.truncated) == (3, ["images: 2 dropped"])
    cells.run("Image.new('RGB', (2000, 1000))")
    (image,) = cells.images
    assert image.width * image.height <= LIMITS.image_pixels and image.width == pytest.approx(
        2 * image.height, rel=0.01
    )
    assert cells.truncated == [f"image_size: 2000 x 1000 to {image.width} x {image.height}"]
    cells.run("plt.figure(figsize=(200, 100)).gca(); plt.show()")
    assert cells.images[0].width * cells.images[0].height <= LIMITS.image_pixels * 1.01


def test_a_traceback_names_the_lines_of_cells_only(cells: Cells) -> None:
    cells.run("def inverse(x):\n    return 1 / x")
    cells.run("a = 1\nprint(inverse(0))")
    assert cells.error is not None
    assert cells.error["traceback"].splitlines() == [
        "Traceback:",
        "  cell 2, line 2: print(inverse(0))",
        "  cell 1, line 2, in inverse: return 1 / x",
        "ZeroDivisionError: division by zero",
    ]


def test_errors_stay_short_and_never_raise(cells: Cells) -> None:
    cells.run("def f(n): return f(n + 1)\nf(0)")
    assert cells.error is not None and cells.error["kind"] == "RecursionError"
    assert len(cells.error["traceback"].splitlines()) < 12
    cells.run("raise ValueError('x' * 100_000)")
    assert cells.error is not None and len(cells.error["traceback"]) < 3000
    cells.run("class Bad(Exception):\n    def __str__(self): raise TypeError\nraise Bad")
    assert cells.error is not None and cells.error["kind"] == "Bad"
    cells.run("x = = 1")
    assert cells.error is not None and "line 1: x = = 1" in cells.error["traceback"]
    cells.run("(" * 1000)
    assert cells.error is not None and cells.error["kind"] in ("MemoryError", "SyntaxError")


@pytest.mark.parametrize(("code", "failed"), [("exit()", False), ("import sys; sys.exit(0)", False), ("exit(3)", True)])
def test_leaving_a_cell_is_an_error_only_with_a_code(cells: Cells, code: str, failed: bool) -> None:
    cells.run(code)
    assert (cells.error is not None) == failed


def test_future_imports_of_the_interpreter_do_not_leak_into_cells(cells: Cells) -> None:
    cells.run("def f(x: int): pass\nf.__annotations__['x'] is int")
    assert cells.stdout == "True\n"
