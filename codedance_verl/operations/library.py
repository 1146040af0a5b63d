"""Calls of libraries: those with rules of their own, then the table of the catalogue, then unknown ones."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence

from codedance_verl.operations import arrays, builtin_calls, image_calls, plots
from codedance_verl.operations.attributes import canonical
from codedance_verl.operations.catalogue import Category, Entry, Kind, look_up
from codedance_verl.operations.graph import Weak
from codedance_verl.operations.invocation import Invocation
from codedance_verl.operations.state import State
from codedance_verl.operations.values import Refs, Value, all_refs, derived, from_image, listed

_WEAK = {Category.ARITHMETIC: Weak.PLAIN}

_CHANGED_IN_PLACE = frozenset(
    (
        *("PIL.Image.Image.paste", "PIL.Image.Image.thumbnail", "PIL.Image.Image.alpha_composite"),
        *("PIL.Image.Image.putalpha", "PIL.Image.Image.putpixel", "PIL.Image.Image.putdata", "PIL.ImageDraw.floodfill"),
        *("cv2.rectangle", "cv2.circle", "cv2.ellipse", "cv2.line", "cv2.arrowedLine", "cv2.polylines", "cv2.fillPoly"),
        *("cv2.fillConvexPoly", "cv2.drawContours", "cv2.drawMarker", "cv2.putText", "cv2.floodFill"),
    )
)
"""Calls that change the image they are given, and give it back where they give anything."""

_LINES = frozenset(
    ("PIL.ImageDraw.ImageDraw.line", "cv2.line", "matplotlib.pyplot.axvline", "matplotlib.pyplot.axhline")
)


def call(state: State, node: ast.AST, function: Value, args: Sequence[Value], named: Mapping[str, Value]) -> Value:
    """Value of a call of what `function.path` names."""
    done = Invocation(node, canonical(function.path), function.receiver, args, named)
    for own in (builtin_calls.handle, image_calls.handle, plots.handle, arrays.handle):
        found = own(state, done)
        if found is not None:
            return found
    entry = look_up(done.path)
    if entry is not None:
        return _of_catalogue(state, done, entry)
    return _unknown(state, done)


_PARAMETERS = frozenset((Kind.NUMBER, Kind.LIST, Kind.STRING))
"""Kinds of the operands that say how large or where, not what."""


def _is_parameter(value: Value) -> bool:
    return value.kind in _PARAMETERS and not from_image(value) and not any(item.pixels for item in value.items)


def _of_catalogue(state: State, done: Invocation, entry: Entry) -> Value:
    refs = all_refs(*done.operands)
    if not entry.categories and entry.result[0] in (Kind.IMAGE, Kind.PIXELS, Kind.PEN):
        parameters = [value for value in done.operands if _is_parameter(value)]
        others = [value for value in done.operands if all(value is not one for one in parameters)]
        refs = all_refs(*others).union(all_refs(*parameters).as_test(False))
    for category in entry.categories:
        # `scipy.stats` and the like of pixels are statistics of them.
        if category is Category.ARITHMETIC and any(value.pixels for value in done.operands):
            category = Category.STATISTICS
        refs = state.operation(done.node, category, done.path, *done.operands, weak=_WEAK.get(category, Weak.NO))
        if done.path in _LINES and any(loop.series for loop in state.loops):
            # Lines at regular places are a grid.
            refs = state.operation(done.node, Category.GRID, f"{done.path} in a loop", *done.operands, refs=refs)
    receiver = done.receiver
    for axes in (value for value in done.operands if value.kind is Kind.AXES):
        state.change(axes, refs)
    if done.path in _CHANGED_IN_PLACE:
        # An array of zeros that is drawn on is an image from now on.
        if done.subject.kind is Kind.SERIES:
            done.subject.kind = Kind.PIXELS
        state.change(done.subject, refs, image=any(from_image(value) for value in done.operands))
        return done.subject
    # `pen.line(...)` and `model.fit(...)` leave their result in the object.
    if receiver is not None and entry.categories and receiver.kind in (Kind.PEN, Kind.OBJECT):
        state.change(receiver, refs, image=any(from_image(value) for value in done.operands))
    return _result(done, entry, refs)


def _result(done: Invocation, entry: Entry, refs: Refs) -> Value:
    made = [_made(done, kind, refs) for kind in entry.result]
    if len(made) == 1:
        return made[0]
    found = listed(made)
    found.refs, found.image = refs, made[0].image
    return found


def _made(done: Invocation, kind: Kind, refs: Refs) -> Value:
    found = derived(kind, *done.operands, refs=refs)
    subject = done.subject
    if kind is Kind.OBJECT:
        found.path = f"{done.path}()"
    elif done.path.startswith("itertools."):
        found.series = True
    elif kind is Kind.PEN or kind is Kind.ACCESS:
        found.targets = (subject,)
    elif kind in (Kind.PIXELS, Kind.MASK) and subject.kind is Kind.IMAGE:
        # A few libraries take images of Pillow and give those back.
        found.kind = Kind.PIXELS if not done.path.startswith("PIL.") else Kind.IMAGE
    elif kind is Kind.PIXELS and subject.kind is Kind.MASK:
        found.kind = Kind.MASK
    return found


def _unknown(state: State, done: Invocation) -> Value:
    """What is not known may derive from everything it is given, and may change the object it is called on."""
    if done.receiver is not None and (done.args or done.named):
        state.taint(done.receiver, *done.args, *done.named.values())
    for value in done.operands:
        if value.kind in (Kind.AXES, Kind.FIGURE):
            # a function that gets axes draws into them
            state.taint(value, *(other for other in done.operands if other is not value))
    known = not done.path.startswith("?.")
    kind = Kind.OBJECT if known else Kind.UNKNOWN
    path = f"{done.path}()" if known else ""
    return derived(kind, *done.operands, path=path)
