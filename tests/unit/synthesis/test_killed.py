"""A synthesis that is killed while it asks and while it checks, and started again: real processes and a real server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from codedance_verl.records.store import existing_store
from tests.unit.synthesis.scripted_teacher import SMALL, Teacher, scenes, serving, write_questions

NAMES = ("easy", "visual", "drawing", "visual", "wrong", "drawing")
AT_ONCE = 2
_COMMAND = (sys.executable, "-c", "from codedance_verl.cli import main; main()", "data", "synthesize")

Start = Callable[[], "subprocess.Popen[str]"]


@pytest.fixture
def teacher() -> Teacher:
    return Teacher(scenes(len(NAMES)), slow_s=0.15)


@pytest.fixture
def start(tmp_path: Path, teacher: Teacher) -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []
    questions = write_questions(tmp_path / "data", NAMES, teacher.scenes)
    with serving(teacher) as url:

        def command() -> subprocess.Popen[str]:
            options = ["--out", str(tmp_path / "out"), "--teacher", "scripted", "--endpoint", url]
            options += ["--direct", "1", "--tries", "1", "--kinds", "any", f"eval.concurrency={AT_ONCE}"]
            given = [*_COMMAND, str(questions), *options, *SMALL]
            process = subprocess.Popen(
                given, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(os.environ)
            )
            started.append(process)
            return process

        yield command
    for process in started:
        process.kill()
        process.wait()


def _kill_once(process: subprocess.Popen[str], reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not reached():
        assert process.poll() is None and time.monotonic() < deadline, process.stderr and process.stderr.read()
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()


def _recorded(out: Path, name: str) -> set[str]:
    folder = out / "records/questions" / name
    return {record.item for record in existing_store(folder).records()} if (folder / "key.json").is_file() else set()


def _checks(out: Path) -> list[str]:
    return [folder.name for folder in (out / "records/questions").glob("tools-0.checks-*")]


def test_no_reply_on_record_is_asked_for_again(tmp_path: Path, teacher: Teacher, start: Start) -> None:
    out = tmp_path / "out"
    paid: set[str] = set()

    def note() -> None:
        for name, sort in (("direct-0", "direct"), ("tools-0", "tools")):
            paid.update(f"{item[1:]}/{sort}/" for item in _recorded(out, name))

    _kill_once(start(), lambda: len(_recorded(out, "direct-0")) >= 3)
    note()
    before = dict(teacher.asked)
    _kill_once(start(), lambda: len(_recorded(out, "tools-0")) >= 2)
    asked_again = {key for key, count in teacher.asked.items() if count > before.get(key, 0)}
    assert paid and not [key for key in asked_again if any(map(key.startswith, paid))]
    note()
    before = dict(teacher.asked)
    _kill_once(start(), lambda: any(_recorded(out, name) for name in _checks(out)))
    checked = {(name, item) for name in _checks(out) for item in _recorded(out, name)}
    last = start()
    printed, complained = last.communicate(timeout=150)
    (name,) = _checks(out)
    assert f"checking {5 - len(checked)} replies" in complained
    assert len(list(existing_store(out / "records/questions" / name).records())) == 5
    assert last.returncode == 0, complained
    asked_again = {key for key, count in teacher.asked.items() if count > before.get(key, 0)}
    assert not [key for key in asked_again if any(map(key.startswith, paid))]
    # what was in flight at a kill is all that is lost
    assert sum(count - 1 for count in teacher.asked.values()) <= 2 * 2 * AT_ONCE
    kept = [row["record_id"] for row in pq.read_table(out / "sft.parquet").to_pylist()]
    assert sorted(kept) == ["q0", "q1", "q2", "q3", "q5"]
    assert [json.loads(line)["stage"] for line in (out / "rejections.jsonl").read_text().splitlines()] == ["right"]
    assert "5 demonstrations" in printed
