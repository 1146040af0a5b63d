"""Publishes a finished model folder under a name that never holds half of one."""

from __future__ import annotations

import shutil
from pathlib import Path


def publish_folder(source: Path, target: Path) -> Path:
    """Copy `source` to `target`, replacing what is there in one rename; returns `target`."""
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(source, partial)
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    return target
