"""Names of records in logs: stored ones, or made of source and index, unique among the files of a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from codedance_verl.types import stated_record_id


class RecordNames:
    """Names records in the order of their files.

    A stored `record_id` stays as it is, repeated or not: variants of one question share it. A name made of source and
    index that came before, of the same variant, gets `@<file>:<row>` behind it. A record without an index is
    `<data_source>/<file>:<row>`.
    """

    def __init__(self) -> None:
        self._seen: set[int] = set()  # hashes: 64 bits tell millions of names apart, and are all that is held
        self.repeated: list[tuple[int, str]] = []
        """Row and name of the first records whose index came before, at most `EXAMPLES`."""
        self.repetitions = 0

    EXAMPLES = 3

    def name(self, data_source: str, extra_info: Mapping[str, Any], path: Path, row: int) -> str:
        """The name of the next record."""
        stated, place = stated_record_id(data_source, extra_info), f"{path.stem}:{row}"
        if not stated:
            return f"{data_source}/{place}"
        if extra_info.get("record_id") or self._is_new(stated, extra_info.get("variant")):
            return stated
        self.repetitions += 1
        if len(self.repeated) < self.EXAMPLES:
            self.repeated.append((row, stated))
        return f"{stated}@{place}"

    def _is_new(self, name: str, variant: object) -> bool:
        key = hash((name, str(variant)))
        new = key not in self._seen
        self._seen.add(key)
        return new
