"""Plans, listings and writers of a store within one process."""

from __future__ import annotations

import errno
import threading
import tracemalloc
from pathlib import Path

import pytest

from codedance_verl.errors import UserError
from codedance_verl.records import leases
from codedance_verl.records.index import Index
from codedance_verl.records.key import ChangedKey
from codedance_verl.records.record import Record, Status, decode, encode
from codedance_verl.records.store import Store, existing_store, open_store
from tests.unit.records.worker import Question, key_of, questions


def _fill(store: Store, count: int, data: object = None) -> None:
    with store.writer() as writer:
        for work in writer.work(lambda: questions(count)):
            writer.add(work, Status.ANSWERED, data)


def test_a_plan_counts_what_is_done_left_and_unlisted(tmp_path: Path) -> None:
    store = open_store(tmp_path, key_of(samples=2))
    assert (store.plan(questions(5)).total, store.plan(questions(5)).left) == (10, 10)
    _fill(store, 3)
    plan = open_store(tmp_path, key_of(samples=2)).plan(questions(5))
    assert (plan.total, plan.done, plan.left, plan.unlisted) == (10, 6, 4, 0)
    assert store.plan(questions(1)).unlisted == 2
    assert plan.passed.line() == ""


def test_an_item_that_has_changed_is_refused_by_name(tmp_path: Path) -> None:
    store = open_store(tmp_path, key_of())
    _fill(store, 3)
    changed = [Question("item/0", "f" * 64), Question("item/1", f"{1:064x}"), Question("item/9", "e" * 64)]
    with pytest.raises(ChangedKey) as caught:
        store.plan(changed)
    first, *lines = str(caught.value).splitlines()
    assert first.startswith(f"{tmp_path}: 1 items are not those")
    assert lines == [f"item item/0: sha256 {0:016x}... -> ffffffffffffffff..."]
    with store.writer() as writer, pytest.raises(ChangedKey):
        assert [work.item.id for work in writer.work(lambda: changed)] == ["item/9"]


def test_lines_that_are_no_records_of_this_key_do_not_count(tmp_path: Path) -> None:
    store = open_store(tmp_path, key_of())
    foreign = Record(key="0" * 16, item="item/0", item_sha256="0" * 64, sample=0, status=Status.ANSWERED)
    newer = Record(version=99, key=store.key.digest, item="item/0", item_sha256="0", sample=0, status=Status.ANSWERED)
    lines = [b"\n", b"[" * 100_000 + b"\n", b"\xff\x00{}\n", b'{"key": 3}\n', encode(foreign), encode(newer), b'{"ke']
    (tmp_path / "someone.jsonl").write_bytes(b"".join(lines))
    _fill(store, 2)
    plan = store.plan(questions(2))
    assert plan.done == 2 and (plan.passed.broken, plan.passed.foreign, plan.passed.cut) == (5, 1, 0)
    assert plan.passed.line() == "5 broken, 1 foreign"
    assert [record.item for record in store.records()] == ["item/0", "item/1"]


def test_of_the_same_try_twice_the_first_counts_in_whatever_order_it_is_read(tmp_path: Path) -> None:
    store = open_store(tmp_path, key_of())
    for writer, written_at in (("b", 1.0), ("a", 2.0), ("c", 3.0)):
        record = Record(
            key=store.key.digest, item="i", item_sha256="0", sample=0, status=Status.ANSWERED, written_at=written_at
        )
        (tmp_path / f"{writer}.jsonl").write_bytes(encode(record))
    assert [record.written_at for record in store.records()] == [1.0]
    index = Index(tmp_path, store.key.digest)
    for writer in "cab":
        index.read(writer)
    assert [record.written_at for record in index.counted()] == [1.0] and index.passed.twice == 2


def test_what_was_read_of_a_writer_beyond_its_seal_is_dropped(tmp_path: Path) -> None:
    store = open_store(tmp_path, key_of())
    lines = [
        encode(Record(key=store.key.digest, item=name, item_sha256="0", sample=0, status=Status.ANSWERED))
        for name in ("a", "b")
    ]
    (tmp_path / "w.jsonl").write_bytes(b"".join(lines))
    index = Index(tmp_path, store.key.digest)
    index.refresh()
    assert set(index.items) == {"a", "b"}
    leases.seal(tmp_path, "w", len(lines[0]))
    index.refresh()
    assert set(index.items) == {"a"} and index.passed.cut == 1
    assert leases.seal(tmp_path, "w", len(lines[0]) + len(lines[1])) == len(lines[0])  # for good


def test_threads_add_side_by_side_and_items_given_up_are_free_for_the_next(tmp_path: Path) -> None:
    store = open_store(tmp_path, key_of(samples=2))
    with store.writer() as writer:
        works = list(writer.work(lambda: questions(40)))
        assert len(works) == 80 and not list(writer.work(lambda: questions(40)))  # in flight: not asked twice
        threads = [
            threading.Thread(target=writer.add, args=(work, Status.ANSWERED, {"reply": "x" * 10_000}))
            for work in works[:-3]
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert writer.done == 77
    with store.writer() as writer:
        left = list(writer.work(lambda: questions(40)))
    assert [(work.item.id, work.sample) for work in left] == [("item/38", 1), ("item/39", 0), ("item/39", 1)]


def test_an_item_of_a_living_writer_is_waited_for(tmp_path: Path) -> None:
    store = open_store(tmp_path, key_of())
    with store.writer() as first, store.writer() as second:
        (mine,) = list(first.work(lambda: questions(1)))
        threading.Timer(0.3, first.add, (mine, Status.ANSWERED)).start()
        assert [work.item.id for work in second.work(lambda: questions(2), poll_s=0.02)] == ["item/1"]
    assert [record.item for record in store.records()] == ["item/0"]


def test_what_another_has_recorded_since_is_not_asked(tmp_path: Path) -> None:
    store = open_store(tmp_path, key_of())
    with store.writer() as late:
        _fill(store, 3)
        assert [work.item.id for work in late.work(lambda: questions(4))] == ["item/3"]


def test_a_sample_is_added_once_and_only_by_who_has_taken_it(tmp_path: Path) -> None:
    store = open_store(tmp_path, key_of())
    with store.writer() as first, store.writer() as second:
        (work,) = first.work(lambda: questions(1))
        with pytest.raises(ValueError, match="item item/0, sample 0: "):
            second.add(work, Status.ANSWERED)
        first.add(work, Status.ANSWERED, "first")
        with pytest.raises(ValueError, match="item item/0, sample 0: "):
            first.add(work, Status.ANSWERED, "second")
    assert [record.data for record in store.records()] == ["first"]


def test_done_leaves_out_failures_that_are_to_be_asked_again(tmp_path: Path) -> None:
    store = open_store(tmp_path, key_of())
    with store.writer() as writer:
        for work in writer.work(lambda: questions(3)):
            writer.add(work, Status.SANDBOX_FAULT)
    with store.writer() as writer:
        assert writer.done == 3
        for number, work in enumerate(writer.work(lambda: questions(3), [Status.SANDBOX_FAULT])):
            assert writer.done == number
            writer.add(work, Status.ANSWERED)
        assert writer.done == 3 and writer.statuses == {Status.ANSWERED: 3}


def test_records_are_read_from_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    folder = tmp_path / "records"
    _fill(open_store(folder, key_of()), 2)
    before = sorted(folder.rglob("*"))
    store = existing_store(folder)
    assert store.key == key_of() and open_store(folder, key_of()).plan(questions(3)).done == 2
    assert len(list(store.records())) == 2
    assert sorted(folder.rglob("*")) == before  # nothing is made for reading
    with pytest.raises(UserError, match="no records"):
        existing_store(tmp_path)


def test_a_file_system_without_symbolic_links_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, target: str) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "symlink_to", refuse)  # as vfat answers
    with pytest.raises(UserError, match="without symbolic links"), open_store(tmp_path, key_of()).writer() as writer:
        list(writer.work(lambda: questions(1)))


def test_ids_of_any_text_are_recorded(tmp_path: Path) -> None:
    items = [Question(name, "0" * 64) for name in ("../../x", "", "a\nb", "é" * 300, "half \ud800")]
    store = open_store(tmp_path, key_of())
    with store.writer() as writer:
        for work in writer.work(lambda: items):
            writer.add(work, Status.ANSWERED, {"reply": "half \udfff", "spans": (1, 2), "nan": float("nan")})
    assert store.plan(items).left == 0 and len(list(store.records())) == 5
    assert not (tmp_path.parent / "x").exists()
    assert all(record.data["reply"] == "half ?" for record in store.records())


def test_a_record_survives_its_line() -> None:
    record = Record(
        key="k", item="i", item_sha256="s", sample=1, attempt=2, status=Status.SANDBOX_FAULT, reason="r", data=[1]
    )
    assert decode(encode(record)) == record


def test_memory_does_not_grow_with_the_replies(tmp_path: Path) -> None:
    count, reply = 400, "x" * 50_000  # 20 MB on disk
    store = open_store(tmp_path, key_of())
    tracemalloc.start()
    try:
        _fill(store, count, reply)
        assert store.plan(questions(count)).left == 0
        assert sum(1 for _ in store.records()) == count
        with store.writer() as writer:
            assert not list(writer.work(lambda: questions(count)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3 << 20
