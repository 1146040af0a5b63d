"""Resolution of names and attributes to dotted names of libraries."""

from __future__ import annotations

import builtins
import re
from collections.abc import Mapping

from codedance_verl.operations.catalogue import ARRAYS, CLASSES, Kind, look_up, words
from codedance_verl.operations.state import State
from codedance_verl.operations.values import Value, all_refs, derived, joined

_METADATA: Mapping[Kind, frozenset[str]] = {
    Kind.IMAGE: words("size width height mode format info filename is_animated n_frames"),
    **dict.fromkeys(ARRAYS | {Kind.SERIES}, words("shape ndim dtype size nbytes itemsize flags strides")),
}
"""Attributes that say nothing of pixels."""

_RENAMED: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"scipy\.ndimage\.(?:measurements|filters|morphology|interpolation|fourier)\.", "scipy.ndimage."),
        (r"skimage\.measure\._\w+\.", "skimage.measure."),
        (r"(?:matplotlib\.pylab|pylab)\.", "matplotlib.pyplot."),
        (r"IPython\.core\.display\.", "IPython.display."),
        (r"cv2\.cv2\.", "cv2."),
        (r"cv2\.(\w+)\.create\(\)", r"cv2.\1_create()"),
        (r"numpy\.ma\.", "numpy."),
        (r"pandas\.core\.\w+\.", "pandas."),
        (r"PIL\.Image\.core\.", "PIL."),
    )
)
"""Older and inner names of what the catalogue names otherwise."""

_BUILTINS = frozenset(dir(builtins)) | {"display", "get_ipython"}

_VIEWS = frozenset(("T", "real", "flat"))


def canonical(name: str) -> str:
    """Dotted name as the catalogue has it."""
    for pattern, replacement in _RENAMED:
        name = pattern.sub(replacement, name)
    return name


def library_name(state: State, name: str) -> str:
    """Dotted name of what is bound by no statement: of a star import, a builtin; empty where it is not known.

    A star import hides builtins, so that `sum` after `from numpy import *` is numpy's.
    """
    # the last star import hides the names of those before it
    starred = [canonical(f"{module}.{name}") for module in reversed(state.stars)]
    known = next((full for full in starred if look_up(full) is not None or full in _KNOWN), "")
    if known:
        return known
    if "numpy" in state.stars and (name not in _BUILTINS or name in _OF_NUMPY):
        return f"numpy.{name}"
    return f"builtins.{name}" if name in _BUILTINS else ""


_KNOWN = frozenset(f"matplotlib.pyplot.{name}" for name in ("imshow", "plot", "bar", "hist", "show", "figure"))
_OF_NUMPY = words("sum min max abs all any round pow")


def attribute(value: Value, name: str) -> Value:
    """Attribute of a value, or a method bound to it."""
    # the fields of a dictionary are its keys, which are no attributes
    if name in value.fields and value.kind is not Kind.DICT:
        return value.fields[name].under(value.refs)
    if value.options:
        return joined(_simple(option, name) for option in value.options)
    return _simple(value, name)


def _simple(value: Value, name: str) -> Value:
    if name in _METADATA.get(value.kind, ()):
        # Several sides, which are unpacked.
        return Value(Kind.NUMBER, all_refs(value))
    if value.kind in ARRAYS and name in _VIEWS:
        return derived(value.kind, value, part=value.part, targets=(value,), path=f"numpy.ndarray.{name}")
    if value.kind in (Kind.SHAPE, Kind.SHAPES):
        return derived(Kind.NUMBER, value, path=f"shape.{name}", receiver=value)
    if value.kind is Kind.FRAME and name in ("columns", "index", "shape", "dtypes", "values", "iloc", "loc", "at"):
        return derived(Kind.FRAME, value)
    if value.kind in CLASSES:
        return Value(
            path=canonical(f"{CLASSES[value.kind]}.{name}"), receiver=value, refs=value.refs, image=value.image
        )
    if value.kind is Kind.OBJECT or (value.path and value.kind is Kind.UNKNOWN):
        path = canonical(f"{value.path}.{name}")
        receiver = value if value.kind is Kind.OBJECT else value.receiver
        return Value(path=path, receiver=receiver, refs=value.refs, image=value.image)
    # Something unknown: what it gives derives from it.
    return Value(path=f"?.{name}", receiver=value, refs=all_refs(value), image=value.image)
