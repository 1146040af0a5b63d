"""Findings on the calls of replies, on disk: a line for each reply as soon as it is done, and a summary of them.

`OUT/faithfulness/<benchmark>.jsonl` has the lines, from which a run that ended early continues, and
`OUT/faithfulness/<benchmark>.json` the summary, which the report reads.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from codedance_verl.harness.altered_images import Box
from codedance_verl.harness.call_use import Use
from codedance_verl.harness.faithfulness import CallFinding, shares
from codedance_verl.records.key import Key
from codedance_verl.records.record import Record
from codedance_verl.runtime.atomic import write_atomically
from codedance_verl.trajectories.lines import raw_lines
from codedance_verl.trajectories.schema import encodable
from codedance_verl.trajectories.writer import append_line

FOLDER = "faithfulness"
"""Folder of the findings, in that of the run."""

VERSION = 1
"""Of lines and summaries. It rises when a field or a class changes its meaning; older ones are made again."""


class ReplyFindings(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Findings on the calls of one reply.

    Attributes:
        of: `digest_of` the reply.
        item, sample: id of the item, and number of the reply.
        calls: a finding for each call that ran.
        fault: reason for which there are none.
    """

    of: str
    item: str
    sample: int
    calls: tuple[CallFinding, ...] = ()
    fault: str = ""

    @property
    def again(self) -> bool:
        """True where the next run takes the reply again: it has no findings, or no replay of it came to its end."""
        uses = {call.use for call in self.calls}
        return bool(self.fault) or (Use.FAULT in uses and uses <= {Use.FAULT, Use.FAILED})


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """Findings on a benchmark.

    Attributes:
        key: `Key.digest` of the replies.
        replies: those on record in which code ran.
        shares: counts and shares of calls (`faithfulness.shares`).
        findings: on the replies that were drawn.
    """

    version: int = VERSION
    key: str
    replies: int
    shares: dict[str, int | float | None]
    findings: tuple[ReplyFindings, ...]


def digest_of(record: Record, key: Key, boxes: Sequence[Box]) -> str:
    """Digest (32 hex characters) of a reply, its settings and its evidence: what findings on it follow from."""
    parts = [VERSION, key.digest, record.item, record.item_sha256, record.sample, list(boxes), record.data]
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:32]


def lines_path(out: Path, benchmark: str) -> Path:
    """File of the lines."""
    return out / FOLDER / f"{benchmark}.jsonl"


def summary_path(out: Path, benchmark: str) -> Path:
    """File of the summary."""
    return out / FOLDER / f"{benchmark}.json"


def opened(path: Path) -> Mapping[str, ReplyFindings]:
    """Findings that a file of lines holds, the last by `of`. Makes the folder, and ends half a line. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        return {}
    if not path.read_bytes().endswith(b"\n"):  # of a process that was killed
        append_line(path, b"\n")
    lines = (line for _, _, line in raw_lines(path) if line is not None)
    return {found.of: found for line in lines if (found := _decoded(line)) is not None}


def add(path: Path, found: ReplyFindings) -> None:
    """Appends a line. Raises OSError, after nothing was added."""
    append_line(path, _encoded(found) + b"\n")


def write_summary(out: Path, benchmark: str, key: Key, replies: int, found: Sequence[ReplyFindings]) -> Findings:
    """Writes the summary atomically, and returns it. Raises OSError."""
    calls = [call for reply in found for call in reply.calls]
    summary = Findings(key=key.digest, replies=replies, shares=shares(calls), findings=tuple(found))
    write_atomically(summary_path(out, benchmark), msgspec.json.format(_encoded(summary), indent=1))
    return summary


def read_summary(path: Path) -> Findings:
    """The summary of a file. Raises OSError; ValueError: it is none, or of another version."""
    found = msgspec.json.decode(path.read_bytes(), type=Findings)
    if found.version != VERSION:
        raise ValueError(f"version {found.version}, this code reads {VERSION}")
    return found


def _encoded(value: ReplyFindings | Findings) -> bytes:
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return msgspec.json.encode(encodable(msgspec.to_builtins(value)))  # half a surrogate pair in a model's text


def _decoded(line: bytes) -> ReplyFindings | None:
    try:
        # a line of other code or a damaged one: its reply is taken again
        return msgspec.json.decode(line, type=ReplyFindings)
    except (ValueError, RecursionError):
        return None
