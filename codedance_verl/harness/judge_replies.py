"""Replies of judges by the hash of what they depend on, in memory and append-only on disk."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
from pathlib import Path

import msgspec

from codedance_verl.grading.judge.transport import ChatRequest
from codedance_verl.trajectories.writer import append_line

VERSION = 1
"""Part of the keys: it rises when a request means another one, as by another spelling of a message."""

_PATTERN = "replies.*.jsonl"

_logger = logging.getLogger(__name__)


class JudgeReply(msgspec.Struct, frozen=True):
    """Text of a judge, None where the completion has none, and whether it was cut at the bound of tokens."""

    text: str | None
    cut: bool = False


class _Line(msgspec.Struct, frozen=True):
    key: str
    text: str | None
    cut: bool = False


_lines = msgspec.json.Decoder(_Line)


def reply_key(request: ChatRequest, attempt: int) -> str:
    """SHA-256 (hex) over model, messages, sampling, form and number of the attempt, which is part of the draw."""
    messages = [[message["role"], message["content"]] for message in request.messages]
    sampling = [request.temperature, request.seed, request.max_tokens, request.form]
    content = json.dumps([VERSION, request.model, messages, sampling, attempt], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


class ReplyCache:
    """Replies that are known. With a folder, each new one is a line of a file of this process, whole once it is put.

    What other processes have left in the folder is read once, at the start. A file that cannot be read or written costs
    requests, never a reply: it is logged.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._known: dict[str, JudgeReply] = {}
        self._file: Path | None = None
        if folder is None:
            return
        for path in sorted(folder.glob(_PATTERN)):
            self._known |= _read(path)
        # numbers of processes repeat, in containers above all: the file of another one is never appended to
        self._file = folder / f"replies.{os.uname().nodename}.{os.getpid()}.{secrets.token_hex(4)}.jsonl"

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: str) -> JudgeReply | None:
        """Reply, if it is known."""
        return self._known.get(key)

    def put(self, key: str, reply: JudgeReply) -> None:
        """Keeps a reply."""
        self._known[key] = reply
        if self._file is None:
            return
        line = json.dumps({"key": key, "text": reply.text, "cut": reply.cut}) + "\n"
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            append_line(self._file, line.encode())
        except OSError as error:
            _logger.warning("%s: cannot be written (%s); replies are kept in memory alone", self._file, error.strerror)
            self._file = None


def _read(path: Path) -> dict[str, JudgeReply]:
    """Replies of a file; a line that is none is left out, such as the last one of a process that was killed."""
    found: dict[str, JudgeReply] = {}
    try:
        data = path.read_bytes()
    except OSError as error:
        _logger.warning("%s: cannot be read (%s); its replies are asked for again", path, error.strerror)
        return found
    for line in data.splitlines():
        try:
            entry = _lines.decode(line)
        except ValueError:  # msgspec's errors are ValueErrors
            continue
        found[entry.key] = JudgeReply(entry.text, entry.cut)
    return found
