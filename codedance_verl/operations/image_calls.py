"""Calls of Pillow and OpenCV whose category depends on their arguments, and files of images."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping

from codedance_verl.operations.catalogue import Category, Kind
from codedance_verl.operations.graph import Weak
from codedance_verl.operations.invocation import Invocation
from codedance_verl.operations.state import State
from codedance_verl.operations.values import Value, derived, listed

_PLAIN_MODES = frozenset(("RGB", "RGBA", "RGBX"))
_EDGE_FILTERS = ("FIND_EDGES", "CONTOUR")
_GIVEN_FILES = "input_image"
"""Beginning of the names of files that hold the images of the question."""


def handle(state: State, done: Invocation) -> Value | None:
    """Value of a call; None for one without a rule here."""
    rule = _RULES.get(done.path)
    return None if rule is None else rule(state, done)


def _convert(state: State, done: Invocation) -> Value:
    mode = done.argument(0, "mode")
    text = mode.text() if mode is not None else None
    if text in _PLAIN_MODES or (mode is None and "matrix" not in done.named):
        # The mode that most code expects: pixels stay what they are.
        return derived(Kind.IMAGE, *done.operands)
    category = Category.THRESHOLD if text == "1" else Category.COLOUR
    return derived(Kind.IMAGE, *done.operands, refs=state.operation(done.node, category, done.path, *done.operands))


def _filter(state: State, done: Invocation) -> Value:
    which = done.argument(0, "filter")
    finds_edges = which is not None and which.path.removesuffix("()").endswith(_EDGE_FILTERS)
    category = Category.EDGES if finds_edges else Category.FILTER
    return derived(Kind.IMAGE, *done.operands, refs=state.operation(done.node, category, done.path, *done.operands))


def _point(state: State, done: Invocation) -> Value:
    rule = done.argument(0, "lut")
    # `lambda p: 255 if p > 128 else 0` makes a mask, `lambda p: p * 2` a brighter image.
    compares = rule is not None and any(
        isinstance(node, ast.Compare) for node in (ast.walk(rule.function.node) if rule.function is not None else ())
    )
    category = Category.THRESHOLD if compares else Category.COLOUR
    return derived(Kind.IMAGE, *done.operands, refs=state.operation(done.node, category, done.path, *done.operands))


_CHANNEL_ORDERS = frozenset(["BGR", "RGB", "BGRA", "RGBA"])


def _convert_colour(state: State, done: Invocation) -> Value:
    code = done.argument(0, "code")
    name = code.path.rpartition(".")[2].removeprefix("COLOR_") if code is not None else ""
    before, _, after = name.partition("2")
    # OpenCV reads B, G, R: exchanging both ends changes nothing that is seen.
    if before in _CHANNEL_ORDERS and after in _CHANNEL_ORDERS:
        return derived(Kind.PIXELS, done.subject)
    refs = state.operation(done.node, Category.COLOUR, done.path, *done.operands)
    return derived(Kind.PIXELS, *done.operands, refs=refs)


def _channels(state: State, done: Invocation) -> Value:
    refs = state.operation(done.node, Category.COLOUR, done.path, *done.operands, weak=Weak.PIXELS)
    kind = Kind.IMAGE if done.path.startswith("PIL.") else Kind.PIXELS
    channel = derived(kind, *done.operands, refs=refs, part=True)
    # the number of channels is not known, as the mode is not
    return channel if done.name == "getchannel" else listed([channel] * 3, exact=False)


def _getpixel(state: State, done: Invocation) -> Value:
    refs = state.operation(done.node, Category.STATISTICS, done.path, *done.operands, weak=Weak.READING)
    return derived(Kind.PIXEL, *done.operands, refs=refs)


def _show(state: State, done: Invocation) -> Value:
    refs = state.operation(done.node, Category.DISPLAY, done.path, *done.operands)
    state.graph.show(refs)
    return Value(const=None)


def _save(state: State, done: Invocation) -> Value:
    """A file is shown to nobody, but it can be opened again."""
    value, place = done.subject, done.argument(0, "fp") or done.argument(0, "filename")
    if done.path in ("cv2.imwrite", "skimage.io.imsave", "matplotlib.pyplot.imsave", "imageio.imwrite"):
        place, image = done.subject, done.argument(0, "img") or done.argument(0, "arr")
        value = image or Value()
    name = place.text() if place is not None else None
    if name is not None:
        state.files[_base(name)] = value
    elif place is not None:
        state.taint(place, value)  # a buffer
    return Value(const=None)


def _open(state: State, done: Invocation) -> Value:
    name = done.subject.text()
    stored = state.files.get(_base(name)) if name is not None else None
    kind = Kind.IMAGE if done.path.startswith("PIL.") else Kind.PIXELS
    if stored is not None:
        return derived(kind, stored, done.subject)
    found = derived(kind, *done.operands)
    # A name that is not known may be that of the image; any other file holds no pixels of it.
    found.image = found.image or name is None or _base(name).startswith(_GIVEN_FILES)
    return found


def _base(name: str) -> str:
    return name.replace("\\", "/").rpartition("/")[2]


def _copy(state: State, done: Invocation) -> Value:
    return derived(Kind.IMAGE, *done.operands, part=done.subject.part)


def _find_extremes(state: State, done: Invocation) -> Value | None:
    """The best place of a template belongs to finding it."""
    if done.subject.kind is not Kind.SCORES:
        return None
    return listed([derived(Kind.NUMBER, *done.operands) for _ in range(4)])


def _label(state: State, done: Invocation) -> Value | None:
    """With `return_num` scikit-image gives the number too."""
    if "return_num" not in done.named:
        return None
    refs = state.operation(done.node, Category.COUNT, done.path, *done.operands)
    return listed([derived(kind, *done.operands, refs=refs) for kind in (Kind.LABELS, Kind.NUMBER)])


def _from_array(state: State, done: Invocation) -> Value:
    return derived(Kind.IMAGE, *done.operands, part=done.subject.part)


_P = "PIL.Image.Image."

_RULES: Mapping[str, Callable[[State, Invocation], Value | None]] = {
    _P + "convert": _convert,
    _P + "filter": _filter,
    _P + "point": _point,
    _P + "split": _channels,
    _P + "getchannel": _channels,
    _P + "getpixel": _getpixel,
    _P + "show": _show,
    _P + "save": _save,
    _P + "copy": _copy,
    "cv2.cvtColor": _convert_colour,
    "cv2.split": _channels,
    "cv2.extractChannel": _channels,
    "skimage.measure.label": _label,
    "cv2.minMaxLoc": _find_extremes,
    "cv2.imshow": _show,
    "cv2.imwrite": _save,
    "cv2.imread": _open,
    "skimage.io.imsave": _save,
    "skimage.io.imread": _open,
    "skimage.io.imshow": _show,
    "matplotlib.pyplot.imread": _open,
    "matplotlib.pyplot.imsave": _save,
    "matplotlib.image.imread": _open,
    "imageio.imread": _open,
    "imageio.v2.imread": _open,
    "imageio.v3.imread": _open,
    "imageio.imwrite": _save,
    "google.colab.patches.cv2_imshow": _show,
    "PIL.Image.open": _open,
    "PIL.Image.fromarray": _from_array,
    "PIL.ImageShow.show": _show,
}
