"""Fingerprint of a model's files, which tells weights apart without reading all of them."""

from __future__ import annotations

import hashlib
from pathlib import Path

BLOCKS = 64
"""Blocks of each file that are read, evenly spaced over it; the first and the last are among them."""

BLOCK_BYTES = 1 << 16
_OF_A_MODEL = ("*.safetensors", "*.bin", "*.json", "*.jinja", "*.txt", "*.model")


def model_fingerprint(folder: Path) -> str:
    """First 16 hex digits of a SHA-256 over names, sizes and blocks of the files of a Hugging Face folder.

    Training changes nearly every weight, so that another checkpoint differs in some block. Two files of equal size that
    differ between the blocks alone are not told apart. Raises OSError.
    """
    digest = hashlib.sha256()
    for path in sorted({path for pattern in _OF_A_MODEL for path in folder.glob(pattern)}):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as file:
            for start in _starts(size):
                file.seek(start)
                digest.update(file.read(BLOCK_BYTES))
    return digest.hexdigest()[:16]


def _starts(size: int) -> list[int]:
    if size <= BLOCKS * BLOCK_BYTES:
        return list(range(0, size, BLOCK_BYTES))
    return [number * (size - BLOCK_BYTES) // (BLOCKS - 1) for number in range(BLOCKS)]
