"""State kept between runs of the demo: a marker per finished stage, a note per try, fingerprints of the inputs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from codedance_verl.runtime.atomic import write_atomically

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Marker:
    """A finished stage: wall seconds over all its tries, and what it was made from."""

    name: str
    wall_s: float
    inputs: str


@dataclass(frozen=True)
class Attempt:
    """A try that has not finished, written while it runs.

    Attributes:
        inputs: fingerprint of what it is made from.
        wall_s: seconds of this and earlier tries so far.
        pid, started: the process and when it was created (seconds since the epoch), to find it again if the driver
            was killed; None before it was started.
    """

    inputs: str
    wall_s: float = 0.0
    pid: int | None = None
    started: float | None = None


class StageRecords:
    """Markers and notes in `<out>/stages`."""

    def __init__(self, out: Path) -> None:
        self.folder = out / "stages"

    def marker(self, name: str) -> Marker | None:
        """Marker of a finished stage; None where there is none, or it cannot be read."""
        value = _read(self.folder / f"{name}.json")
        try:
            return Marker(str(value["name"]), float(value["wall_s"]), str(value["inputs"])) if value else None
        except (KeyError, TypeError, ValueError):
            return None

    def attempt(self, name: str) -> Attempt | None:
        value = _read(self.folder / f"{name}.attempt.json")
        try:
            return Attempt(**value) if value else None
        except TypeError:
            return None

    def note(self, name: str, attempt: Attempt) -> None:
        """Remembers a running try; its marker of an earlier run goes."""
        (self.folder / f"{name}.json").unlink(missing_ok=True)
        self._write(f"{name}.attempt.json", asdict(attempt))

    def finish(self, marker: Marker) -> None:
        self._write(f"{marker.name}.json", asdict(marker))
        (self.folder / f"{marker.name}.attempt.json").unlink(missing_ok=True)

    def _write(self, file: str, value: dict[str, Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self.folder / file, json.dumps(value) + "\n")


def fingerprint(command: Sequence[str], inputs: Sequence[Path]) -> str:
    """Hash of a command and of the contents of files and folders; what is missing counts as missing."""
    digest = hashlib.sha256("\0".join(command).encode())
    for path in inputs:
        files = sorted(item for item in path.rglob("*") if item.is_file()) if path.is_dir() else [path]
        for file in files:
            name = str(file.relative_to(path)) if path.is_dir() else file.name
            digest.update(f"\0{name}\0".encode())
            digest.update(_file_hash(file) if file.is_file() else b"missing")
    return digest.hexdigest()[:16]


def _file_hash(file: Path) -> bytes:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.digest()


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
