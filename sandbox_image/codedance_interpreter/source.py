"""Repair of cell text as models write it: notebook magics, indented cells, characters that are no Python.

A cell that parses is taken as it is. Where it does not, the parser names the line; if a habit of notebook users stands
there it is put into Python, and the cell is parsed again. Line numbers never change. What a magic does when it runs is
in `magics.py`.
"""

from __future__ import annotations

import ast
import re

from . import magics

MOST_REPAIRS = 200
"""Most repairs of a cell: each costs a parse of the whole of it."""

_BYTE_ORDER_MARK = "\ufeff"
_CELL_MAGIC = re.compile(r"%%(\w+)[ \t]*(.*)")
_LINE_MAGIC = re.compile(r"(\s*)((?:[\w.\[\]'\", \t]+=\s*)?)(%%?|!!?)\s*(.*?)\s*;?")
_HELP = re.compile(r"(\s*)\?{0,2}\s*([\w.%]+)\s*\?{0,2}")
_NO_PYTHON = re.compile(r"invalid (?:non-printable )?character.*\(?U\+([0-9A-F]{4,6})\)?")
_OPTIONS = re.compile(r"(?:-\w+(?:[ \t]+\d+)?[ \t]+)*")
_TIMED = ("time", "timeit", "prun", "memit")


def parse(code: str, filename: str) -> tuple[ast.Module, str]:
    """Returns the module a cell means, and the text it was made of. Raises `SyntaxError` with the line in the cell."""
    text = code.lstrip(_BYTE_ORDER_MARK).replace("\0", "")
    for _repair in range(MOST_REPAIRS):
        try:
            return ast.parse(text, filename), text
        except SyntaxError as error:
            repaired = _repaired(text, error)
            if repaired is None or repaired == text:
                raise
            text = repaired
    return ast.parse(text, filename), text


def is_silenced(text: str, last: ast.expr) -> bool:
    """Returns true where a semicolon follows the trailing expression; comments and brackets may stand between."""
    lines = _lines(text)
    line, column = (last.end_lineno or 1) - 1, last.end_col_offset or 0
    # Offsets of the syntax tree count bytes of UTF-8, not characters.
    rest = [lines[line].encode("utf-8", "surrogatepass")[column:].decode("utf-8", "replace"), *lines[line + 1 :]]
    return any(";" in part.split("#", 1)[0] for part in rest)


def _repaired(text: str, error: SyntaxError) -> str | None:
    """Repairs the fault that the parser met; None where it is none of those repaired here."""
    lines = _lines(text)
    first = next((at for at, line in enumerate(lines) if line.strip() and not line.lstrip().startswith("#")), None)
    if first is None:
        return None
    if found := _CELL_MAGIC.fullmatch(lines[first].strip()):  # before what its lines may hold, which need be no Python
        return _cell_magic(lines, first, *found.groups())
    if (found := _NO_PYTHON.search(error.msg or "")) and (clean := _without(text, chr(int(found[1], 16)))) is not None:
        return clean
    at = (error.lineno or 0) - 1
    # The parser names the first line that is no Python: one magic is put right at a time.
    if 0 <= at < len(lines) and (line := _line_magic(lines[at])) is not None and not _in_brackets(lines[:at]):
        return "\n".join([*lines[:at], line, *lines[at + 1 :]])
    if isinstance(error, IndentationError) and lines[first][0] in " \t":
        # The indentation of the first line goes off every line that has it, as in notebooks.
        indent = lines[first][: len(lines[first]) - len(lines[first].lstrip())]
        return "\n".join(line.removeprefix(indent) for line in lines)
    return None


def _lines(text: str) -> list[str]:
    """Splits lines as the parser counts them: `splitlines` takes seven more characters for ends of lines."""
    lines = re.split(r"\r\n|\r|\n", text)
    return lines[:-1] if lines[-1] == "" else lines


def _in_brackets(before: list[str]) -> bool:
    """Returns true where the next line continues one of these, so that a `%` at its start divides."""
    try:
        ast.parse("\n".join(before))
    except SyntaxError as error:
        return (error.msg or "").endswith("was never closed")
    return False


def _without(text: str, character: str) -> str | None:
    """Returns `text` without a character that cannot be seen; one that looks like a space becomes one."""
    import unicodedata

    category = unicodedata.category(character)
    if category in ("Cf", "Cc", "Co", "Cn"):
        return text.replace(character, "")
    return text.replace(character, " ") if category.startswith("Z") else None


def _cell_magic(lines: list[str], at: int, name: str, rest: str) -> str:
    """Turns a cell below `%%name` into Python: it is run, written to a file, or passed over."""
    before, body = [""] * at, lines[at + 1 :]
    if name in magics.RUNS_ITS_BODY:
        return "\n".join([*before, f"__notebook__.begin_cell({name!r})", *body])
    if name in ("writefile", "file"):
        text = "".join(f"{line}\n" for line in body)
        return "\n".join([*before, f"__notebook__.write_file({rest!r}, {text!r})"])
    return "\n".join([*before, f"__notebook__.cell_magic({name!r}, {rest!r})"])


def _line_magic(line: str) -> str | None:
    """Returns `line` in Python if it is a magic, a shell command or a question for help, perhaps assigned to a name."""
    if found := _LINE_MAGIC.fullmatch(line):
        indent, target, sigil, rest = found.groups()
        if sigil.startswith("!"):
            return f"{indent}{target}__notebook__.shell({rest!r})"
        name, _, argument = rest.partition(" ")
        if sigil == "%" and name in _TIMED:
            return indent + _timed(target, name, _OPTIONS.sub("", argument.strip() + " ", count=1).strip())
        return f"{indent}{target}__notebook__.magic({name!r}, {argument.strip()!r})" if name else None
    if "?" in line and (found := _HELP.fullmatch(line)):
        return f"{found[1]}__notebook__.help({found[2]!r})"
    return None


def _timed(target: str, name: str, code: str) -> str:
    """Returns `code`, one line of Python, with its time taken."""
    if "#" in code:
        code = _without_comment(code)
    if _parses(code, "eval"):
        return f"{target}__notebook__.timed({name!r}, lambda: ({code}))"
    # A statement has no value: its time is taken by calls around it.
    around = f"__notebook__.start(); {code}; __notebook__.stop({name!r})"
    return around if _parses(around, "exec") else code or "pass"


def _without_comment(code: str) -> str:
    """Returns `code` without a comment at its end, which would hide what is put behind it."""
    try:
        plain = "; ".join(map(ast.unparse, ast.parse(code).body))
    except SyntaxError:
        return code
    return code if "\n" in plain else plain


def _parses(code: str, mode: str) -> bool:
    try:
        tree = ast.parse(code, mode=mode)
    except SyntaxError:
        return False
    # A lambda cannot hold an `await`, and a walrus in it would set no name of the cell.
    return mode == "exec" or not any(isinstance(node, (ast.Await, ast.NamedExpr)) for node in ast.walk(tree))
