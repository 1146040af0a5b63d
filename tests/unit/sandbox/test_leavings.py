"""Removal of what a session left: little at once, much by a child, nothing of another owner."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sandbox_image.codedance_interpreter import leavings, process_kill

UID = 3_000_000
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="takes on the user id of a session")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(folder.stat().st_mode | 0o011)
    tmp_path.chmod(0o1733)
    return tmp_path


def left(root: Path, files: int, size: int = 1, uid: int = UID, name: str = "session") -> Path:
    folder = root / name
    folder.mkdir()
    for number in range(files):
        (folder / str(number)).write_bytes(bytes(size))
        os.chown(folder / str(number), uid, uid)
    os.chown(folder, uid, uid)
    return folder


def removed(root: Path, uid: int = UID) -> bool:
    paths = leavings.found({uid}, str(root))
    assert paths is not None
    return leavings.remove_little(uid, paths[uid])


def test_a_small_folder_and_files_beside_it_go_at_once(root: Path) -> None:
    left(root, 3)
    (root / "beside").write_bytes(b"1")
    os.chown(root / "beside", UID, UID)
    other = left(root, 1, uid=UID + 2, name="other")
    assert removed(root) and list(root.iterdir()) == [other]
    assert (os.getresuid(), os.getresgid()) == ((0, 0, 0), (0, 0, 0)), "root again"


@pytest.mark.parametrize(("files", "size"), [(33, 1), (2, 9 << 20)])
def test_many_files_or_large_ones_are_left_to_a_child(root: Path, files: int, size: int) -> None:
    left(root, files, size)
    assert not removed(root)


def test_a_folder_in_it_is_left_to_a_child_which_removes_all(root: Path) -> None:
    folder = left(root, 1)
    (folder / "inner").mkdir()
    assert not removed(root)
    leavings.remove_all([str(folder)])
    assert not folder.exists()


def test_a_link_leads_nowhere(root: Path) -> None:
    other = left(root, 2, uid=UID + 2, name="other")
    (root / "link").symlink_to(other)
    os.lchown(root / "link", UID, UID)
    assert removed(root)
    assert sorted(file.name for file in other.iterdir()) == ["0", "1"] and not (root / "link").is_symlink()


def test_where_the_shared_folder_is_crowded_a_child_looks(root: Path) -> None:
    left(root, 1)
    for number in range(2_000):
        (root / f"x{number}").touch()
    assert leavings.found({UID}, str(root)) is None
    assert leavings.found({UID}, str(root), most=None) == {UID: [str(root / "session")]}


def test_a_uid_that_no_session_has_is_never_struck(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_kill, "kill", lambda *_: pytest.fail("strikes the whole machine"))
    process_kill.kill_uid(0)
    process_kill.kill_uid(process_kill.LOWEST_UID - 1)
