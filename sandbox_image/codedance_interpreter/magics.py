"""Notebook magics of cells: some run what they time, some do nothing and say so, some raise an error."""

from __future__ import annotations

import builtins
from pathlib import Path
from time import perf_counter
from typing import Any

from . import hints

RUNS_ITS_BODY = frozenset({"time", "timeit", "prun", "capture", "python", "python3", "memit"})
"""Cell magics whose lines below are Python."""

_HARMLESS = {
    "matplotlib": "figures are shown at the end of the cell anyway",
    "pylab": "figures are shown at the end of the cell anyway; import numpy and matplotlib yourself",
    **dict.fromkeys(("config", "load_ext", "reload_ext", "autoreload", "precision", "xmode", "colors"), "no effect"),
    **dict.fromkeys(("who", "whos", "reset", "history", "debug", "pdb", "logstart", "env", "set_env"), "no effect"),
    **dict.fromkeys(("gui", "autosave", "notebook", "tb", "unload_ext", "alias", "capture"), "no effect"),
}
_NOT_SHOWN = ("html", "HTML", "javascript", "js", "latex", "markdown", "svg", "SVG", "css")
_INSTALLERS = ("pip", "pip3", "conda", "mamba", "uv", "poetry", "easy_install", "micromamba")
_SHELL = ("bash", "sh", "script", "cmd", "system", "sx", "sc", "perl", "ruby", "powershell")
_FILES = ("ls", "ll", "cd", "pwd", "cat", "cp", "mv", "rm", "mkdir", "rmdir", "less", "more", "man")


class NoShell(Exception):
    """Cell that asks for a shell command, an installation, or a magic that is not there."""


class Notebook:
    """Object `__notebook__`, which the Python made of a magic calls (`source.py`)."""

    def __init__(self) -> None:
        # A stack, since a timed line may call one that is timed.
        self._started: list[float] = []
        self._cell: tuple[str, float] | None = None

    def shell(self, command: str) -> None:
        raise NoShell(f"`!{_short(command)}` was not run: {_why_not(command.split(' ', 1)[0], command)}")

    def magic(self, name: str, argument: str) -> None:
        """Runs a line magic: no effect but a line about it, or an error."""
        name = name.lstrip("%")
        # A line that had no effect is printed about, so that the model does not rely on it.
        if name in _HARMLESS:
            print(f"(%{_short(f'{name} {argument}'.strip())} is ignored: {_HARMLESS[name]}.)")
        else:
            self._refuse(f"%{name}", argument)

    def cell_magic(self, name: str, argument: str) -> None:
        """Runs a cell magic whose cell is no Python."""
        if name in _NOT_SHOWN:
            print(f"(%%{name} is ignored: there is no browser here.)")
        else:
            self._refuse(f"%%{name}", argument)

    def _refuse(self, magic: str, argument: str) -> None:
        name, text = magic.lstrip("%"), _short(f"{magic} {argument}".strip())
        if name in (*_INSTALLERS, *_SHELL, *_FILES):
            raise NoShell(f"`{text}` was not run: {_why_not(name, argument)}")
        raise NoShell(f"`{text}` was not run: there is no such magic here; write it in Python")

    def begin_cell(self, name: str) -> None:
        self._cell = (name, perf_counter())

    def end_cell(self) -> None:
        """Prints what `%%time` owes at the end of a cell."""
        if self._cell is not None:
            name, started = self._cell
            self._cell = None
            if "time" in name:
                _say_time(name, perf_counter() - started)

    def write_file(self, argument: str, text: str) -> None:
        """Runs `%%writefile [-a] NAME`."""
        name = argument.removeprefix("-a ").strip().strip("'\"")
        with Path(name).open("a" if argument.startswith("-a ") else "w", encoding="utf-8") as file:
            file.write(text)
        print(f"Writing {name}")

    def timed(self, name: str, run: Any) -> Any:
        self.start()
        value = run()
        self.stop(name)
        # As in IPython, where `%timeit` gives no value.
        return value if name == "time" else None

    def start(self) -> None:
        self._started.append(perf_counter())

    def stop(self, name: str) -> None:
        _say_time(name, perf_counter() - self._started.pop())

    def help(self, name: str) -> None:
        print(f"({name}? is ignored: write help({name.lstrip('%')}).)")


def install() -> Notebook:
    """Puts `__notebook__` where every cell finds it."""
    notebook = Notebook()
    builtins.__notebook__ = notebook  # type: ignore[attr-defined]
    return notebook


def _say_time(name: str, seconds: float) -> None:
    print(f"Wall time: {seconds * 1e3:.3g} ms" + (" (run once)" if name == "timeit" else ""))


def _why_not(program: str, command: str) -> str:
    if program in _INSTALLERS or "pip install" in command or program.startswith(("apt", "sudo")):
        return f"there is no shell and no network here, so nothing can be installed. {hints.INSTALLED}"
    return "there is no shell and no network here; write it in Python (os, pathlib, subprocess)"


def _short(text: str) -> str:
    return text if len(text) <= 80 else text[:79] + "…"
