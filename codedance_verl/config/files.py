"""Folders that lie beside the package in a checkout, and within it in an installed wheel."""

from __future__ import annotations

from pathlib import Path

import codedance_verl

_PACKAGE = Path(codedance_verl.__file__).resolve().parent


def checkout() -> Path | None:
    """Root of the checkout that the package is imported from; None where a wheel is installed."""
    root = _PACKAGE.parent
    return root if (root / "pyproject.toml").is_file() and (root / "conf").is_dir() else None


def shipped_folder(name: str) -> Path:
    """Folder `conf` or `requirements`, in a checkout or a wheel; `setup.py` copies both into the wheel."""
    return (checkout() or _PACKAGE) / name
