"""A file or a folder is replaced whole, or stays as it was; and it is on the disk before it has its name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from codedance_verl.runtime.atomic import put_in_place, replacing, write_atomically


def test_a_file_is_replaced_by_text_or_bytes(tmp_path: Path) -> None:
    for data in ("größer", b"\x00\xff"):
        write_atomically(tmp_path / "a.txt", data)
        assert (tmp_path / "a.txt").read_bytes() == (data.encode() if isinstance(data, str) else data)
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("folder", [False, True], ids=["a file", "a folder"])
def test_what_fails_leaves_the_old_one_and_nothing_of_the_new_one(tmp_path: Path, folder: bool) -> None:
    target = tmp_path / "model"
    _make(target, "old", folder)

    def fail() -> None:
        with replacing(target) as partial:
            _make(partial, "new", folder)
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        fail()
    assert _text(target) == "old" and [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_folder_takes_the_place_of_one_with_files_and_of_what_a_kill_has_left(tmp_path: Path) -> None:
    _make(tmp_path / "model", "old", folder=True)
    _make(tmp_path / "model.partial", "half", folder=True)
    (tmp_path / "model.partial" / "shard").touch()
    with replacing(tmp_path / "model") as partial:
        _make(partial, "new", folder=True)
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "file"] and _text(tmp_path / "model") == "new"


def test_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    with replacing(tmp_path / "a", writer="1") as first, replacing(tmp_path / "a", writer="2") as second:
        first.write_text("first")
        second.write_text("second")
    assert (tmp_path / "a").read_text() == "first", "the one that ended last"


@pytest.mark.parametrize("durable", [True, False])
def test_bytes_reach_the_disk_before_the_name_and_the_name_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durable: bool
) -> None:
    synced: list[tuple[str, bool]] = []
    sync = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append((str(Path(f"/proc/self/fd/{descriptor}").readlink()), (tmp_path / "model").exists()))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    _make(tmp_path / "new", "new", folder=True)
    put_in_place(tmp_path / "new", tmp_path / "model", durable)
    before = [(str(tmp_path / "new" / "file"), False), (str(tmp_path / "new"), False)]
    assert synced == ([*before, (str(tmp_path), True)] if durable else [])


def _make(path: Path, text: str, folder: bool) -> None:
    if folder:
        path.mkdir()
        path = path / "file"
    path.write_text(text)


def _text(path: Path) -> str:
    return (path / "file" if path.is_dir() else path).read_text()
