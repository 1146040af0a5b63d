"""Stand-ins for modules of notebooks that are not installed, made at the first import.

`IPython` and `IPython.display` show through `display.py`; `google.colab.patches` has `cv2_imshow`; `nest_asyncio` has
an `apply` without effect; `tqdm.notebook` is plain `tqdm`. A finder makes them, so a session that imports none pays
nothing.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import io
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from . import display, magics

_NO_NETWORK = "there is no network here; show a file or bytes: Image(filename=...), Image(data=...)"
_SHOWN_AS_TEXT = ("Markdown", "Latex", "Math", "Pretty", "Code", "JSON", "TextDisplayObject")
_UNSHOWN = ("Audio", "Video", "IFrame", "Javascript", "SVG", "YouTubeVideo", "FileLink", "FileLinks", "ProgressBar")
_TAG = re.compile(r"<(?:style|script)\b.*?</(?:style|script)>|<[^<>]*>", re.DOTALL | re.IGNORECASE)


class Shell:
    """Object that `get_ipython()` returns."""

    config: Mapping[str, Any] = {}
    events = SimpleNamespace(register=lambda *_a, **_k: None, unregister=lambda *_a, **_k: None)
    kernel = None
    ast_node_interactivity = "last_expr"  # set by users, without effect

    def __init__(self, notebook: magics.Notebook) -> None:
        self._notebook = notebook

    @property
    def user_ns(self) -> dict[str, Any]:
        return vars(sys.modules["__main__"])

    def run_line_magic(self, name: str, line: str = "", *_a: Any, **_k: Any) -> None:
        self._notebook.magic(name, str(line))

    def magic(self, line: str) -> None:
        name, _, rest = line.lstrip("%").partition(" ")
        self._notebook.magic(name, rest)

    def run_cell_magic(self, name: str, line: str, cell: str) -> None:
        if name not in magics.RUNS_ITS_BODY:
            return self._notebook.cell_magic(name, line)
        exec(cell, self.user_ns)  # the cell's own code in the cell's own process
        return None

    def system(self, command: str) -> None:
        self._notebook.shell(command)

    getoutput = system

    def enable_gui(self, *_a: Any) -> None:
        """Does nothing: there are no windows."""

    enable_matplotlib = enable_pylab = enable_gui


class Rich:
    """An object of `IPython.display`: its `data` shown as text."""

    def __init__(self, data: Any = None, *_a: Any, filename: Any = None, url: Any = None, **_k: Any) -> None:
        if url is not None and data is None and filename is None:
            raise ConnectionError(_NO_NETWORK)
        self.data = Path(filename).read_text(encoding="utf-8") if data is None and filename is not None else data

    def codedance_show(self, shown: display.Display) -> None:
        print(self.data)

    def __repr__(self) -> str:
        return f"<IPython.core.display.{type(self).__name__} object>"


class HTML(Rich):
    """HTML of `IPython.display`, shown as the text a reader would see."""

    def codedance_show(self, shown: display.Display) -> None:
        import html

        # Cells of a table apart by a space, its rows and paragraphs by a line.
        text = re.sub(r"</(?:td|th)>", " ", re.sub(r"<br\s*/?>|</(?:p|div|tr|h\d|li)>", "\n", str(self.data)))
        print(html.unescape(_TAG.sub("", text)).strip())


class Image(Rich):
    """An image by file name or bytes; `data` may be either, as in IPython."""

    def __init__(self, data: Any = None, url: Any = None, filename: Any = None, *_a: Any, **_k: Any) -> None:
        if isinstance(data, (str, Path)):
            data, filename = None, data
        if data is None and (str(filename or url or "").startswith(("http://", "https://")) or filename is None):
            raise ConnectionError(_NO_NETWORK)
        self.data = Path(filename).read_bytes() if data is None else data

    def codedance_show(self, shown: display.Display) -> None:
        from PIL import Image as pil

        shown.show(pil.open(io.BytesIO(self.data)) if isinstance(self.data, (bytes, bytearray)) else self.data)

    def _repr_png_(self) -> Any:
        return self.data


class Unshown(Rich):
    """Object that only a browser can show."""

    def __init__(self, *_a: Any, **_k: Any) -> None:
        self.data = f"({type(self).__name__} is not shown: there is no browser here.)"


class Handle:
    """Handle that `display(..., display_id=True)` returns; an update is shown as a new output."""

    display_id = "display"

    def update(self, value: Any, **_k: Any) -> None:
        display.show(value)

    display = update


def _show(*values: Any, **options: Any) -> Handle | None:
    display.show(*values, **options)
    return Handle() if options.get("display_id") else None


def _nothing(*_a: Any, **_k: Any) -> None:
    """Does nothing."""


def _ipython() -> dict[str, Any]:
    version = {"version_info": (9, 0, 0, ""), "__version__": "9.0.0"}
    shown = importlib.import_module("IPython.display")
    return {"get_ipython": get_ipython, "display": shown, "InteractiveShell": Shell, **version}


def _ipython_display() -> dict[str, Any]:
    classes = {"Image": Image, "HTML": HTML, "DisplayHandle": Handle, "DisplayObject": Rich}
    return {
        **{name: type(name, (Rich,), {}) for name in _SHOWN_AS_TEXT},
        **{name: type(name, (Unshown,), {}) for name in _UNSHOWN},
        **{f"display_{kind}": _show for kind in ("png", "jpeg", "html", "markdown", "pretty", "latex", "svg", "json")},
        **dict.fromkeys(("display", "update_display"), _show),
        **dict.fromkeys(("clear_output", "set_matplotlib_formats"), _nothing),
        **classes,
    }


def _tqdm_notebook() -> dict[str, Any]:
    import tqdm  # type: ignore[import-untyped]

    return {"tqdm": tqdm.tqdm, "trange": tqdm.trange, "tqdm_notebook": tqdm.tqdm, "tnrange": tqdm.trange}


def _colab_patches() -> dict[str, Any]:
    import cv2

    return {"cv2_imshow": lambda array: cv2.imshow("", array)}


_MAKERS: dict[str, Callable[[], dict[str, Any]]] = {
    "IPython": _ipython,
    "IPython.display": _ipython_display,
    "IPython.core": dict,
    "IPython.core.display": _ipython_display,
    "IPython.core.interactiveshell": lambda: {"InteractiveShell": Shell},
    "IPython.core.getipython": lambda: {"get_ipython": get_ipython},
    "google": dict,
    "google.colab": dict,
    "google.colab.patches": _colab_patches,
    "matplotlib_inline": dict,
    "matplotlib_inline.backend_inline": lambda: {"set_matplotlib_formats": _nothing},
    "nest_asyncio": lambda: {"apply": _nothing},
    "tqdm.notebook": _tqdm_notebook,
    "tqdm.autonotebook": _tqdm_notebook,
}

MADE = frozenset(_MAKERS)
shell: Shell


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finder and loader of the modules named in `_MAKERS`, before any that is installed."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in _MAKERS:
            return None
        # As a package, so that names below it are looked up at all.
        return importlib.util.spec_from_loader(fullname, self, is_package=True)

    def exec_module(self, module: ModuleType) -> None:
        vars(module).update(_MAKERS[module.__name__]())


def install(notebook: magics.Notebook) -> None:
    """Makes the modules importable. Call once."""
    global shell
    shell = Shell(notebook)
    # Before any installed module, whatever is found on the path.
    sys.meta_path.insert(0, _Finder())


def get_ipython() -> Shell:
    """Returns the shell: the `get_ipython` of cells."""
    return shell
