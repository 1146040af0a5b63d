"""Cache of verdicts by the hash of what was judged, in memory and, for a run that resumes, in its folder."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections import OrderedDict
from dataclasses import astuple
from pathlib import Path

from codedance_verl.grading.judge.prompt import PROMPT_VERSION, Question
from codedance_verl.grading.judge.verdict import Judgement

logger = logging.getLogger(__name__)


def cache_key(model: str, question: Question) -> str:
    """SHA-256 (hex) over everything that the verdict depends on."""
    content = json.dumps([PROMPT_VERSION, model, *astuple(question)])
    return hashlib.sha256(content.encode()).hexdigest()


class VerdictCache:
    """Verdicts used last, at most `entries`. With a folder, every new one is appended to a file of this process.

    Files of other processes in the folder are read once, at the start. A file that cannot be read or written costs
    requests, never a verdict: it is logged and left alone.
    """

    def __init__(self, entries: int, folder: Path | None = None) -> None:
        self._entries = entries
        self._known: OrderedDict[str, Judgement] = OrderedDict()
        self._file = None if folder is None else folder / f"verdicts.{os.uname().nodename}.{os.getpid()}.jsonl"
        if folder is not None and folder.is_dir():
            for path in sorted(folder.glob("verdicts.*.jsonl")):
                self._read(path)

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: str) -> Judgement | None:
        """Verdict, if it is cached."""
        if key in self._known:
            self._known.move_to_end(key)
        return self._known.get(key)

    def put(self, key: str, judgement: Judgement) -> None:
        """Remembers a verdict."""
        self._remember(key, judgement)
        if self._file is None or not self._entries:
            return
        line = json.dumps({"key": key, "correct": judgement.correct, "reason": judgement.reason})
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            logger.warning("%s: cannot be written (%s); verdicts are kept in memory alone", self._file, error.strerror)
            self._file = None

    def _remember(self, key: str, judgement: Judgement) -> None:
        if not self._entries:
            return
        self._known[key] = judgement
        self._known.move_to_end(key)
        while len(self._known) > self._entries:
            self._known.popitem(last=False)

    def _read(self, path: Path) -> None:
        try:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError as error:
            logger.warning("%s: cannot be read (%s); its verdicts are asked for again", path, error.strerror)
            return
        for line in lines:
            try:
                entry = json.loads(line)
                key, correct, reason = entry["key"], entry["correct"], entry["reason"]
            except (ValueError, KeyError, TypeError):
                continue  # the last line of a process that was killed
            if isinstance(key, str) and isinstance(correct, bool) and isinstance(reason, str):
                self._remember(key, Judgement(correct, reason))
