"""Hints on what the sandbox lacks, for the error in which a cell meets it."""

from __future__ import annotations

import sys
import traceback

LIBRARIES = (
    *("numpy", "PIL (Pillow)", "cv2 (OpenCV)", "matplotlib", "scipy", "sympy", "pandas", "skimage (scikit-image)"),
    *("sklearn (scikit-learn)", "networkx", "imageio", "tqdm"),
)
INSTALLED = f"Installed beside Python's own library: {', '.join(LIBRARIES)}."
OWN_FOLDER = "/scratch/matplotlib"
NO_WINDOWS = "there is no screen here: images and figures that are shown come back by themselves"

_WINDOW_MODULES = (
    *("tkinter", "_tkinter", "turtle", "curses", "_curses"),
    *("PyQt5", "PyQt6", "PySide6", "wx", "pygame", "gi"),
)
_NETWORK_ERRORS = ("gaierror", "herror", "URLError", "HTTPError", "ConnectionError", "RemoteDisconnected")
_NETWORK_FILES = ("/socket.py", "/urllib/request.py", "/http/client.py", "/ssl.py", "/asyncio/base_events.py")
_WINDOW_WORDS = ("The function is not implemented", "highgui", "Rebuild the library with", "libtk", "DISPLAY")
_TEX_WORDS = (
    *("tex.cache", "latex could not be found", "dvipng", "dvisvgm", "kpsewhich"),
    *("'latex'", "xelatex", "pdflatex"),
)


def explained(raised: BaseException, message: str) -> str:
    """Returns the `message` of an error with its hint; the hint alone where it names a folder of the interpreter's."""
    text = hint(raised, message)
    if not text:
        return message
    return text if not message or OWN_FOLDER in message else f"{message} ({text})"


def hint(raised: BaseException, text: str) -> str:
    """Returns a sentence on how an error with the message `text` comes of the sandbox; empty if it does not."""
    if "there is no" in text:
        return ""  # the message is a hint already
    if isinstance(raised, ModuleNotFoundError):
        return _on_module(raised)
    if any(word in text for word in _TEX_WORDS):
        return "There is no TeX here; without usetex matplotlib draws $...$ by itself."
    if isinstance(raised, ImportError) or (type(raised).__module__, type(raised).__name__) == ("cv2", "error"):
        return f"{NO_WINDOWS[0].upper()}{NO_WINDOWS[1:]}." if any(word in text for word in _WINDOW_WORDS) else ""
    if isinstance(raised, AttributeError) and text.startswith("module 'cv2"):
        return "This OpenCV has no windows, no contrib modules, no cascades and no trained models."
    if isinstance(raised, OSError):
        return _on_system(raised)
    if type(raised).__name__ == "CalledProcessError" and "pip" in text:
        return f"Nothing can be installed: there is no network here. {INSTALLED}"
    return ""


def _on_module(raised: ModuleNotFoundError) -> str:
    top = str(raised.name or "").partition(".")[0]
    if top in _WINDOW_MODULES:
        return f"{NO_WINDOWS[0].upper()}{NO_WINDOWS[1:]}."
    if not top or top in sys.modules:
        return ""
    return f"It is not installed, and nothing can be: there is no network. {INSTALLED}"


def _on_system(raised: OSError) -> str:
    frames = [frame for frame, _line in traceback.walk_tb(raised.__traceback__)]
    file = frames[-1].f_code.co_filename if frames else ""
    kinds = {kind.__name__ for kind in type(raised).__mro__}
    if kinds & set(_NETWORK_ERRORS) or file.endswith(_NETWORK_FILES):
        return "There is no network here: work with the images and files of the working directory."
    if isinstance(raised, FileNotFoundError) and file.endswith("/subprocess.py"):
        return "There is no such program here."
    return ""
