"""The functions that docs/grading.md and docs/reward.md show do what is said there, by the commands shown there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]


def module(page: str, name: str, folder: Path) -> None:
    """Write the module that a page shows; the first line of its block is its name."""
    (text,) = re.findall(rf"```python\n# {name}\n(.*?)```", (REPOSITORY / "docs" / page).read_text(), re.DOTALL)
    assert text.strip().count("\n") < 10
    (folder / name).write_text(text)


def explained(page: str, marked: str, folder: Path) -> list[dict[str, Any]]:
    """What the page's `codedance reward explain` with this option prints in the folder."""
    commands = re.findall(
        r"^codedance (reward explain .*?)\s*(?:#.*)?$", (REPOSITORY / "docs" / page).read_text(), re.M
    )
    (command,) = [item.split() for item in commands if marked in item]
    done = subprocess.run(
        [sys.executable, "-m", "codedance_verl.cli", *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    answers = [("3 or 4", "3"), ("1, 2 or 3", "3"), ("3", "three"), ("three", "3")]
    lines = [
        {
            "group": "a",
            "data_source": "test",
            "question": "How many?",
            "ground_truth": truth,
            "turns": [{"text": f"<answer>{answer}</answer>", "execution": None}],
            "finish": "answer",
        }
        for answer, truth in answers
    ]
    (tmp_path / "rollouts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def test_the_grader(folder: Path) -> None:
    module("grading.md", "my_grader.py", folder)
    found = [(item["verdict"], item["rung"], item["evidence"]) for item in explained("grading.md", "my_grader", folder)]
    assert found == [
        ("correct", "custom", "['3', '4'] against 3"),
        ("wrong", "custom", "['1', '2', '3'] against 3"),
        ("ungraded", "custom", "the truth is no number"),
        ("wrong", "custom", "[] against 3"),
    ]


def test_the_term(folder: Path) -> None:
    module("reward.md", "my_terms.py", folder)
    found = explained("reward.md", "my_terms", folder)
    assert [item["custom_reward"] for item in found] == [0.0, 0.0, 0.999, 0.999]
    assert found[3]["score"] == pytest.approx(1 + 0.2 * 0.999) and found[0]["score"] == 0
