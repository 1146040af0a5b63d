"""Import of modules that a cell has written into its working directory, where no other has their name.

They are found by a finder of the runner's own, last of all, so that they stand for no library, and so that no folder on
`sys.path`, which every process of the interpreter inherits, can be written to.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType


class WorkingDirectoryFinder:
    """Finder for `sys.meta_path`; it reads the directory each time, since a cell may just have written there."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        # A submodule is looked for in its package.
        if path is not None:
            return None
        try:
            directory = os.getcwd()  # noqa: PTH109  a cell can have replaced what pathlib uses
        except OSError:
            return None
        # The cached finder would know the folder as it was.
        sys.path_importer_cache.pop(directory, None)
        return PathFinder.find_spec(fullname, [directory], target)
