"""Wherever a save is cut short, the run resumes from the last whole checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from codedance_verl.runtime.checkpoints import (
    SEAL,
    TRACKER,
    can_be_resumed,
    folder_of,
    is_whole,
    prune,
    repair_tracker,
    seal,
    set_aside,
    step_of,
    unseal,
    whole_steps,
)


def write(checkpoints: Path, step: int, sealed: bool = True) -> Path:
    folder = folder_of(checkpoints, step)
    (folder / "actor" / "huggingface").mkdir(parents=True)
    (folder / "actor" / "model.pt").write_bytes(b"m" * 100)
    (folder / "actor" / "huggingface" / "config.json").write_text("{}")
    (folder / "data.pt").write_bytes(b"d" * 10)
    if sealed:
        seal(folder)
    return folder


def track(checkpoints: Path, text: str) -> None:
    (checkpoints / TRACKER).write_text(text)


CUTS: dict[str, Callable[[Path], object]] = {
    "a model half written": lambda root: (folder_of(root, 4) / "actor").mkdir(parents=True),
    "the tracker truncated": lambda root: (write(root, 4, sealed=False), track(root, "")),
    "the tracker written, not yet sealed": lambda root: (write(root, 4, sealed=False), track(root, "4")),
    "the seal half written": lambda root: (write(root, 4, sealed=False) / f"{SEAL}.partial").write_text('{"fi'),
    "an earlier seal over files written anew": lambda root: unseal(write(root, 4)),
}


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
def test_a_save_that_was_cut_short_leaves_the_last_whole_checkpoint(
    tmp_path: Path, cut: Callable[[Path], None]
) -> None:
    write(tmp_path, 2)
    track(tmp_path, "2")
    cut(tmp_path)
    assert repair_tracker(tmp_path) == 2
    assert (tmp_path / TRACKER).read_text() == "2"
    assert whole_steps(tmp_path) == [2]


def test_a_checkpoint_counts_from_its_seal_on_whatever_the_tracker_says(tmp_path: Path) -> None:
    write(tmp_path, 2)
    write(tmp_path, 10)
    track(tmp_path, "2")
    assert repair_tracker(tmp_path) == 10
    assert (tmp_path / TRACKER).read_text() == "10"


@pytest.mark.parametrize("name", ["actor/model.pt", "data.pt"])
@pytest.mark.parametrize(
    "damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"m")], ids=["gone", "short"]
)
def test_files_lost_after_the_seal_are_noticed(tmp_path: Path, name: str, damage: Callable[[Path], object]) -> None:
    write(tmp_path, 2)
    damage(write(tmp_path, 4) / name)
    assert repair_tracker(tmp_path) == 2


def test_without_any_checkpoint_a_run_starts_anew(tmp_path: Path) -> None:
    assert repair_tracker(tmp_path / "none") == 0
    track(tmp_path, "")
    assert repair_tracker(tmp_path) == 0
    assert not (tmp_path / TRACKER).exists()


def test_a_checkpoint_that_is_gone_is_not_resumed_from(tmp_path: Path) -> None:
    track(tmp_path, "6")
    assert repair_tracker(tmp_path) == 0
    assert not (tmp_path / TRACKER).exists()


def test_the_checkpoints_of_another_trainer_are_taken_as_its_tracker_says(tmp_path: Path) -> None:
    write(tmp_path, 6, sealed=False)
    track(tmp_path, "6")
    assert repair_tracker(tmp_path) == 6


def test_a_run_can_begin_from_whole_checkpoints_and_from_those_that_another_trainer_has_finished(
    tmp_path: Path,
) -> None:
    for step in (4, 6, 8):
        write(tmp_path, step, sealed=False)
    assert not can_be_resumed(folder_of(tmp_path, 4)), "its trainer has not told that it is finished"
    track(tmp_path, "6")
    assert [step for step in (2, 4, 6, 8) if can_be_resumed(folder_of(tmp_path, step))] == [4, 6]
    seal(folder_of(tmp_path, 6))
    assert [step for step in (2, 4, 6, 8) if can_be_resumed(folder_of(tmp_path, step))] == [6]


@pytest.mark.parametrize(("keep", "left"), [(None, [2, 4, 6, 8]), (1, [8]), (2, [6, 8]), (9, [2, 4, 6, 8])])
def test_as_many_are_kept_as_was_said_also_of_earlier_starts(tmp_path: Path, keep: int | None, left: list[int]) -> None:
    for step in (2, 4, 6, 8):
        write(tmp_path, step)
    prune(tmp_path, keep)
    assert whole_steps(tmp_path) == left
    assert len(list(tmp_path.iterdir())) == len(left)


def test_what_a_kill_left_is_removed_once_a_later_one_is_whole(tmp_path: Path) -> None:
    write(tmp_path, 3, sealed=False)
    write(tmp_path, 4)
    write(tmp_path, 5, sealed=False)
    prune(tmp_path, 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["global_step_4", "global_step_5"]
    assert is_whole(folder_of(tmp_path, 4))


def test_those_of_a_former_course_are_put_aside_and_nothing_is_lost(tmp_path: Path) -> None:
    for step in (2, 100, 200):
        write(tmp_path, step)
    first = set_aside(tmp_path, 5)
    assert first is not None and whole_steps(first) == [100, 200]
    assert whole_steps(tmp_path) == [2] and repair_tracker(tmp_path) == 2
    assert set_aside(tmp_path, 5) is None
    write(tmp_path, 100)
    second = set_aside(tmp_path, 5)
    assert second is not None and second != first and whole_steps(second) == [100]


def test_the_step_of_a_folder_is_in_its_name() -> None:
    assert step_of(Path("/runs/a/checkpoints/global_step_12")) == 12
    assert step_of(Path("/runs/a/model")) == 0
