"""Reads collections of cells that tests run."""

from __future__ import annotations

import re


def named_cells(text: str) -> dict[str, str]:
    """Cells by name: each begins with a comment at the left margin that holds its name."""
    parts = re.split(r"^# (.+)\n", text, flags=re.MULTILINE)[1:]
    return {name: code.rstrip() for name, code in zip(parts[::2], parts[1::2], strict=True)}
