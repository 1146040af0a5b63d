from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

import pytest

from benchmarks.sample_run import write_group, write_run
from codedance_verl.trajectories import disk
from codedance_verl.trajectories.writer import TrajectoryLog


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def steps(folder: Path, split: str = "train") -> list[int]:
    return sorted(int(path.name[5:11]) for path in (folder / split).glob("*.jsonl"))


def test_the_oldest_steps_go_with_the_pictures_that_only_they_name(tmp_path: Path) -> None:
    folder = write_run(tmp_path, steps=6, groups=4) / "trajectories"
    before, limit = size(folder), size(folder) * 3 // 4
    for path in (folder / "train").glob("step_000006*"):
        path.write_text('{"turns": [], "question": "no picture"}\n')
    usage = disk.enforce(folder, limit, young_s=0.0)
    assert usage.used == size(folder) <= limit < before
    assert usage.deleted_steps[0] == 1 and steps(folder)[-1] == 6
    assert steps(folder, "val") == [3, 6]
    named = {name for path in folder.glob("*/*.jsonl") for name in disk._names_in(path)}
    assert named <= {path.stem for path in (folder / "images").iterdir()}


def test_a_folder_within_its_limit_is_left_alone(tmp_path: Path) -> None:
    folder = write_run(tmp_path, steps=2, groups=2) / "trajectories"
    assert disk.enforce(folder, size(folder)).deleted_steps == ()
    assert steps(folder) == [1, 2]


def write_steps(folder: Path, count: int) -> None:
    """Steps with pictures of their own each."""
    log = TrajectoryLog(folder, "w")
    for step in range(1, count + 1):
        for group in range(4):
            write_group(log, 10 * step + group, step=step, split="train", size=2, skill=0.5)


def age(folder: Path, seconds: float) -> None:
    for path in (folder / "images").iterdir():
        os.utime(path, (time.time() - seconds,) * 2)


def test_pictures_of_the_last_steps_do_not_hold_up_the_older_ones(tmp_path: Path) -> None:
    write_steps(tmp_path, 6)
    age(tmp_path, 90.0)
    limit = size(tmp_path) - 1
    usage = disk.enforce(tmp_path, limit)
    assert usage.settled and usage.used == size(tmp_path) <= limit * disk.FREE_TO
    assert usage.deleted_steps == (1,) and usage.deleted_images > 0


def test_young_pictures_stay_and_no_further_step_goes_in_their_place(tmp_path: Path) -> None:
    write_steps(tmp_path, 6)
    pictures = len(list((tmp_path / "images").iterdir()))
    limit = size(tmp_path) - 1 - sum(path.stat().st_size for path in (tmp_path / "train").glob("step_000001*"))
    for _ in range(3):
        usage = disk.enforce(tmp_path, limit)
        assert len(list((tmp_path / "images").iterdir())) == pictures and steps(tmp_path) == [2, 3, 4, 5, 6]
        assert usage.used > limit and not usage.settled  # so that training goes on being written
    age(tmp_path, 90.0)
    usage = disk.enforce(tmp_path, limit)
    assert usage.settled and usage.used < limit and usage.deleted_steps == () and usage.deleted_images > 0


def test_a_limit_that_holds_nothing_keeps_the_newest_step(tmp_path: Path) -> None:
    write_steps(tmp_path, 3)
    age(tmp_path, 90.0)
    assert disk.enforce(tmp_path, 1).settled and steps(tmp_path) == [3]


def test_every_file_of_lines_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_steps(tmp_path, 6)
    age(tmp_path, 90.0)
    read: list[Path] = []
    names_in = disk._names_in
    monkeypatch.setattr(disk, "_names_in", lambda path: read.append(path) or names_in(path))
    assert len(disk.enforce(tmp_path, size(tmp_path) // 2).deleted_steps) >= 2
    assert len(read) == 6


def test_one_process_at_a_time(tmp_path: Path) -> None:
    folder = write_run(tmp_path, steps=2, groups=2) / "trajectories"
    with (folder / ".disk.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        usage = disk.enforce(folder, 1)
    assert not usage.settled and usage.deleted_steps == () and steps(folder) == [1, 2]


def test_a_log_deletes_old_steps_while_it_writes(tmp_path: Path) -> None:
    log = TrajectoryLog(tmp_path, "w", max_bytes=60_000)
    write_group(log, 1, step=1, split="val", size=4, skill=1.0, pictures=False)
    for step in range(1, 40):
        write_group(log, step, step=step, split="train", size=4, skill=1.0, pictures=False)
        if log._looking is not None:
            log._looking.join(20)
    assert steps(tmp_path)[0] > 1 and steps(tmp_path)[-1] == 39 and steps(tmp_path, "val") == [1]
    assert size(tmp_path) < 90_000


def test_training_is_not_written_where_validation_fills_the_disk(tmp_path: Path) -> None:
    log = TrajectoryLog(tmp_path, "w", max_bytes=5_000)
    deadline = time.monotonic() + 20
    for step in range(1, 10):
        write_group(log, step, step=step, split="val", size=4, skill=1.0, pictures=False)
    while not log._full and time.monotonic() < deadline:
        write_group(log, 1, step=10, split="val", size=1, skill=1.0, pictures=False)
        if log._looking is not None:
            log._looking.join(20)
    write_group(log, 1, step=11, split="train", size=4, skill=1.0, pictures=False)
    assert not (tmp_path / "train").exists()
