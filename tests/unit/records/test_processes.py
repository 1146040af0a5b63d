"""Processes that are killed, stopped or share a folder: every sample is recorded once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from codedance_verl.records import leases
from codedance_verl.records.record import Status
from codedance_verl.records.store import open_store
from tests.unit.records import worker
from tests.unit.records.worker import key_of, questions, reply_to

REPOSITORY = Path(__file__).resolve().parents[3]
Start = Callable[..., "subprocess.Popen[str]"]

LONG_LEASE_S = 600.0  # no test waits for it: a process that ended on this machine is noticed at once


@pytest.fixture
def start() -> Iterator[Start]:
    running: list[subprocess.Popen[str]] = []

    def started(*arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, worker.__file__, *map(str, arguments)]
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        running.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
        return running[-1]

    yield started
    for process in running:
        process.kill()
        process.wait()


def _read_lines(process: subprocess.Popen[str], count: int) -> None:
    assert process.stdout is not None
    for _ in range(count):
        assert process.stdout.readline()


def _assert_each_once(folder: Path, count: int, samples: int = 1) -> None:
    """Also by the lines of the files themselves, the index aside."""
    store = open_store(folder, key_of(samples))
    found = Counter((record.item, record.sample) for record in store.records())
    assert found == {(item.id, sample): 1 for item in questions(count) for sample in range(samples)}
    replies = {(record.item, record.sample): record.data for record in store.records()}
    assert all(replies[item.id, n] == reply_to(item, n) for item in questions(count) for n in range(samples))
    assert store.plan(questions(count)).left == 0


def test_a_killed_process_is_resumed_and_the_records_are_those_of_one_that_was_not(
    tmp_path: Path, start: Start
) -> None:
    killed = start(tmp_path, 60, 2, LONG_LEASE_S, 0.02)
    _read_lines(killed, 25)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    store = open_store(tmp_path, key_of(2))
    before = {(record.item, record.sample): record for record in store.records()}
    plan = store.plan(questions(60))
    assert 24 <= plan.done == len(before) < 120 and plan.left == 120 - plan.done
    assert start(tmp_path, 60, 2, LONG_LEASE_S, 0).wait(120) == 0
    _assert_each_once(tmp_path, 60, 2)
    after = {(record.item, record.sample): record for record in store.records()}
    assert before.items() <= after.items()  # kept as they were, not asked again


def test_two_processes_share_a_folder_and_one_is_killed(tmp_path: Path, start: Start) -> None:
    first, second = (start(tmp_path, 80, 1, LONG_LEASE_S, 0.05) for _ in range(2))
    _read_lines(first, 5)
    _read_lines(second, 5)
    first.send_signal(signal.SIGKILL)
    assert second.wait(200) == 0
    _assert_each_once(tmp_path, 80)
    plan = open_store(tmp_path, key_of()).plan(questions(80))
    assert not plan.passed.twice and len(leases.writers(tmp_path)) == 2


def test_what_a_stopped_process_writes_after_its_lease_does_not_count(tmp_path: Path, start: Start) -> None:
    stopped = start(tmp_path, 20, 1, 1.0, 1.0)
    _read_lines(stopped, 2)
    stopped.send_signal(signal.SIGSTOP)  # as a node that lost its network: it lives, and shows no sign of it
    other = start(tmp_path, 20, 1, 1.0, 0)
    assert other.wait(120) == 0
    counted = sorted((record.item, record.written_at) for record in open_store(tmp_path, key_of()).records())
    stopped.send_signal(signal.SIGCONT)
    assert stopped.wait(60) == 1  # LeaseLost, at its next record
    _assert_each_once(tmp_path, 20)
    store = open_store(tmp_path, key_of())
    assert counted == sorted((record.item, record.written_at) for record in store.records())
    assert store.plan(questions(20)).passed.cut == 1  # written, and passed over


@pytest.mark.parametrize("cut", [1, 40, 2500])
def test_a_torn_last_line_costs_its_own_item(tmp_path: Path, start: Start, cut: int) -> None:
    killed = start(tmp_path, 30, 1, LONG_LEASE_S, 0.02)
    _read_lines(killed, 10)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    (writer,) = leases.writers(tmp_path)
    path = leases.records_file(tmp_path, writer)
    whole = path.read_bytes().count(b"\n")
    os.truncate(path, path.stat().st_size - cut)
    store = open_store(tmp_path, key_of())
    assert store.plan(questions(30)).done == whole - (1 if cut < 2000 else 2)
    assert start(tmp_path, 30, 1, LONG_LEASE_S, 0).wait(120) == 0
    _assert_each_once(tmp_path, 30)
    assert store.plan(questions(30)).passed.cut == 1


def test_a_failed_item_is_asked_again_by_choice_alone(tmp_path: Path) -> None:
    store = open_store(tmp_path, key_of())
    failures = [status for status in Status if status != Status.ANSWERED]
    with store.writer() as writer:
        for number, work in enumerate(writer.work(lambda: questions(8))):
            status = failures[number] if number < len(failures) else Status.ANSWERED
            writer.add(work, status, reason="no reply")
    assert store.plan(questions(8)).statuses == {Status.ANSWERED: 4, **dict.fromkeys(failures, 1)}
    with store.writer() as writer:
        assert not list(writer.work(lambda: questions(8)))
    again = [Status.ENDPOINT_FAILURE, Status.JUDGE_FAILURE]
    assert store.plan(questions(8), again).left == 2
    with store.writer() as writer:
        tried = []
        for work in writer.work(lambda: questions(8), again):  # asked once more, whatever comes of it
            tried.append((work.item.id, work.attempt))
            writer.add(work, Status.ANSWERED if len(tried) == 1 else Status.JUDGE_FAILURE)
    assert tried == [("item/0", 1), ("item/3", 1)]
    plan = store.plan(questions(8))
    assert plan.statuses[Status.ANSWERED] == 5 and plan.statuses[Status.JUDGE_FAILURE] == 1
    assert sorted(record.item for record in store.records()) == [item.id for item in questions(8)]
