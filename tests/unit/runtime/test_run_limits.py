from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from codedance_verl.errors import UserError
from codedance_verl.runtime.run_limits import (
    SAVE_FILE,
    STOP_FILE,
    guarded,
    request_stop,
    stop_is_wanted,
    stops_on_signals,
)

Usage = namedtuple("Usage", "total used free")


def test_a_run_over_its_time_is_ended_out_of_a_blocking_call(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"time_limit_s=0\.05: the run was stopped"), guarded(tmp_path, 0.05, 0, 0.01):
        time.sleep(20)


WAITS_FOR_RAY = """
import sys, time
from pathlib import Path
import ray
from codedance_verl.runtime.run_limits import guarded, request_stop

class Worker:
    def wait(self):
        time.sleep(600)

folder = Path(sys.argv[1])
ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
try:
    with guarded(folder, None, 0, 0.1):
        answer = ray.remote(Worker).remote().wait.remote()
        request_stop(folder, "a node was lost")
        ray.get(answer)
except BaseException as error:
    print("RAISED", type(error).__name__, error)
"""


@pytest.mark.slow
def test_a_run_that_waits_for_an_answer_of_ray_is_ended(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WAITS_FOR_RAY, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "RAISED UserError a node was lost" in done.stdout.splitlines(), done.stderr[-2000:]


def test_a_disk_that_fills_up_ends_the_run_with_cause_and_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("codedance_verl.runtime.run_limits.shutil.disk_usage", lambda _: Usage(100, 99, 1 << 20))
    expected = pytest.raises(UserError, match=r"the disk is full \(1 MiB free\); free some space")
    with expected, guarded(tmp_path, None, 64 << 20, 0.01):
        time.sleep(20)


def test_a_run_within_its_bounds_is_left_alone(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGUSR1)
    with guarded(tmp_path, 60.0, 0, 0.01):
        time.sleep(0.05)
    assert signal.getsignal(signal.SIGUSR1) is before


def test_a_process_of_the_run_can_ask_for_its_end(tmp_path: Path) -> None:
    def run() -> None:
        with guarded(tmp_path, None, 0, 0.2):
            request_stop(tmp_path, "tool use has collapsed")
            request_stop(tmp_path, "later, and for another reason")
            time.sleep(20)

    with pytest.raises(UserError, match=r"^tool use has collapsed$"):
        run()


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP])
def test_a_file_system_without_hard_links_takes_requests_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def link(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("codedance_verl.runtime.run_limits.os.link", link)
    request_stop(tmp_path, "the first")
    request_stop(tmp_path, "the second")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {STOP_FILE: "the first"}


def test_a_request_that_is_being_written_is_none_yet(tmp_path: Path) -> None:
    with guarded(tmp_path, None, 0, 0.01):
        (tmp_path / STOP_FILE).touch()
        time.sleep(0.1)


def test_requests_at_the_same_time_do_not_meet(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda number: request_stop(tmp_path, f"reason {number}"), range(200)))
    assert [path.name for path in tmp_path.iterdir()] == [STOP_FILE]


def test_a_request_of_an_earlier_run_is_forgotten(tmp_path: Path) -> None:
    request_stop(tmp_path, "long ago")
    with guarded(tmp_path, None, 0, 0.01):
        time.sleep(0.05)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_asks_the_trainer_to_save_and_end(tmp_path: Path, number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with stops_on_signals(tmp_path):
        assert not stop_is_wanted(tmp_path)
        os.kill(os.getpid(), number)
        assert stop_is_wanted(tmp_path)
    assert signal.getsignal(number) is before


def test_a_second_signal_ends_the_run_at_once(tmp_path: Path) -> None:
    def run() -> None:
        with stops_on_signals(tmp_path):
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run()


def test_a_look_at_the_disk_that_fails_is_followed_by_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = iter([OSError("stale file handle"), Usage(100, 99, 1 << 20)])

    def disk_usage(_: Path) -> Usage:
        found = next(looks)
        if isinstance(found, OSError):
            raise found
        return found

    monkeypatch.setattr("codedance_verl.runtime.run_limits.shutil.disk_usage", disk_usage)
    with pytest.raises(UserError, match="the disk is full"), guarded(tmp_path, 10.0, 64 << 20, 0.01):
        time.sleep(20)


def test_a_folder_that_does_not_answer_is_no_wish_to_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exists(_: Path) -> bool:
        raise OSError("stale file handle")

    monkeypatch.setattr(Path, "exists", exists)
    assert not stop_is_wanted(tmp_path)


def _is_deleted_and_told_to_end(folder: Path, signals: int, time_limit_s: float | None = None) -> None:
    with guarded(folder, time_limit_s, 0, 0.01), stops_on_signals(folder):
        shutil.rmtree(folder)
        for _ in range(signals):
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(20)


def test_a_run_whose_folder_is_gone_cannot_save_and_ends_at_once(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt, match=r"^SIGINT: .*run: cannot be written \(No such file or directory\)"):
        _is_deleted_and_told_to_end(_made(tmp_path / "run"), signals=1)


def test_a_run_whose_folder_is_gone_keeps_to_its_time(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^time_limit_s=0\.2: the run was stopped"):
        _is_deleted_and_told_to_end(_made(tmp_path / "run"), signals=0, time_limit_s=0.2)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


@pytest.mark.parametrize(
    "tell",
    [lambda _: os.kill(os.getpid(), signal.SIGTERM), lambda folder: (folder / SAVE_FILE).touch()],
    ids=["a signal", "the file"],
)
def test_a_step_that_does_not_end_is_not_waited_for_longer_than_was_said(
    tmp_path: Path, tell: Callable[[Path], None]
) -> None:
    def run() -> None:
        with guarded(tmp_path, None, 0, 0.01, stop_grace_s=0.3), stops_on_signals(tmp_path):
            time.sleep(0.4)  # no time counts before it is told
            tell(tmp_path)
            time.sleep(20)

    with pytest.raises(UserError, match=r"^stop_grace_s=0\.3: the run was asked to end, and has not ended "):
        run()


def test_a_stop_that_an_earlier_start_was_told_is_forgotten(tmp_path: Path) -> None:
    (tmp_path / SAVE_FILE).touch()
    with guarded(tmp_path, None, 0, 0.01):
        assert not stop_is_wanted(tmp_path)
