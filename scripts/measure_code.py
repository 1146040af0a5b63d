"""Figures of the code of a checkout: lines, comments, docstrings, `try`, and the way of one record.

`python scripts/measure_code.py [CHECKOUT] [--record] [--json FILE]` prints a table. With `--record` one record is sent
through the package as well (`measure_record.py`, half a minute). Files that git ignores are not counted.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import re
import subprocess
import sys
import tempfile
import tokenize
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from measure_record import measure

FOLDERS = ("codedance_verl", "sandbox_image", "sandbox_security", "recipes", "benchmarks", "scripts", "tests")
PACKAGE = FOLDERS[:3]
"""Folders that the shares are given over: package, image, attacks (which an older tree has in the package)."""
QUESTION_WORDS = frozenset(("What", "Which", "Who", "How", "Whether", "Where", "Of", "In", "When", "Why", "Whose"))
LINTER_COMMENT = re.compile(r"#\s*(noqa|type:|ruff:|mypy:|pragma|!)")
"""Comments for tools, which explain nothing to a reader."""


@dataclass
class Counts:
    """Figures of some files. Lines count blank ones too; a comment counts once for each line that it stands on."""

    files: int = 0
    lines: int = 0
    comments: int = 0
    tries: int = 0
    module_docstrings: int = 0
    module_questions: int = 0
    docstrings: int = 0
    questions: int = 0
    first_words: Counter[str] = field(default_factory=Counter)

    def add(self, source: str) -> None:
        """Adds a Python file."""
        self.files += 1
        self.lines += source.count("\n")
        tokens = tokenize.generate_tokens(io.StringIO(source).readline)
        self.comments += sum(
            token.type == tokenize.COMMENT and not LINTER_COMMENT.match(token.string) for token in tokens
        )
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Try | ast.TryStar):
                self.tries += 1
            elif isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                self._add_docstring(ast.get_docstring(node), isinstance(node, ast.Module))

    def _add_docstring(self, text: str | None, of_module: bool) -> None:
        if not text:
            return
        first = re.match(r"\w*", text)
        asks = first is not None and first.group() in QUESTION_WORDS
        self.docstrings += 1
        self.questions += asks
        self.module_docstrings += of_module
        self.module_questions += asks and of_module
        if first is not None:
            self.first_words[first.group()] += 1

    def summary(self) -> dict[str, Any]:
        """Figures as they are printed: counts, rates per 1,000 lines, percentages."""
        return {
            "files": self.files,
            "lines": self.lines,
            "comments_per_1000": round(1000 * self.comments / max(self.lines, 1), 1),
            "try_per_1000": round(1000 * self.tries / max(self.lines, 1), 1),
            "question_modules_percent": round(100 * self.module_questions / max(self.module_docstrings, 1), 1),
            "question_docstrings_percent": round(100 * self.questions / max(self.docstrings, 1), 1),
        }


def python_files(root: Path, folder: str) -> list[Path]:
    """Python files of a folder that git tracks or would track."""
    command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", folder]
    listed = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.split("\0")
    paths = {root / name for name in listed if name.endswith(".py") and not name.startswith("tests/data/")}
    return sorted(path for path in paths if path.is_file())


def count(root: Path, folders: tuple[str, ...]) -> Counts:
    """Counts over all Python files of these folders."""
    counts = Counts()
    for folder in folders:
        for path in python_files(root, folder):
            counts.add(path.read_text(encoding="utf-8"))
    return counts


def figures(root: Path, with_record: bool = False) -> dict[str, Any]:
    """All figures of the checkout at `root`."""
    found: dict[str, Any] = {
        "package": count(root, PACKAGE).summary(),
        "all": count(root, FOLDERS[:-1]).summary(),
        "folders": {folder: count(root, (folder,)).summary() for folder in FOLDERS},
        "parts": {},
    }
    parts = sorted({path.relative_to(root).parts[1] for path in python_files(root, "codedance_verl")})
    for part in parts:
        found["parts"][part.removesuffix(".py")] = count(root, (f"codedance_verl/{part}",)).lines
    if with_record:
        with tempfile.TemporaryDirectory() as folder:
            found["record"] = measure(root, Path(folder))
    return found


def table(found: dict[str, Any]) -> str:
    """Figures as text."""
    names = list(found["package"])
    rows = [["", *(name.replace("_", " ") for name in names)]]
    for folder, summary in {
        "package, image, attacks": found["package"],
        "all but tests": found["all"],
        **found["folders"],
    }.items():
        rows.append([folder, *(f"{summary[name]:,}" for name in names)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    lines += ["", "lines of codedance_verl: " + ", ".join(f"{name} {lines}" for name, lines in found["parts"].items())]
    if record := found.get("record"):
        lines.append(f"one record: {record['files']} files visited, {record['reencodings']} re-encodings")
        lines.append("  " + " -> ".join(form.rpartition(".")[2] for form in record["forms"]))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Figures of the code of a checkout.")
    parser.add_argument("checkout", type=Path, nargs="?", default=Path(__file__).resolve().parents[1])
    parser.add_argument("--record", action="store_true", help="also send one record through the package")
    parser.add_argument("--json", type=Path, help="file for all figures")
    options = parser.parse_args()
    found = figures(options.checkout.resolve(), options.record)
    print(table(found))
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
