"""Texts of the authors' evaluation scripts, which are read from their files and never run.

Their prompts for judges are not part of this project. Where the file stands beside the data, or the data lies in a
checkout of their repository, those are used; else own words that ask for the same, under a rule of another name.
"""

from __future__ import annotations

import ast
import contextlib
import functools
from pathlib import Path
from typing import Any

from codedance_verl.errors import UserError


@functools.lru_cache(maxsize=8)
def texts_of(path: Path, *names: str) -> tuple[str, ...]:
    """Values of the constants `names` of a Python file, all of them texts. Raises UserError for another file."""
    found = constants_of(path, *names)
    missing = [name for name in names if not isinstance(found.get(name), str)]
    if missing:
        raise UserError(f"{path} is not the authors' file: it has no text {missing[0]}")
    return tuple(found[name] for name in names)


def constants_of(path: Path, *names: str) -> dict[str, Any]:
    """Values of those constants `names` that a Python file assigns. Raises UserError: it cannot be read as one."""
    try:
        statements = ast.parse(path.read_text(encoding="utf-8")).body
        return {
            target.id: ast.literal_eval(statement.value)  # takes constants alone: nothing of the file runs
            for statement in statements
            if isinstance(statement, ast.Assign)
            for target in statement.targets
            if isinstance(target, ast.Name) and target.id in names
        }
    except (OSError, ValueError, SyntaxError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as the authors' file ({type(error).__name__}: {error})") from None


def authors_file(data: Path, place: str, *names: str) -> Path | None:
    """The authors' file with the constants `names`: beside a data file, or at `place` of the checkout it lies in.

    None where there is none. Another file of that name is refused beside the data, and passed over at `place`.
    """
    beside = data.parent / Path(place).name
    if beside.is_file():
        texts_of(beside, *names)
        return beside
    found = next((path for path in (data.parent / place, data.parent.parent / place) if path.is_file()), None)
    if found is not None:
        with contextlib.suppress(UserError):
            texts_of(found, *names)
            return found
    return None
