"""Folder of images, each stored once under its SHA-256; records refer to them by path."""

from __future__ import annotations

import hashlib
import os
import uuid
from dataclasses import dataclass
from pathlib import Path

from codedance_verl.errors import UserError
from codedance_verl.runtime.atomic import replacing

_ENDINGS = {
    b"\x89PNG\r\n\x1a\n": ".png",
    b"\xff\xd8\xff": ".jpg",
    b"GIF8": ".gif",
    b"BM": ".bmp",
    b"II*\x00": ".tif",
    b"MM\x00*": ".tif",
}


@dataclass(frozen=True)
class ImageStore:
    """Store of encoded files `<folder>/<first two digits>/<sha256>.<ending>`.

    Several processes, of several machines too, may put images at once. A file that is there has all its bytes: it gets
    its name when they are on the disk. One of another length, as a copy that broke off leaves it, is written again.
    """

    folder: Path

    def put(self, data: bytes) -> Path:
        """Stores an encoded image, unless it is there; returns its file. Raises UserError where the disk fails."""
        digest = hashlib.sha256(data).hexdigest()
        path = self.folder / digest[:2] / f"{digest}{_ending(data)}"
        try:
            if not path.exists() or path.stat().st_size != len(data):
                path.parent.mkdir(parents=True, exist_ok=True)
                # flushed, since the record of a piece is: after a power cut a resumed run trusts it
                with replacing(path, writer=uuid.uuid4().hex[:12]) as partial:
                    partial.write_bytes(data)
        except OSError as error:
            raise UserError(
                f"cannot store an image in {self.folder}: {error.strerror or error}; free some space or name another "
                "folder with --images"
            ) from error
        return path


def reference(image: Path, file: Path) -> str:
    """Text by which a record of `file` refers to an image: its path from the folder of the file.

    Links are followed in both folders, as the system follows them before it goes up by `..`.
    """
    return Path(os.path.relpath(image.parent.resolve() / image.name, file.parent.resolve())).as_posix()


def _ending(data: bytes) -> str:
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return ".webp"
    return next((ending for mark, ending in _ENDINGS.items() if data.startswith(mark)), ".img")
