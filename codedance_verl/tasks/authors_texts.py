"""Texts of the authors' evaluation scripts, which are read from their files and never run.

Their prompts for judges are not part of this project. Where the file stands beside the data, or the data lies in a
checkout of their repository, those are used; else own words that ask for the same, under a rule of another name.
"""

from __future__ import annotations

import ast
import functools
from pathlib import Path

from codedance_verl.errors import UserError


@functools.lru_cache(maxsize=8)
def texts_of(path: Path, *names: str) -> tuple[str, ...]:
    """Values of the constants `names` of a Python file, all of them texts. Raises UserError for another file."""
    try:
        statements = ast.parse(path.read_text(encoding="utf-8")).body
        found = {
            target.id: ast.literal_eval(statement.value)
            for statement in statements
            if isinstance(statement, ast.Assign)
            for target in statement.targets
            if isinstance(target, ast.Name) and target.id in names
        }
    except (OSError, ValueError, SyntaxError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as the authors' file ({type(error).__name__}: {error})") from None
    missing = [name for name in names if not isinstance(found.get(name), str)]
    if missing:
        raise UserError(f"{path} is not the authors' file: it has no text {missing[0]}")
    return tuple(found[name] for name in names)
