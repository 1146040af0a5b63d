"""Calls of matplotlib: plots, marks on an image that it shows, and figures."""

from __future__ import annotations

from codedance_verl.operations.catalogue import Category, Kind, words
from codedance_verl.operations.invocation import Invocation
from codedance_verl.operations.state import State
from codedance_verl.operations.values import Value, derived, from_image, listed

_IMAGES = words("imshow matshow pcolormesh pcolor figimage")
_PLOTS = words(
    "plot scatter bar barh hist hist2d boxplot violinplot pie stem step errorbar fill fill_between "
    "fill_betweenx stackplot hexbin contour contourf quiver streamplot loglog semilogx semilogy specgram "
    "spy eventplot table plot_surface plot_wireframe bar3d polar tricontourf"
)
_MARKS = words(
    "add_patch add_artist add_line add_collection annotate text axvline axhline axline axvspan axhspan "
    "arrow hlines vlines figtext bar_label"
)
_LINES = words("axvline axhline hlines vlines plot")
_SHOWS_IMAGE = "shows image"
_CURRENT = "current axes"


def handle(state: State, done: Invocation) -> Value | None:
    """Value of a call of pyplot, axes or a figure; None for any other."""
    path = done.path
    if path.startswith("pandas.") and (".plot" in path or done.name in ("hist", "boxplot")):
        _draw(state, done, state.figure(), Category.DISPLAY)
        return Value(Kind.AXES, targets=(state.figure(),))
    if path.startswith("seaborn."):
        return _seaborn(state, done)
    if not path.startswith("matplotlib."):
        return None
    if path.startswith(("matplotlib.pyplot.", "matplotlib.axes.Axes.", "matplotlib.figure.Figure.")):
        return _of_figure(state, done)
    return None


def _seaborn(state: State, done: Invocation) -> Value:
    if done.name.startswith("set") or "palette" in done.name:
        return Value()
    _draw(state, done, state.figure(), Category.DISPLAY)
    return Value(Kind.AXES, targets=(state.figure(),))


def _of_figure(state: State, done: Invocation) -> Value:
    name = done.name
    figure = _figure_of(state, done)
    match name:
        case "figure":
            return state.new_figure()
        case "subplots" | "subplot_mosaic":
            return _subplots(state, done)
        case "gca":
            return _current(figure)
        case "subplot" | "axes" | "add_subplot" | "add_axes" | "subplot2grid" | "twinx" | "twiny" | "inset_axes":
            axes = figure.fields[_CURRENT] = Value(Kind.AXES, targets=(figure,))
            return axes
        case "gcf" | "get_figure":
            return figure
        case "show":
            return _show(state, done)
        case "close":
            _close(state, done)
            return Value(const=None)
        case "savefig":
            return _save(state, done, figure)
        case "flatten" | "ravel":
            return done.subject
        case "Rectangle" | "Circle" | "Polygon" | "Line2D":
            return derived(Kind.OBJECT, *done.operands, path=f"matplotlib.patches.{name}()")
    return _plot(state, done, figure)


def _plot(state: State, done: Invocation, figure: Value) -> Value:
    name = done.name
    receiver = done.receiver
    axes = receiver if receiver is not None and receiver.kind is Kind.AXES else _current(figure)
    on_image = _SHOWS_IMAGE in axes.fields
    if name in _IMAGES:
        # from now on lines and texts in these axes are marks on an image
        axes.fields[_SHOWS_IMAGE] = Value()
        _draw(state, done, figure, Category.DISPLAY)
    elif name in _PLOTS:
        if name.startswith("hist") and any(value.pixels for value in done.args):
            _draw(state, done, figure, Category.STATISTICS)
        _draw(state, done, figure, *([Category.DRAW] if on_image else []), Category.DISPLAY)
    elif name in _MARKS:
        _draw(state, done, figure, Category.DRAW if on_image else Category.DISPLAY)
    elif done.args:
        # Titles and labels are text: shown with the figure, no operation.
        state.taint(figure, *done.args, *done.named.values())
    if on_image and name in _LINES and any(loop.series for loop in state.loops):
        _draw(state, done, figure, Category.GRID)
    return derived(Kind.OBJECT, *done.operands, path=f"{done.path}()", refs=figure.refs, targets=(figure,))


def _draw(state: State, done: Invocation, figure: Value, *categories: Category) -> None:
    """Puts an operation into a figure."""
    arguments = (*done.args, *done.named.values())
    for category in categories:
        refs = state.operation(done.node, category, done.path, *arguments, refs=figure.refs)
        state.change(figure, refs, image=any(from_image(value) for value in arguments))


def _figure_of(state: State, done: Invocation) -> Value:
    receiver = done.receiver
    while receiver is not None and receiver.kind is not Kind.FIGURE and receiver.targets:
        receiver = receiver.targets[0]
    return receiver if receiver is not None and receiver.kind is Kind.FIGURE else state.figure()


def _subplots(state: State, done: Invocation) -> Value:
    figure = _figure_of(state, done) if done.receiver is not None else state.new_figure()
    axes = Value(Kind.AXES, targets=(figure,))
    return axes if done.receiver is not None else listed([figure, axes])


def _current(figure: Value) -> Value:
    """Axes that calls of pyplot draw into."""
    return figure.fields.setdefault(_CURRENT, Value(Kind.AXES, targets=(figure,)))


def _show(state: State, done: Invocation) -> Value:
    # Without a figure nothing is shown; notebooks end most cells with this call.
    if state.figures:
        figures = state.figures.copy()
        state.show_figures()
        refs = state.operation(done.node, Category.DISPLAY, done.path, *figures)
        state.graph.show(refs)
    return Value(const=None)


def _close(state: State, done: Invocation) -> None:
    if not done.args:
        del state.figures[-1:]
    elif done.args[0].kind is Kind.FIGURE:
        state.figures[:] = [figure for figure in state.figures if figure is not done.args[0]]
    else:
        state.figures.clear()


def _save(state: State, done: Invocation, figure: Value) -> Value:
    refs = state.operation(done.node, Category.DISPLAY, done.path, figure)
    state.change(figure, refs)
    place = done.args[0] if done.args else None
    name = place.text() if place is not None else None
    if name is not None:
        state.files[name.rpartition("/")[2]] = figure
    elif place is not None:
        state.taint(place, figure)
    return Value(const=None)
