"""Pieces, the pool, parts and the image store: order, bounds, ended runs, outputs that are whole or not there."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codedance_verl.data.parquet import open_parquet
from codedance_verl.datasets import parts
from codedance_verl.datasets import pieces as pieces_module
from codedance_verl.datasets.commands import Options, convert
from codedance_verl.datasets.image_store import ImageStore, reference
from codedance_verl.datasets.parts import Fault, Made, join_parts, parts_folder, write_parts
from codedance_verl.datasets.pieces import Piece, giant_groups, pieces_of, raw_rows
from codedance_verl.datasets.pool import in_order
from codedance_verl.errors import UserError
from codedance_verl.runtime import atomic, locks
from tests.unit.datasets import published

SCHEMA = pa.schema({"number": pa.int64()})


@dataclass(frozen=True)
class Numbers:
    """Copies the column `number`; ends like a killed process at `stop_at`, and finds multiples of `bad` bad."""

    log: Path
    stop_at: int = -1
    bad: int = 0

    def __repr__(self) -> str:
        return "Numbers"

    @property
    def schema(self) -> pa.Schema:
        return SCHEMA

    def __call__(self, piece: Piece) -> Iterator[Made | Fault]:
        with self.log.open("a") as file:
            file.write(f"{piece.first_row}\n")
        for number, row in raw_rows(piece):
            assert isinstance(row, dict)
            if number == self.stop_at:
                raise KeyboardInterrupt
            yield Fault(number, "is bad") if self.bad and number % self.bad == 1 else Made(number, row)


def _numbers(folder: Path, count: int, group: int) -> Path:
    return published.write(folder / "n.parquet", [{"number": k} for k in range(count)], {"number": pa.int64()}, group)


def _run(job: Numbers, file: Path, out: Path, workers: int = 1, skip_bad: bool = False) -> None:
    pieces = pieces_of([file])
    with parts_folder(out, job, pieces) as folder:
        write_parts(job, pieces, folder, workers, skip_bad)
        join_parts(folder, "all", out, SCHEMA)


def _read(path: Path) -> list[int]:
    return [int(number) for number in pq.read_table(path)["number"].to_pylist()]


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces_module, "PIECE_BYTES", 1)


def test_neighbouring_row_groups_make_pieces_of_bounded_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = _numbers(tmp_path, 100, 10)
    size = open_parquet(file).metadata.row_group(0).total_byte_size
    monkeypatch.setattr(pieces_module, "PIECE_BYTES", int(size * 3.5))
    found = pieces_of([file])
    assert [(piece.groups, piece.first_row, piece.rows) for piece in found] == [
        ((0, 1, 2), 0, 30),
        ((3, 4, 5), 30, 30),
        ((6, 7, 8), 60, 30),
        ((9,), 90, 10),
    ]
    assert [number for piece in found for number, _ in raw_rows(piece)] == list(range(100))


def test_columns_that_a_converter_does_not_use_are_not_read(tmp_path: Path) -> None:
    (piece,) = pieces_of([published.codedance_rl(tmp_path, 1)])
    ((number, row),) = raw_rows(piece, ("images", "extra_info.index"))
    assert (number, row) == (0, {"images": [published.png(0)], "extra_info": {"index": 0}})


def test_a_giant_row_group_is_named_with_the_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = _numbers(tmp_path, 100, 50)
    assert list(giant_groups([file])) == []
    monkeypatch.setattr(pieces_module, "GROUP_BYTES", 10)
    (line,) = giant_groups([file])
    assert line.startswith("n.parquet: row group 0 has") and "`codedance data sample FILE --out NEW`" in line


@pytest.mark.usefixtures("small_pieces")
def test_processes_keep_the_order_of_the_rows(tmp_path: Path) -> None:
    file, out = _numbers(tmp_path, 60, 7), tmp_path / "out.parquet"
    _run(Numbers(tmp_path / "log"), file, out, workers=2)
    assert _read(out) == list(range(60))
    assert len((tmp_path / "log").read_text().split()) == 9
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out.parquet.lock", "log", "n.parquet", "out.parquet"]


@pytest.mark.usefixtures("small_pieces")
def test_an_ended_run_goes_on_behind_the_last_whole_piece(tmp_path: Path) -> None:
    file, out = _numbers(tmp_path, 40, 10), tmp_path / "out.parquet"
    with pytest.raises(KeyboardInterrupt):
        _run(Numbers(tmp_path / "log", stop_at=25), file, out)
    assert not out.exists()
    _run(Numbers(tmp_path / "log"), file, out)
    assert _read(out) == list(range(40))
    assert [int(line) for line in (tmp_path / "log").read_text().split()] == [0, 10, 20, 20, 30]


@pytest.mark.usefixtures("small_pieces")
def test_a_file_that_has_changed_is_read_again(tmp_path: Path) -> None:
    file, out = _numbers(tmp_path, 40, 10), tmp_path / "out.parquet"
    with pytest.raises(KeyboardInterrupt):
        _run(Numbers(tmp_path / "log", stop_at=25), file, out)
    published.write(file, [{"number": 7}], {"number": pa.int64()})
    _run(Numbers(tmp_path / "log"), file, out)
    assert _read(out) == [7]
    assert not list(tmp_path.glob("*.parts-*"))


@pytest.mark.usefixtures("small_pieces")
def test_parts_of_a_run_that_skipped_do_not_hide_their_bad_rows(tmp_path: Path) -> None:
    file, out = _numbers(tmp_path, 40, 10), tmp_path / "out.parquet"
    with pytest.raises(KeyboardInterrupt):
        _run(Numbers(tmp_path / "log", stop_at=25, bad=5), file, out, skip_bad=True)
    with pytest.raises(UserError, match=r"n\.parquet row 1: is bad; fix or drop the row, .*--skip-bad"):
        _run(Numbers(tmp_path / "log", bad=5), file, out)
    _run(Numbers(tmp_path / "log", bad=5), file, out, skip_bad=True)
    assert _read(out) == [number for number in range(40) if number % 5 != 1]


def test_a_piece_ends_after_so_many_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces_module, "PIECE_ROWS", 20)
    found = pieces_of([_numbers(tmp_path, 40, 8)])
    assert [(piece.first_row, piece.rows) for piece in found] == [(0, 16), (16, 16), (32, 8)]


@dataclass(frozen=True)
class Dealt:
    """Deals the numbers of a file out to three outputs."""

    @property
    def schema(self) -> pa.Schema:
        return SCHEMA

    def __call__(self, piece: Piece) -> Iterator[Made | Fault]:
        for number, row in raw_rows(piece):
            assert isinstance(row, dict)
            yield Made(number, row, f"o{number % 3}")


def test_parts_of_a_piece_write_what_they_hold_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "MOST_HELD_BYTES", 79)  # the tenth row is one too many
    pieces = pieces_of([_numbers(tmp_path, 40, 40)])
    with parts_folder(tmp_path / "out", Dealt(), pieces) as folder:
        tally = write_parts(Dealt(), pieces, folder, 1)
        for output in range(3):
            file = open_parquet(folder / f"000000.o{output}.parquet")
            assert file.read()["number"].to_pylist() == list(range(output, 40, 3))
            assert file.metadata.num_row_groups == 4
    assert tally.made == {"o0": 14, "o1": 13, "o2": 13}


def test_the_size_of_a_row_is_that_of_its_texts() -> None:
    assert parts.size_of({"a": "x" * 92, "b": [{"c": "y" * 92, "d": None}], "e": 1.5}) == 216


def test_a_second_process_is_kept_out(tmp_path: Path) -> None:
    file, out = _numbers(tmp_path, 4, 4), tmp_path / "out.parquet"
    first, second = Numbers(tmp_path / "log"), Numbers(tmp_path / "log")
    with (
        parts_folder(out, first, pieces_of([file])),
        pytest.raises(UserError, match=r"out\.parquet: another process is making it"),
    ):
        _run(second, file, out)


def _die(_: int) -> None:
    os._exit(9)


def test_a_killed_worker_ends_the_run_with_a_cure() -> None:
    with pytest.raises(UserError, match=r"a worker process was killed.*fewer --workers"):
        list(in_order(_die, [1, 2, 3], 2))


def _note_and_wait(folder: Path) -> None:
    (folder / str(os.getpid())).touch()
    time.sleep(60)


def test_workers_end_with_a_main_process_that_was_killed(tmp_path: Path) -> None:
    main = multiprocessing.get_context("spawn").Process(target=_use_pool, args=(tmp_path,))
    main.start()
    pids = list[int]()
    deadline = time.monotonic() + 60
    while len(pids) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
        pids = [int(path.name) for path in tmp_path.iterdir()]
    assert len(pids) == 2
    main.kill()
    main.join()
    while (left := list(filter(_is_running, pids))) and time.monotonic() < deadline:
        time.sleep(0.05)
    for pid in left:
        psutil.Process(pid).kill()
    assert not left


def _is_running(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _use_pool(folder: Path) -> None:
    list(in_order(_note_and_wait, [folder, folder], 2))


def test_a_file_system_without_locks_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(locks, "_acquire", lambda file: False)
    _run(Numbers(tmp_path / "log"), _numbers(tmp_path, 4, 4), tmp_path / "out.parquet")
    assert "no locks on that file system; a second process would not be noticed" in caplog.text


def test_an_image_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed = list[tuple[Path, bool]]()
    name = f"{hashlib.sha256(published.png(1)).hexdigest()}.png"
    put = tmp_path / name[:2] / name
    monkeypatch.setattr(atomic, "flush", lambda path: flushed.append((path, put.exists())))
    assert ImageStore(tmp_path).put(published.png(1)) == put
    (partial, named), *_ = flushed
    assert partial.name.startswith(name) and partial != put and not named


def test_an_image_is_stored_once_and_its_reference_is_relative(tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "a" / "images")
    first, second = store.put(published.png(1)), store.put(published.png(1))
    assert first == second and first.name == f"{hashlib.sha256(published.png(1)).hexdigest()}.png"
    first.write_bytes(b"")  # as a power cut may leave it
    assert store.put(published.png(1)).read_bytes() == published.png(1)
    assert [path for path in store.folder.rglob("*") if path.is_file()] == [first]
    assert reference(first, tmp_path / "b" / "x.parquet") == f"../a/images/{first.parent.name}/{first.name}"


@pytest.mark.parametrize("linked", ["file", "image"])
def test_a_reference_leads_to_the_image_through_links(linked: str, tmp_path: Path) -> None:
    (tmp_path / "far" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "deep")
    near, behind = tmp_path / "near", tmp_path / "link"
    near.mkdir()
    store, folder = (near, behind) if linked == "file" else (behind, near)
    image = ImageStore(store / "images").put(published.png(1))
    assert (folder / reference(image, folder / "x.parquet")).read_bytes() == published.png(1)


@pytest.mark.usefixtures("small_pieces")
def test_images_that_rows_share_are_stored_once_by_all_processes(tmp_path: Path) -> None:
    rows = [published.rl_row(index, image=published.png(index % 3)) for index in range(24)]
    file = published.write(tmp_path / "rl.parquet", rows, published.rl_schema(), group=4)
    convert([file], Options(tmp_path / "out.parquet", tmp_path / "store", workers=2))
    assert len([path for path in (tmp_path / "store").rglob("*") if path.is_file()]) == 3
    found = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["extra_info"]["index"] for row in found] == list(range(24))
    assert all(row["images"][0].startswith("store/") for row in found)
