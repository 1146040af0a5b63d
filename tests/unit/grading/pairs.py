"""Reads the labelled pairs of tests/data/grading (its README says what they are)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "data" / "grading"
OPEN, ADVERSARIAL = "open", "adversarial"
KINDS = tuple(sorted(path.stem for path in FOLDER.glob("*.jsonl") if path.stem not in (OPEN, ADVERSARIAL)))


@dataclass(frozen=True)
class Pair:
    """An answer, what it is compared with, and whether a careful person would call it right."""

    ground_truth: str
    answer: str
    correct: bool
    question: str = ""
    style: str = "rule"


def read_pairs(kind: str) -> list[Pair]:
    lines = (FOLDER / f"{kind}.jsonl").read_text(encoding="utf-8").splitlines()
    return [Pair(**json.loads(line)) for line in lines]
