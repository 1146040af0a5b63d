"""Rows of published files, and their images as references."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codedance_verl.errors import UserError
from codedance_verl.tasks.countbench import COUNTBENCH
from codedance_verl.tasks.item import UnreadableImage
from codedance_verl.tasks.references import ImageFile, open_image
from codedance_verl.tasks.rows import columns_of, rows
from codedance_verl.tasks.tsv import cells_of, records
from tests.unit.tasks.files import base64_image, image, json_lines, parquet, struct, tsv


@pytest.mark.parametrize(
    "cell",
    [
        lambda number: image(number),
        lambda number: struct(number),
        lambda number: base64_image(number),
        lambda number: {"bytes": None, "path": f"{number}.png"},
    ],
    ids=["bytes", "struct", "base64", "path"],
)
def test_images_of_parquet_are_read_in_any_order(tmp_path: Path, cell: object) -> None:
    assert callable(cell)
    for number in range(10):
        (tmp_path / f"{number}.png").write_bytes(image(number))
    path = parquet(tmp_path / "a.parquet", [{"q": f"q{n}", "image": cell(n)} for n in range(10)], group=4)
    found = list(rows(path))
    assert [row.values for row in found] == [{"q": f"q{n}"} for n in range(10)]
    for order in (range(10), reversed(range(10)), (3, 3, 9, 0, 4, 2)):
        for number in order:
            assert open_image(pickle.loads(pickle.dumps(found[number].image()))).width == 20 + number


def test_rows_hold_no_image(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", [{"image": {"bytes": bytes(2_000_000), "path": None}}] * 3)
    assert len(pickle.dumps(list(rows(path)))) < 5_000


def test_the_picture_column_beside_a_path_column_is_the_image(tmp_path: Path) -> None:
    row = {"image": "images/7.jpg", "decoded_image": struct(7)}
    (found,) = rows(parquet(tmp_path / "a.parquet", [row]))
    assert found.text("image") == "images/7.jpg"
    assert open_image(found.image("decoded_image")).width == 27


@pytest.mark.parametrize(
    ("cell", "told"),
    [
        (None, 'a.parquet row 0: image has neither "bytes" nor "path"'),
        ({"bytes": b"no image", "path": None}, "a.parquet row 0: the image cannot be decoded"),
        ({"bytes": image(1)[:40], "path": None}, "a.parquet row 0: the image cannot be decoded"),
        ({"bytes": None, "path": "none.png"}, "a.parquet row 0: image names the file"),
        ({"bytes": None, "path": "https://a/b.png"}, "a.parquet row 0: image is the address https://a/b.png"),
    ],
)
def test_a_bad_image_is_named_by_file_and_row(tmp_path: Path, cell: object, told: str) -> None:
    rows_of_file = [{"image": cell}, {"image": struct(1)}]
    first, second = rows(parquet(tmp_path / "a.parquet", rows_of_file))
    with pytest.raises(UnreadableImage, match=told):
        open_image(first.image())
    assert open_image(second.image()).width == 21


def test_cells_of_tsv(tmp_path: Path) -> None:
    texts = ['say "hi"', "a\tb", "two\nlines", "", "plain", 'half " quote', "üñ日"]
    path = tsv(tmp_path / "a.tsv", [{"index": n, "q": t, "image": base64_image(n)} for n, t in enumerate(texts)])
    found = list(rows(path))
    assert [row.values["q"] for row in found] == texts
    assert [open_image(row.image()).width for row in reversed(found)] == [26, 25, 24, 23, 22, 21, 20]


@pytest.mark.parametrize(
    ("record", "cells"),
    [
        (b"a\tb\n", [b"a", b"b"]),
        (b"a\t\n", [b"a", b""]),
        (b"\t\r\n", [b"", b""]),
        (b'"a ""b"" c"\td', [b'a "b" c', b"d"]),
        (b'a "b" c\td', [b'a "b" c', b"d"]),
        (b'""\t"x"', [b"", b"x"]),
        (b'"a\tb\nc"\td', [b"a\tb\nc", b"d"]),
        (b'"""a"""', [b'"a"']),
    ],
)
def test_cells_of_a_record(record: bytes, cells: list[bytes]) -> None:
    assert cells_of(record) == cells


def test_a_record_of_tsv_knows_its_place(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_bytes(b'a\tb\n1\t"x\ny"\n2\tz\n')
    data = path.read_bytes()
    assert [data[found.start : found.start + found.length] for found in records(path)] == [
        b"a\tb\n",
        b'1\t"x\ny"\n',
        b"2\tz\n",
    ]


def test_a_row_of_tsv_may_share_the_image_of_another(tmp_path: Path) -> None:
    cells = [{"index": 5, "image": base64_image(5)}, {"index": 6, "image": "5"}]
    assert [open_image(row.image()).width for row in rows(tsv(tmp_path / "a.tsv", cells))] == [25, 25]


def test_damaged_base64_of_tsv_is_named_by_file_and_row(tmp_path: Path) -> None:
    path = tsv(tmp_path / "a.tsv", [{"index": 0, "image": base64_image(0)[:-7] + "!"}, {"index": 1, "image": ""}])
    for row, told in zip(rows(path), ("0: image is damaged base64", "1: image has neither"), strict=True):
        with pytest.raises(UnreadableImage, match=f"a.tsv row {told}"):
            row.image().read()


def test_an_unclosed_quote_ends_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text('a\tb\n1\t"no end\n')
    with pytest.raises(UserError, match=r"a\.tsv: the quoted cell .* byte 4 has no end"):
        list(rows(tmp_path / "a.tsv"))


def test_images_of_json_are_files_beside_it(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images/1.png").write_bytes(image(1))
    path = json_lines(tmp_path / "a.jsonl", [{"image": "images/1.png"}, {"image": "2.png"}, {"q": "no image"}])
    first, second, third = rows(path)
    assert open_image(first.image()).width == 21 and first.image().fault() == ""
    assert second.image().fault() == f"a.jsonl row 1: there is no image {tmp_path / '2.png'}"
    assert third.image().fault() == "a.jsonl row 2: it has no image"
    with pytest.raises(UnreadableImage, match=r"a\.jsonl row 1: .* cannot be read"):
        second.image().read()


def test_json_may_be_a_list_a_mapping_or_one_record(tmp_path: Path) -> None:
    for text, values in (
        ('[{"a": 1}, {"a": 2}]', [{"a": 1}, {"a": 2}]),
        ('{"7": {"a": 1}, "9": {"a": 2}}', [{"key": "7", "a": 1}, {"key": "9", "a": 2}]),
        ('{"a": 1, "b": [2]}', [{"a": 1, "b": [2]}]),
    ):
        (tmp_path / "a.json").write_text(text)
        assert [row.values for row in rows(tmp_path / "a.json")] == values


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.json", "{"), ("a.json", "[1]"), ("a.jsonl", "{}\n[]\n"), ("a.jsonl", "nothing"), ("a.parquet", "PAR1")],
)
def test_a_file_of_another_kind_ends_with_one_line(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=name):
        list(rows(tmp_path / name))


def test_columns_are_known_without_reading_the_rows(tmp_path: Path) -> None:
    assert columns_of(parquet(tmp_path / "a.parquet", [{"a": 1, "image": b"x"}])) == {"a", "image"}
    assert columns_of(tsv(tmp_path / "a.tsv", [{"a": 1, "image": "x"}])) == {"a", "image"}
    assert columns_of(json_lines(tmp_path / "a.jsonl", [{"a": 1}])) == {"a"}
    (tmp_path / "a.txt").write_text("a")
    assert columns_of(tmp_path / "a.txt") == frozenset()


def test_an_image_file_says_where_it_stands(tmp_path: Path) -> None:
    assert ImageFile(tmp_path / "x.png", "a.jsonl row 3").where == "a.jsonl row 3, x.png"


def test_images_of_parquet_may_be_read_by_several_threads(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", [{"q": "?", "image": struct(n)} for n in range(40)], group=7)
    found = list(rows(path))
    order = [number * 17 % 40 for number in range(40)] * 3
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda n: open_image(found[n].image()).width - 20, order)) == order


def test_a_value_that_is_no_text_costs_its_row_alone(tmp_path: Path) -> None:
    column = pa.array([b"one", b"\xff\xfe", b"three"]).view(pa.string())
    pq.write_table(pa.table({"question": column, "number": [1, 2, 3], "image": [image(0)] * 3}), tmp_path / "a.parquet")
    items = list(COUNTBENCH.items(tmp_path))
    assert [item.question for item in items] == ["one", "", "three"]
    assert items[1].fault.startswith("a.parquet row 1: a value of it cannot be read")
