"""A function of the user's own in its process: results, every way to fail, and the end of its process."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codedance_verl.errors import UserError
from codedance_verl.isolated.function import Fault, IsolatedFunction, check_path
from codedance_verl.isolated.plain import MAX_TEXT_CHARS, plain_extra_info
from tests.unit.isolated.functions import on_path

FOUR = ("answer", "truth", "question", "record")


@pytest.fixture(autouse=True)
def _modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_path(tmp_path, monkeypatch)


@contextmanager
def function(path: str, **settings: Any) -> Iterator[IsolatedFunction[Any]]:
    made: IsolatedFunction[Any] = IsolatedFunction(
        "grading.custom", path, FOUR, lambda value: value, **{"seconds": 30.0, **settings}
    )
    try:
        yield made
    finally:
        made.close()


def outcome(called: IsolatedFunction[Any], answer: str, question: str = "") -> Any:
    """What a call gives, or the reason of its fault."""
    try:
        return asyncio.run(called.call(answer, "3", question, {}))
    except Fault as fault:
        return str(fault)


def test_what_it_prints_does_no_harm(capfd: pytest.CaptureFixture[str]) -> None:
    with function("user_graders:right") as called:
        assert [outcome(called, answer) for answer in ("3", "4", "3")] == [True, False, True]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ("raise", "ZeroDivisionError: no such luck at user_graders.py:32"),
        ("quit", "SystemExit: 3 at user_graders.py:34"),
        ("memory", "MemoryError at user_graders.py:36"),
        ("exit", "the process ended with exit code 7"),
        ("segfault", "the process was ended by SIGSEGV"),
        ("set", "it returned a value of type set"),
        ("object", "it returned a value of type object"),
        ("deep", "it returned a value of type list inside of a list"),
    ],
)
def test_a_call_that_fails_says_why_and_the_next_one_works(answer: str, told: str) -> None:
    with function("user_graders:by_answer") as called:
        assert outcome(called, answer) == f"grading.custom=user_graders:by_answer: {told}"
        assert outcome(called, "3") is True


@pytest.mark.parametrize("answer", ["hang", "spin"])
def test_a_call_that_does_not_end_is_ended(answer: str) -> None:
    with function("user_graders:by_answer", seconds=0.5) as called:
        called.check()
        started = time.monotonic()
        assert outcome(called, answer) == "grading.custom=user_graders:by_answer: no result within 0.5 s"
        assert time.monotonic() - started < 60
        assert outcome(called, "3") is True


def test_what_a_call_has_started_ends_with_it(tmp_path: Path) -> None:
    note = tmp_path / "pids"
    with function("user_graders:by_answer", seconds=5.0) as called:
        assert "no result" in outcome(called, "child", str(note))
    _wait_for_end(*map(int, note.read_text().split()))


def test_several_calls_run_at_once_where_there_are_processes() -> None:
    async def run(called: IsolatedFunction[Any]) -> list[Any]:
        hanging = asyncio.create_task(called.call("hang", "3", "", {}))
        await asyncio.sleep(0)
        found = [await called.call(answer, "3", "", {}) for answer in ("3", "4")]
        assert not hanging.done()
        called.close()
        with pytest.raises(Fault):
            await hanging
        return found

    with function("user_graders:by_answer", processes=2, seconds=300.0) as called:
        assert asyncio.run(run(called)) == [True, False]


def test_calls_that_fail_in_a_row_end_with_giving_up() -> None:
    with function("user_graders:by_answer", most_faults=3) as called:
        for answer in ("raise", "exit", "3", "raise", "raise"):
            outcome(called, answer)
        assert called.given_up == ""  # one in between worked
        outcome(called, "exit")
        reason = "given up after 3 failed calls in a row, the last: the process ended with exit code 7"
        assert called.given_up == f"grading.custom=user_graders:by_answer: {reason}"
        assert outcome(called, "3") == called.given_up


CANNOT = [
    ("no_such_module:grade", "module no_such_module cannot be imported (ModuleNotFoundError: No module named"),
    ("user_broken:grade", "module user_broken cannot be imported (ModuleNotFoundError: No module named 'there_is"),
    ("user_exits:grade", "module user_exits cannot be imported (SystemExit: enough at user_exits.py:2)"),
    ("user_crashes:grade", "the process ended with exit code 9 at its start"),
    ("user_graders:none", "module user_graders has no none"),
    ("user_graders:number", "number is no function but a value of type int"),
    ("user_graders:three", "it cannot be called with 4 arguments (too many positional arguments)"),
    ("user_graders:later", "later is async; a plain function is called"),
]


@pytest.mark.parametrize(("path", "told"), CANNOT, ids=[path for path, _ in CANNOT])
def test_one_that_cannot_be_called_is_named_at_the_start(path: str, told: str) -> None:
    with function(path) as called:
        with pytest.raises(UserError) as caught:
            called.check()
        said = str(caught.value)
        assert said.startswith(f"grading.custom={path}: {told}") and "\n" not in said
        assert said.endswith("it must be package.module:function, found from the folder of the command, on PYTHONPATH "
                             "or installed, and take (answer, truth, question, record)")  # fmt: skip
        assert f"grading.custom={path}: it cannot be started: {told}" in outcome(called, "3")
        assert bool(called.given_up) is (path != "user_crashes:grade")  # only what is said to be wrong stays so


@pytest.mark.parametrize(
    "path", ["my_grader", "my_grader:", ":grade", "my-grader:grade", "a:b:c", "a.:b", 3, True, [1]]
)
def test_what_is_no_path_is_told(path: object) -> None:
    with pytest.raises(ValueError) as caught:
        check_path(path)
    assert str(caught.value).startswith("must be package.module:function, such as")
    assert check_path("a.b:C.d") == "a.b:C.d"


PARENT = """
import asyncio, sys
from codedance_verl.isolated.function import IsolatedFunction
called = IsolatedFunction("k", "user_graders:by_answer", "abcd", lambda value: value, seconds=600.0)
asyncio.run(called.call(sys.argv[1], "3", sys.argv[2], {}))
"""


def test_the_process_dies_with_its_parent(tmp_path: Path) -> None:
    note = tmp_path / "pids"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    parent = subprocess.Popen([sys.executable, "-c", PARENT, "child", str(note)], env=environment)
    try:
        deadline = time.monotonic() + 120
        while not (note.exists() and len(note.read_text().split()) == 2):
            assert parent.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        worker, child = map(int, note.read_text().split())
        os.kill(worker, 0)
    finally:
        parent.send_signal(signal.SIGKILL)  # nothing that it could do at its end is done
        parent.wait(30)
    _wait_for_end(worker, child)


def _wait_for_end(*pids: int) -> None:
    deadline = time.monotonic() + 60
    for pid in pids:
        while _lives(pid):
            assert time.monotonic() < deadline, pid
            time.sleep(0.05)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_extra_info_is_plain_json() -> None:
    given = {
        "index": np.int64(3),
        "sizes": np.array([[1, 2], [3, 4]]),
        "names": ("a", b"left out", None),
        "share": float("nan"),
        "image": {"bytes": b"\x89PNG", "path": "a.png"},
        "coded": "A" * (MAX_TEXT_CHARS + 1),
        "object": object(),
    }
    expected = {"index": 3, "sizes": [[1, 2], [3, 4]], "names": ["a", None], "share": None, "image": {"path": "a.png"}}
    assert plain_extra_info(given) == expected
    assert plain_extra_info({}) == {}


def test_what_a_crashed_process_has_started_ends_with_it(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    with function("user_graders:by_answer") as called:
        assert "exit code 3" in outcome(called, "leave a helper", str(note))
        _wait_for_end(int(note.read_text()))


def test_no_process_to_be_had_costs_one_call_and_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: Any, **_kwargs: Any) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    with function("user_graders:right") as called:
        with monkeypatch.context() as patched:
            patched.setattr(subprocess, "Popen", refuse)
            before = len(list(Path("/proc/self/fd").iterdir()))
            assert all("Resource temporarily unavailable" in outcome(called, "3") for _ in range(3))
            assert len(list(Path("/proc/self/fd").iterdir())) == before
        assert outcome(called, "3") is True
