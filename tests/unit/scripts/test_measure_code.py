"""Figures of the code, and the limits that this code base keeps to."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]

# ---- Limits. Each may only be tightened. ----
LEAST_COMMENTS = 24.0  # lines in 1,000 of package, image and attacks
MOST_QUESTIONS = 2.0  # percent of docstrings that begin with a question word
MOST_TRIES = 8.5  # in 1,000 lines
MOST_FILES, MOST_REENCODINGS = 35, 10  # on the way of one record
# ----


def figures(root: Path, folder: Path, *options: str) -> dict[str, Any]:
    file = folder / "figures.json"
    command = [sys.executable, ROOT / "scripts" / "measure_code.py", root, "--json", file, *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=380)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def test_what_is_counted(tmp_path: Path) -> None:
    root = tmp_path / "checkout"
    (root / "codedance_verl" / "part").mkdir(parents=True)
    (root / "codedance_verl" / "part" / "a.py").write_text(
        '"""What this is."""\n\n# why\nx = 1  # noqa: E501\n\n\ndef f() -> None:\n    """Returns nothing."""\n'
        "    try:\n        pass\n    finally:  # always\n        pass\n"
    )
    (root / "codedance_verl" / "ignored.py").write_text("y = 1\n")
    (root / ".gitignore").write_text("ignored.py\n")
    subprocess.run(["git", "init", "-q", str(root)], check=True, timeout=30)
    found = figures(root, tmp_path)
    assert found["package"] == {
        "files": 1,
        "lines": 12,
        "comments_per_1000": 166.7,  # two: not the one that is for the linter
        "try_per_1000": 83.3,
        "question_modules_percent": 100.0,
        "question_docstrings_percent": 50.0,
    }
    assert found["parts"] == {"part": 12}


def test_the_limits_of_this_code(tmp_path: Path) -> None:
    found = figures(ROOT, tmp_path)["package"]
    assert found["comments_per_1000"] >= LEAST_COMMENTS
    assert found["question_docstrings_percent"] <= MOST_QUESTIONS
    assert found["question_modules_percent"] <= MOST_QUESTIONS
    assert found["try_per_1000"] <= MOST_TRIES


@pytest.mark.slow
@pytest.mark.timeout(400)  # a bound for what hangs: half a minute on an idle machine
def test_the_way_of_one_record(tmp_path: Path) -> None:
    record = figures(ROOT, tmp_path, "--record")["record"]
    assert 20 < record["files"] <= MOST_FILES
    assert 4 < record["reencodings"] <= MOST_REENCODINGS
    assert record["files"] == len(record["visited"]) + 1 and record["rules"], "the rule that decides is one file"
    # parquet, reward, estimator and log: the record went all the way
    passed = {Path(file).parts[0] for file in record["visited"]}
    assert {"data", "environment", "formats", "grading", "reward", "rollout"} <= passed
