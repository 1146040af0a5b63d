from __future__ import annotations

import json
import os
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest
from msgspec import to_builtins

from benchmarks.sample_run import write_group, write_run
from codedance_verl.errors import UserError
from codedance_verl.evaluation.training import read_training
from codedance_verl.trajectories import tables
from codedance_verl.trajectories.index import Index
from codedance_verl.trajectories.query import Query
from codedance_verl.trajectories.writer import TrajectoryLog


@pytest.fixture
def index(tmp_path: Path) -> Index:
    write_run(tmp_path / "runs" / "one", steps=3, groups=3)
    write_run(tmp_path / "runs" / "two", steps=2, groups=2)
    made = Index(tmp_path / "runs", tmp_path / "cache")
    made.update_fully()
    return made


def run_of(index: Index, name: str) -> int:
    return {known: number for number, known in index.runs_named()}[name]


def test_runs_and_steps(index: Index) -> None:
    one, two = index.runs()
    assert (one.name, one.count, one.last_step) == ("one", 3 * 3 * 4 + 1, 3)
    assert (two.name, two.count, two.last_step) == ("two", 2 * 2 * 4, 2)
    steps = index.steps(one.id)
    assert [(step.step, step.split, step.count) for step in steps] == [
        (1, "train", 12),
        (2, "train", 12),
        (3, "train", 12),
        (3, "val", 1),
    ]


def test_every_filter_finds_what_the_lines_say(index: Index) -> None:
    run = run_of(index, "one")
    rows = index.find(run, Query(), limit=1000).rows
    records = {row.id: to_builtins(index.record(row.id)) for row in rows}

    def ids(**given: object) -> set[int]:
        query = Query.from_fields({name: str(value) for name, value in given.items()})
        return {row.id for row in index.find(run, query, limit=1000).rows}

    def expected(test: object) -> set[int]:
        assert callable(test)
        return {number for number, record in records.items() if test(record)}

    def calls(record: dict[str, object]) -> list[dict[str, str]]:
        return [turn["execution"] for turn in record["turns"] if turn["execution"]]  # type: ignore[attr-defined]

    assert ids(outcome="wrong") == expected(lambda record: record["grade"]["verdict"] == "wrong") != set()
    assert ids(step=2, split="train") == expected(lambda record: record["step"] == 2 and record["split"] == "train")
    assert ids(tools="used") == expected(lambda record: len(calls(record)) > 0)
    assert ids(tools="unused") == expected(lambda record: not calls(record))
    assert ids(status="error") == expected(lambda record: any(call["status"] == "error" for call in calls(record)))
    assert ids(min_turns=3) == expected(lambda record: len(record["turns"]) >= 3) != set()
    assert ids(max_score=0.2) == expected(lambda record: record["reward"]["score"] <= 0.2)
    assert ids(min_images=2) == expected(lambda record: sum(len(call["images"]) for call in calls(record)) >= 2)
    assert ids(text="DISCS") == set(records)
    assert ids(text="100%_") == set()


def test_pages_cover_the_list_once_in_the_order_of_neighbours(index: Index) -> None:
    run, query = run_of(index, "one"), Query(split="train")
    pages = [index.find(run, query, limit=10, offset=start).rows for start in range(0, 40, 10)]
    order = [row.id for page in pages for row in page]
    assert len(order) == len(set(order)) == 36
    row = pages[0][1]
    assert index.neighbours(row, query) == (order[0], order[2])
    assert index.neighbours(pages[0][0], query)[0] is None


def test_a_group_and_the_same_prompt_elsewhere(index: Index) -> None:
    run = run_of(index, "one")
    row = index.find(run, Query(step=2, split="train"), limit=1).rows[0]
    group = index.group(row, 50)
    assert [member.summary.sample for member in group.rows] == [0, 1, 2, 3] and group.total == 4
    others = index.same_prompt(row, 50)
    assert {other.summary.record for other in others} == {row.summary.record}
    assert (run, 2) not in {(other.run, other.summary.step) for other in others}
    assert {other.run for other in others} == {run_of(index, "one"), run_of(index, "two")}


def test_of_a_large_group_the_first_and_the_own_row(tmp_path: Path) -> None:
    log = TrajectoryLog(tmp_path / "trajectories", "w")
    write_group(log, 1, step=1, split="train", size=12, skill=1.0, pictures=False)
    index = Index(tmp_path, tmp_path / "cache")
    index.update_fully()
    rows = index.find(1, Query(), limit=12).rows
    for own, samples in ((9, [0, 1, 2, 9]), (2, [0, 1, 2, 3])):
        group = index.group(rows[own], 4)
        assert [member.summary.sample for member in group.rows] == samples and group.total == 12


def test_what_is_added_later_is_found_and_half_a_line_waits(index: Index, tmp_path: Path) -> None:
    assert index.update_fully() == 0
    newest = index.newest_id()
    log = TrajectoryLog(tmp_path / "runs" / "one" / "trajectories", "late")
    write_group(log, 1, step=4, split="train", size=2, skill=1.0)
    (path,) = (tmp_path / "runs" / "one" / "trajectories" / "train").glob("step_000004*")
    with path.open("ab") as file:
        file.write(b'{"turns": [], "step": 4')
    assert index.update_fully() == 2
    assert len(index.newer(run_of(index, "one"), Query(), newest, 10)) == 2
    with path.open("ab") as file:
        file.write(b"}\nnot json\n")
    assert index.update_fully() == 1
    assert index.runs()[0].broken == 1


def test_a_file_that_is_deleted_or_written_anew(index: Index, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "one" / "trajectories" / "train"
    first, second, _ = sorted(folder.glob("*.jsonl"))
    first.unlink()
    partial = second.with_suffix(".partial")
    partial.write_text(json.dumps({"turns": [], "step": 2, "record_id": "anew"}) + "\n")
    partial.replace(second)
    index.update_fully()
    counts = {(step.step, step.split): step.count for step in index.steps(run_of(index, "one"))}
    assert counts == {(2, "train"): 1, (3, "train"): 12, (3, "val"): 1}


def verl_line(output: str) -> str:
    return json.dumps({"input": "a prompt of the system, " * 40, "output": output, "score": 1.0, "uid": "u_0_0"}) + "\n"


@pytest.mark.parametrize("more", ["", verl_line("one line more")])
def test_a_file_that_is_written_anew_in_place_is_read_anew(tmp_path: Path, more: str) -> None:
    path = tmp_path / "3.jsonl"
    path.write_text(verl_line("first") + verl_line("other"))
    index = Index(tmp_path, tmp_path / "cache")
    assert index.update_fully() == 2
    path.write_text(verl_line("third") + verl_line("again") + more)
    os.utime(path, (path.stat().st_mtime + 1,) * 2)
    assert index.update_fully() == 2 + bool(more)
    rows = index.find(1, Query(), limit=5).rows
    said = [to_builtins(index.record(row.id))["turns"][0]["text"] for row in rows]
    assert said == ["third", "again", *(["one line more"] if more else [])]
    os.utime(path, (path.stat().st_mtime + 1,) * 2)
    assert index.update_fully() == 0 and index.find(1, Query(), limit=5).rows == rows


def resumed(root: Path, *, second: int) -> tuple[Path, Path]:
    """Files of a step that was tried twice, the second time for `second` groups of four."""
    files = []
    for worker, groups in (("b", 3), ("a", second)):
        log = TrajectoryLog(root / "trajectories", worker)
        for group in range(groups):
            write_group(log, group, step=7, split="train", size=4, skill=1.0, pictures=False)
        files.append(root / "trajectories" / "train" / f"step_000007.{worker}.jsonl")
    os.utime(files[0], (files[1].stat().st_mtime - 60,) * 2)
    return files[0], files[1]


def rows_by_file(index: Index) -> dict[str, int]:
    places = [index.place(row.id) for row in index.find(1, Query(), limit=100).rows]
    return dict(Counter(place[0].name.split(".")[1] for place in places if place is not None))


def test_of_a_step_that_was_tried_twice_the_later_rollouts_count_as_in_the_plot(tmp_path: Path) -> None:
    resumed(tmp_path, second=2)
    index = Index(tmp_path, tmp_path / "cache")
    index.update_fully()
    assert rows_by_file(index) == {"a": 8, "b": 4}
    (plotted,) = read_training(tmp_path / "trajectories").points
    (step,) = index.steps(1)
    assert (step.count, step.accuracy) == (plotted.rollouts, plotted.accuracy)


def test_variants_of_a_question_are_kept_apart_whichever_worker_wrote_them(tmp_path: Path) -> None:
    made = tmp_path / "made"
    write_group(TrajectoryLog(made / "trajectories", "w"), 1, step=0, split="val", size=1, skill=1.0, pictures=False)
    (line,) = next((made / "trajectories" / "val").glob("*.jsonl")).read_text().splitlines()
    folder = tmp_path / "run" / "trajectories" / "val"
    folder.mkdir(parents=True)
    for worker, variant, control in (
        ("a", "greedy", None),
        ("b", "grey", "grey_observations"),
        ("c", "off", "no_tools"),
    ):
        written = json.dumps({**json.loads(line), "variant": variant, "control": control})
        (folder / f"step_000000.{worker}.jsonl").write_text(written + "\n")
    index = Index(tmp_path / "run", tmp_path / "cache")
    index.update_fully()
    rows = index.find(1, Query(), limit=9).rows
    assert sorted((row.summary.variant, row.summary.control) for row in rows) == [
        ("greedy", ""),
        ("grey", "grey_observations"),
        ("off", "no_tools"),
    ]
    (grey,) = index.find(1, Query.from_fields({"control": "grey_observations"}), limit=9).rows
    assert index.find(1, Query.from_fields({"variant": "grey"}), limit=9).rows == (grey,)
    assert index.values_of(1, "control") == ["grey_observations", "no_tools"]
    assert [row.summary.variant for row in index.same_prompt(grey, 9)] == ["greedy", "off"]


def test_a_second_try_takes_the_place_of_the_first_as_it_is_written(tmp_path: Path) -> None:
    first, second = resumed(tmp_path, second=3)
    lines = second.read_bytes().splitlines(keepends=True)
    second.write_bytes(b"")
    index = Index(tmp_path, tmp_path / "cache")
    index.update_fully()
    assert rows_by_file(index) == {"b": 12}
    second.write_bytes(b"".join(lines[:5]))
    index.update_fully()
    assert rows_by_file(index) == {"a": 5, "b": 7}
    second.unlink()
    index.update_fully()
    assert rows_by_file(index) == {"b": 12} and first.exists()


def test_two_processes_update_one_index_in_turns(tmp_path: Path) -> None:
    write_run(tmp_path / "run", steps=3, groups=3)
    one, other = (Index(tmp_path / "run", tmp_path / "cache") for _ in range(2))
    first, second = one.update(), other.update()
    read = next(first)
    assert read > 0 and next(second) == 0 and next(second) == 0
    assert read + sum(first) == 37 and sum(second) == 0
    assert other.runs()[0].count == 37


def test_an_index_can_be_looked_at_while_another_process_updates_it(tmp_path: Path) -> None:
    write_run(tmp_path / "run", steps=3, groups=3)
    working = Index(tmp_path / "run", tmp_path / "cache").update()
    read = next(working)
    assert Index(tmp_path / "run", tmp_path / "cache").runs()[0].count == read


def test_waiting_for_another_process_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "WAIT_SECONDS", 0.0)
    write_run(tmp_path / "run", steps=3, groups=3)
    one, other = (Index(tmp_path / "run", tmp_path / "cache") for _ in range(2))
    working = one.update()
    next(working)
    with pytest.raises(UserError, match="another process"):
        other.update_fully()


def test_a_number_is_never_given_twice(index: Index, tmp_path: Path) -> None:
    newest = index.newest_id()
    for path in (tmp_path / "runs").rglob("*.jsonl"):
        path.unlink()
    index.update_fully()
    assert index.newest_id() == 0
    write_run(tmp_path / "runs" / "one", steps=1, groups=1)
    index.update_fully()
    assert all(row.id > newest for row in index.find(run_of(index, "one"), Query(), limit=10).rows)


def test_one_line_at_a_time_is_held(tmp_path: Path) -> None:
    folder = tmp_path / "trajectories" / "train"
    folder.mkdir(parents=True)
    turn = {"text": "t", "execution": {"status": "ok", "stdout": "x" * (2 << 20)}}
    line = json.dumps({"record_id": "r", "turns": [turn]}) + "\n"
    (folder / "step_000001.w.jsonl").write_text(line * 20)
    index = Index(tmp_path, tmp_path / "cache")
    tracemalloc.start()
    assert index.update_fully() == 20
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 << 20


def test_a_run_that_is_gone_is_forgotten(index: Index, tmp_path: Path) -> None:
    (tmp_path / "runs" / "two").rename(tmp_path / "elsewhere")
    index.update_fully()
    assert [run.name for run in index.runs()] == ["one"]


def test_an_index_that_is_broken_or_of_another_version_is_made_anew(index: Index, tmp_path: Path) -> None:
    index.close()
    (path,) = (tmp_path / "cache").glob("*.sqlite")
    for suffix in ("-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    path.write_bytes(b"no database at all " * 100)
    anew = Index(tmp_path / "runs", tmp_path / "cache")
    assert anew.update_fully() == 37 + 16


def test_lines_without_the_newer_fields(tmp_path: Path) -> None:
    folder = tmp_path / "trajectories" / "val"
    folder.mkdir(parents=True)
    old = {"step": 7, "split": "val", "record_id": "r", "question": "q", "turns": [{"text": "t"}], "finish": "answer"}
    (folder / "step_000007.w.jsonl").write_text(json.dumps(old) + "\n")
    index = Index(tmp_path, tmp_path / "cache")
    assert index.update_fully() == 1
    (row,) = index.find(1, Query(), limit=5).rows
    assert (row.summary.step, row.summary.correct, row.summary.score) == (7, None, None)


def test_half_a_surrogate_pair_keeps_no_other_line_out(index: Index, tmp_path: Path) -> None:
    """SQLite takes no half pair, and what it refuses once would be read again at each update."""
    log = min((tmp_path / "runs" / "one").rglob("*.jsonl"))
    first = log.read_text().splitlines()[0]
    half = json.dumps({**json.loads(first), "question": "half \ud800", "sample": 77})
    with log.open("a") as stream:
        stream.write(half + "\n" + first + "\n")
    assert index.update_fully() == 2


def test_a_folder_of_verl(tmp_path: Path) -> None:
    line = {"input": "q", "output": "a", "gts": "1", "score": 1.0, "step": 3, "uid": "u_0_0"}
    (tmp_path / "3.jsonl").write_text(json.dumps(line) + "\n" + json.dumps({**line, "uid": "u_1_0"}) + "\n")
    index = Index(tmp_path, tmp_path / "cache")
    assert index.update_fully() == 2
    row = index.find(1, Query(min_score=0.5), limit=5).rows[0]
    assert index.group(row, 5).total == 2


@pytest.mark.parametrize(
    "fields", [{"step": "x"}, {"min_score": "much"}, {"outcome": "maybe"}, {"tools": "1"}, {"batch": "g"}]
)
def test_a_filter_that_cannot_be_read_is_named(fields: dict[str, str]) -> None:
    with pytest.raises(UserError, match=next(iter(fields))):
        Query.from_fields(fields)


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    write_run(tmp_path / "run", steps=1, groups=1)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--cache"):
        Index(tmp_path / "run", tmp_path / "file")
