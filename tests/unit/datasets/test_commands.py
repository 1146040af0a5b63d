"""Commands over record files: counts, samples, splits, mixtures, pages; and their command lines."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from codedance_verl.data.checking import check_file
from codedance_verl.data.fields import Message, Source
from codedance_verl.data.rows import CanonicalRow, Kind
from codedance_verl.data.schema import read_records
from codedance_verl.datasets import mix as mixing
from codedance_verl.datasets import pieces as pieces_module
from codedance_verl.datasets import stats
from codedance_verl.datasets.cli import data_app
from codedance_verl.datasets.commands import Options, mix, sample, split
from codedance_verl.datasets.mix import MixJob, Share, parse_share, plan_key, plan_mixture, planned
from codedance_verl.datasets.select import Target, kind_of
from codedance_verl.datasets.stats import Stats
from codedance_verl.datasets.stored import stored_row
from codedance_verl.errors import UserError
from codedance_verl.runtime.locks import exclusive_lock
from tests.unit.datasets import published


def _questions(folder: Path, name: str, count: int, strata: tuple[str, ...] = (), shared: int = 1) -> Path:
    """Questions with embedded images, `shared` of them on each image."""
    rows = []
    for index in range(count):
        row = published.rl_row(index, image=published.png(index // shared))
        row["data_source"] = name
        extra = {"index": index, "split": "train"}
        row["extra_info"] = {**extra, "difficulty": strata[index % len(strata)]} if strata else extra
        rows.append(row)
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / f"{name}.parquet", row_group_size=8)
    return folder / f"{name}.parquet"


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces_module, "PIECE_BYTES", 4_000)


def _rows(path: Path) -> list[dict[str, Any]]:
    return list(pq.read_table(path).to_pylist())


def _indices(path: Path) -> list[int]:
    return [row["extra_info"]["index"] for row in _rows(path)]


def _run(*arguments: object) -> str:
    done = CliRunner().invoke(data_app, [str(argument) for argument in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.output


def test_a_sample_has_its_size_keeps_the_order_and_repeats_with_its_seed(tmp_path: Path) -> None:
    file = _questions(tmp_path, "q", 60)
    found = []
    for out, seed in (("a", 1), ("b", 1), ("c", 2)):
        sample([file], Options(tmp_path / out / "s.parquet"), 20, seed)
        found.append(_indices(tmp_path / out / "s.parquet"))
    assert found[0] == found[1] != found[2]
    assert len(found[0]) == 20 and found[0] == sorted(set(found[0]))
    records = read_records(tmp_path / "a" / "s.parquet").records
    assert [record.images[0] for record in records] == [published.png(index) for index in found[0]]
    assert records[0].record_id == f"q/q:{found[0][0]}" and records[0].extra_info["index"] == found[0][0]


def _ids(path: Path) -> list[str]:
    return [row["extra_info"]["record_id"] for row in _rows(path)]


def test_questions_of_one_index_stay_two(tmp_path: Path) -> None:
    files = [_questions(tmp_path, name, 3) for name in ("a", "b")]
    for file in files:
        rows = [{**row, "data_source": "same"} for row in _rows(file)]
        pq.write_table(pa.Table.from_pylist(rows), file)
    mix([Share(file) for file in files], Options(tmp_path / "m.parquet"), None, (), 0)
    found = _ids(tmp_path / "m.parquet")
    assert sorted(found) == [f"same/{name}:{row}" for name in ("a", "b") for row in range(3)]
    sample([tmp_path / "m.parquet"], Options(tmp_path / "again.parquet"), None, 0)
    assert _ids(tmp_path / "again.parquet") == found


def test_variants_of_a_question_keep_the_id_that_they_share(tmp_path: Path) -> None:
    rows = [published.rl_row(index) for index in (4, 4, 5)]
    for row, variant in zip(rows, ("sampled", "greedy", None), strict=True):
        row["extra_info"] = {"index": row["extra_info"]["index"], "variant": variant}
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "v.parquet")
    sample([tmp_path / "v.parquet"], Options(tmp_path / "s.parquet"), None, 0)
    assert _ids(tmp_path / "s.parquet") == ["SA1B/4", "SA1B/4", "SA1B/v:2"]


def test_files_of_one_name_need_records_with_ids(tmp_path: Path) -> None:
    files = [_questions(tmp_path / folder, "q", 3) for folder in ("a", "b")]
    shares = [Share(file) for file in files]
    with pytest.raises(UserError, match=r"row \d has no record_id, .*several files are named q; rename them"):
        mix(shares, Options(tmp_path / "m.parquet"), None, (), 0)
    with pytest.raises(UserError, match="several files are named q, of which ids of records are made; rename them"):
        _run("convert", *files, "--out", tmp_path / "c.parquet")
    for file in files:
        rows = _rows(file)
        for row in rows:
            row["extra_info"]["record_id"] = f"{file.parent.name}/{row['extra_info']['index']}"
        pq.write_table(pa.Table.from_pylist(rows), file)
    mix(shares, Options(tmp_path / "m.parquet"), None, (), 0)
    assert sorted(_ids(tmp_path / "m.parquet")) == ["a/0", "a/1", "a/2", "b/0", "b/1", "b/2"]


def test_what_a_file_has_beside_the_known_keys_is_kept(tmp_path: Path) -> None:
    sample([published.codedance_rl(tmp_path)], Options(tmp_path / "s.parquet"), 9, 0)
    extra = _rows(tmp_path / "s.parquet")[0]["extra_info"]
    assert json.loads(extra["other"])["detected_objects"]["label"] == "lamp"
    sample([tmp_path / "s.parquet"], Options(tmp_path / "again.parquet"), 9, 0)
    assert _rows(tmp_path / "again.parquet")[0]["extra_info"] == extra


@pytest.mark.parametrize(
    ("other", "kept"), [('{"a": 1}', {"a": 1}), ("a note", {"other": "a note"}), (7, {"other": 7}), (None, {})]
)
def test_a_key_of_the_name_of_the_rest_is_kept_beside_the_rest(other: object, kept: dict[str, Any]) -> None:
    row: CanonicalRow[Source] = CanonicalRow(
        (Message("user", "How many?"),), (), extra_info={"other": other, "hue": "red"}, ground_truth="1"
    )
    stored = stored_row(row, [], "", Kind.QUESTIONS)
    assert json.loads(stored["extra_info"]["other"]) == {**kept, "hue": "red"}


def test_a_file_in_another_folder_refers_to_the_images_where_they_lie(tmp_path: Path) -> None:
    sample([_questions(tmp_path, "q", 5)], Options(tmp_path / "a" / "s.parquet"), 5, 0)
    sample([tmp_path / "a" / "s.parquet"], Options(tmp_path / "b" / "c" / "t.parquet"), 5, 0)
    assert _rows(tmp_path / "b" / "c" / "t.parquet")[0]["images"][0].startswith("../../a/images/")
    assert not (tmp_path / "b" / "c" / "images").exists()
    assert check_file(tmp_path / "b" / "c" / "t.parquet").good == 5


@pytest.mark.parametrize("by", ["image", "question", "record"])
def test_a_split_loses_nothing_and_keeps_an_image_on_one_side(by: str, tmp_path: Path) -> None:
    file = _questions(tmp_path, "q", 200, shared=4)
    tally = split([file], Options(tmp_path / "out"), 0.25, by, 0)
    train, val = (_indices(tmp_path / "out" / f"{side}.parquet") for side in ("train", "val"))
    assert sorted(train + val) == list(range(200)) and 20 <= len(val) <= 80
    assert tally.made == Counter(train=len(train), val=len(val))
    sides = {index // 4 for index in train} & {index // 4 for index in val}
    assert not sides if by == "image" else sides


def _referring(folder: Path, paths: list[str]) -> Path:
    """Questions that refer to images at these paths."""
    rows = [{**published.rl_row(index), "images": [path]} for index, path in enumerate(paths)]
    for row in rows:
        row["extra_info"] = {"index": row["extra_info"]["index"]}
    pq.write_table(pa.Table.from_pylist(rows), folder / "r.parquet", row_group_size=8)
    return folder / "r.parquet"


def test_a_split_by_image_goes_by_what_is_in_the_files(tmp_path: Path) -> None:
    for number in range(120):
        (tmp_path / f"{number:04d}").mkdir()
        # three files in a row hold one image, and all have one name
        (tmp_path / f"{number:04d}" / "image.png").write_bytes(published.png(number // 3))
    file = _referring(tmp_path, [f"{number:04d}/image.png" for number in range(120)])
    split([file], Options(tmp_path / "out"), 0.3, "image", 0)
    train, val = ({index // 3 for index in _indices(tmp_path / "out" / f"{side}.parquet")} for side in ("train", "val"))
    assert not train & val and len(train) + len(val) == 40 and 4 <= len(val) <= 20


def test_a_split_counts_a_missing_image_as_a_bad_row(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(published.png())
    file = _referring(tmp_path, ["a.png", "none.png"])
    with pytest.raises(UserError, match=r"r\.parquet row 1: images\[0\] names the file .*none\.png, .*--skip-bad"):
        split([file], Options(tmp_path / "out"), 0.5, "image", 0)


def test_a_mixture_has_its_weights_and_is_shuffled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixing, "MOST_BUCKET_ROWS", 16)
    files = [_questions(tmp_path, "a", 60), _questions(tmp_path, "b", 10)]
    out = tmp_path / "m" / "mix.parquet"
    mix([Share(files[0], 3), Share(files[1], 1)], Options(out), 80, (), 0)
    rows = _rows(out)
    assert Counter(row["data_source"] for row in rows) == {"a": 60, "b": 20}
    counts = Counter((row["data_source"], row["extra_info"]["index"]) for row in rows)
    assert {key: count for key, count in counts.items() if count != (2 if key[0] == "b" else 1)} == {}
    indices = [row["extra_info"]["index"] for row in rows if row["data_source"] == "a"]
    assert sorted(indices) == list(range(60)) and indices != sorted(indices)
    assert sum(row["data_source"] == "b" for row in rows[:40]) in range(4, 17)
    first = rows
    mix([Share(files[0], 3), Share(files[1], 1)], Options(out), 80, (), 0)
    assert _rows(out) == first
    assert sorted(path.name for path in out.parent.iterdir()) == [".mix.parquet.lock", "images", "mix.parquet"]


def test_without_a_total_no_row_is_given_twice(tmp_path: Path) -> None:
    files = [_questions(tmp_path, "a", 30), _questions(tmp_path, "b", 10)]
    mix([Share(files[0], 1), Share(files[1], 1)], Options(tmp_path / "m.parquet"), None, (), 0)
    assert Counter(row["data_source"] for row in _rows(tmp_path / "m.parquet")) == {"a": 10, "b": 10}
    mix([Share(file) for file in files], Options(tmp_path / "all.parquet"), None, (), 0)
    assert Counter(row["data_source"] for row in _rows(tmp_path / "all.parquet")) == {"a": 30, "b": 10}


def test_a_curriculum_goes_from_stratum_to_stratum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixing, "MOST_BUCKET_ROWS", 16)
    strata = ("hard", "easy", "medium")
    files = [_questions(tmp_path, name, 30, strata) for name in ("a", "b")]
    mix([Share(file) for file in files], Options(tmp_path / "m.parquet"), None, ("easy", "medium", "hard"), 0)
    rows = _rows(tmp_path / "m.parquet")
    assert [row["extra_info"]["difficulty"] for row in rows] == ["easy"] * 20 + ["medium"] * 20 + ["hard"] * 20
    sources = [row["data_source"] for row in rows[:20]]
    assert Counter(sources) == {"a": 10, "b": 10} and sources != sorted(sources)
    with pytest.raises(UserError, match=r"a\.parquet row 0: its difficulty is 'hard', .*name every stratum"):
        mix([Share(file) for file in files], Options(tmp_path / "n.parquet"), None, ("easy", "medium"), 0)


def test_a_second_mixture_on_an_output_leaves_the_files_of_the_first_alone(tmp_path: Path) -> None:
    file, out = _questions(tmp_path, "a", 6), tmp_path / "m" / "mix.parquet"
    out.parent.mkdir()
    with (
        exclusive_lock(out.parent / ".mix.parquet.lock", "busy"),
        pytest.raises(UserError, match="another process is making it"),
    ):
        mix([Share(file)], Options(out), None, (), 0)
    assert [path.name for path in out.parent.iterdir()] == [".mix.parquet.lock"]


def test_a_plan_of_another_run_is_not_followed(tmp_path: Path) -> None:
    file = _questions(tmp_path, "a", 6)
    plans = [plan_mixture([Share(file)], None, (), seed) for seed in (0, 1)]
    target = Target(tmp_path / "m.parquet", tmp_path / "images", kind_of([file]))
    job = planned(MixJob(target, plan_key(plans[0]), (str(file),), 8), plans[1], tmp_path)
    with pytest.raises(UserError, match="not the plan of this run; start the command again"):
        next(iter(job(pieces_module.pieces_of([file])[0])))


@pytest.mark.parametrize(
    ("text", "fault"), [("a.parquet=x", "is no weight"), ("a.parquet=0", "over 0"), ("a.parquet=-1", "over 0")]
)
def test_a_weight_that_is_none_is_refused(text: str, fault: str) -> None:
    with pytest.raises(UserError, match=fault):
        parse_share(text)


def test_weights_for_some_files_only_are_refused(tmp_path: Path) -> None:
    files = [_questions(tmp_path, "a", 3), _questions(tmp_path, "b", 3)]
    with pytest.raises(UserError, match="give each one or none"):
        mix([Share(files[0], 1), Share(files[1])], Options(tmp_path / "m.parquet"), None, (), 0)


def test_no_command_replaces_a_file_that_it_reads(tmp_path: Path) -> None:
    file = _questions(tmp_path, "train", 8)
    (tmp_path / "link").symlink_to(tmp_path)
    before, linked = file.read_bytes(), tmp_path / "link" / "train.parquet"
    for command in (
        ["sample", file, "--out", linked],
        ["split", file, "--out", tmp_path / "link", "--val", 0.5],
        ["mix", linked, "--out", file],
        ["convert", file, "--out", tmp_path / "." / "train.parquet"],
        ["stats", file, "--json", linked],
        ["show", file, "--out", linked, "--no-browser"],
    ):
        with pytest.raises(UserError, match=r"would replace .*train\.parquet, which is read; name another output"):
            _run(*command)
    assert file.read_bytes() == before


def test_a_file_counts_once(tmp_path: Path) -> None:
    file = _questions(tmp_path, "q", 8)
    (tmp_path / "r.parquet").symlink_to(file)
    for command in ("sample", "split", "stats", "convert"):
        out = () if command == "stats" else ("--out", tmp_path / "o")
        with pytest.raises(UserError, match=r"r\.parquet and .*q\.parquet are one file, .*named twice; name it once$"):
            _run(command, file, tmp_path / "r.parquet", *out)
    with pytest.raises(UserError, match="named twice; name it once, with a larger weight"):
        mix([Share(file, 1), Share(file, 1)], Options(tmp_path / "o"), None, (), 0)


def test_a_file_without_a_row_is_not_mixed(tmp_path: Path) -> None:
    file = _questions(tmp_path, "a", 3)
    pq.write_table(pq.read_table(file).slice(0, 0), tmp_path / "empty.parquet")
    for total in (None, 10):
        with pytest.raises(UserError, match=r"empty\.parquet holds no row; leave it out"):
            mix([Share(file, 1), Share(tmp_path / "empty.parquet", 1)], Options(tmp_path / "m"), total, (), 0)


def test_a_result_that_cannot_be_written_is_an_error_of_one_line(tmp_path: Path) -> None:
    file = _questions(tmp_path, "q", 3)
    taken = file / "x.json"  # a file is no folder
    for command in (["stats", file, "--json", taken], ["show", file, "--out", taken, "--no-browser"]):
        with pytest.raises(UserError, match=r"cannot write .*x\.json: .*; free some space or name another file"):
            _run(*command)
    for command in ("mix", "sample", "split"):
        with pytest.raises(UserError, match=r"cannot write beside .*; name another --out"):
            _run(command, file, "--out", file / "out")


def test_a_page_of_another_maker_is_not_replaced(tmp_path: Path) -> None:
    file = _questions(tmp_path, "q", 3)
    (tmp_path / "q.html").write_text("<p>mine</p>")
    with pytest.raises(UserError, match=r"q\.html is there and was not made by this command; .*--out"):
        _run("show", file, "--no-browser")
    assert (tmp_path / "q.html").read_text() == "<p>mine</p>"
    (tmp_path / "q.html").unlink()
    for row in (0, 1):  # its own page it does replace
        _run("show", file, "--row", row, "--no-browser")
    assert "Row 0" not in (tmp_path / "q.html").read_text()


def test_json_is_refused_with_what_makes_records_of_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train\.jsonl is JSON, not a parquet file; .*codedance data convert"):
        _run("sample", published.refocus_raw(tmp_path), "--out", tmp_path / "s.parquet")


def test_files_of_two_kinds_are_not_mixed(tmp_path: Path) -> None:
    shares = [Share(published.codedance_rl(tmp_path)), Share(published.codedance_sft(tmp_path))]
    with pytest.raises(UserError, match="different kinds"):
        mix(shares, Options(tmp_path / "m.parquet"), None, (), 0)


def test_demonstrations_keep_their_labels(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
    rows = [{"messages": messages, "record_id": f"r{index}", "difficulty": "easy", "kind": "k"} for index in range(4)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "d.parquet")
    mix([Share(tmp_path / "d.parquet")], Options(tmp_path / "m.parquet"), None, ("easy",), 0)
    found = _rows(tmp_path / "m.parquet")
    assert {row["record_id"] for row in found} == {"r0", "r1", "r2", "r3"}
    assert {(row["difficulty"], row["kind"], row["style"]) for row in found} == {("easy", "k", None)}


def test_bad_rows_of_record_files_are_named_or_skipped(tmp_path: Path) -> None:
    rows = [published.rl_row(0), {**published.rl_row(1), "reward_model": None}, published.rl_row(2)]
    file = published.write(tmp_path / "x.parquet", rows, published.rl_schema())
    for command in (["stats"], ["split", "--out", tmp_path / "o", "--val", 0.5, "--by", "record", "--seed", 2]):
        with pytest.raises(UserError, match=r"x\.parquet row 1: .*missing or empty; fix or drop the row, .*--skip-bad"):
            _run(command[0], file, *command[1:], "--workers", 1)
        assert "skipped x.parquet row 1: " in _run(command[0], file, *command[1:], "--skip-bad", "--workers", 1)
    assert "skipped x.parquet row 1: " in _run("check", file, "--skip-bad")


def test_counts(tmp_path: Path) -> None:
    file = _questions(tmp_path, "q", 40, ("easy", "hard"), shared=4)
    _run("stats", file, "--json", tmp_path / "s.json", "--workers", 2)
    found = json.loads((tmp_path / "s.json").read_text())
    assert (found["records"], found["images"], found["distinct_images"]) == (40, 40, 10)
    assert found["difficulty"] == {"easy": 20, "hard": 20} and found["data_source"] == {"q": 40}
    assert found["answers"]["7"] == 1 and found["roles"] == {"system user": 40}
    assert found["megapixels"] == {"0.000977": 40} and found["images_of_record"] == {"1": 40}


def test_answers_are_counted_over_all_pieces(tmp_path: Path) -> None:
    # in each of two pieces 2,001 answers, of which the one that both have comes last
    rows = [published.rl_row(index, image=b"x") for index in range(4_002)]
    for index, row in enumerate(rows):
        row["reward_model"]["ground_truth"] = "both" if index % 2_001 == 2_000 else str(index)
        row["extra_info"] = {"index": index}
    file = tmp_path / "m.parquet"
    pq.write_table(pa.Table.from_pylist(rows), file, row_group_size=2_001)
    _run("stats", file, "--json", tmp_path / "s.json", "--workers", 1)
    assert json.loads((tmp_path / "s.json").read_text())["answers"]["both"] == 2


def test_values_beyond_the_bound_lose_the_rarer_half(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats, "MOST_VALUES", 4)
    total = Stats()
    for found in (Counter(a=3, b=1, c=1), Counter(a=1, d=1, b=4, e=1), Counter(c=1)):
        total.add(Stats(answers=found))
    assert total.answers == {"a": 4, "b": 5, "c": 1}


def test_a_page_shows_rows_with_their_images_and_faults(tmp_path: Path) -> None:
    rows = [published.rl_row(0), {**published.rl_row(1), "reward_model": None}, published.rl_row(2)]
    rows[2]["messages"][1]["content"] = "<image>\n<b>bold?</b>"
    rows[2]["extra_info"]["question"] = None
    file = published.write(tmp_path / "x.parquet", rows, published.rl_schema())
    _run("show", file, "--row", 1, "--out", tmp_path / "p.html", "--no-browser")
    text = (tmp_path / "p.html").read_text()
    assert "Row 0" not in text and "row 1: " in text and "Row 2" in text
    assert text.count("data:image/png;base64,") == 1 and 'alt="image 0, 40 x 30 pixels"' in text
    assert "&lt;b&gt;bold?" in text and "<b>" not in text
    with pytest.raises(UserError, match="has no row 9"):
        _run("show", file, "--row", 9, "--no-browser")


def test_the_commands_in_a_row(tmp_path: Path) -> None:
    rl = published.codedance_rl(tmp_path, 40, group=8)
    output = _run("convert", rl, "--out", tmp_path / "c" / "rl.parquet", "--workers", 1)
    assert "40 records, 0 bad rows left out" in output
    assert "(" in _run("split", tmp_path / "c" / "rl.parquet", "--out", tmp_path / "c", "--val", 0.3, "--workers", 1)
    train = tmp_path / "c" / "train.parquet"
    _run("mix", f"{train}=1", "--records", 10, "--out", tmp_path / "mix.parquet", "--workers", 1)
    assert "10 good records, 0 bad" in _run("check", tmp_path / "mix.parquet")
