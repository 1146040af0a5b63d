"""An evaluation from the files to the report, with a model that answers by a function."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from codedance_verl.cli import main
from codedance_verl.data.schema import write_records
from codedance_verl.errors import UserError
from codedance_verl.harness import answerers
from codedance_verl.harness.reply import Answerer, Question, Reply
from codedance_verl.harness.run import evaluate, plans
from codedance_verl.harness.settings import EvalSettings, load
from codedance_verl.harness.sources import source_of
from codedance_verl.records.key import ChangedKey
from codedance_verl.tasks.registry import task_of
from tests.unit.harness.asked_items import Scripted
from tests.unit.tasks import test_counting, test_mathvista, test_vstar
from tests.unit.tasks.test_own_records import record


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Files of three benchmarks: 4, 3 and 2 items."""
    folder = tmp_path / "data"
    for name in ("countbench", "vstar/direct_attributes", "vstar/relative_position", "mathvista"):
        (folder / name).mkdir(parents=True)
    test_counting._countbench(folder / "countbench", "parquet")
    test_vstar._make(folder / "vstar", "jsonl")
    test_mathvista._make(folder / "mathvista", "parquet")
    return folder


def right(question: Question) -> Reply:
    return Reply(text=question.item.truth or "")


def settings(data: Path, out: Path, names: str, *more: str) -> EvalSettings:
    return load(["eval.model=m", f"eval.benchmarks=[{names}]", f"eval.data={data}", f"eval.out={out}", *more])


def run(chosen: EvalSettings, monkeypatch: pytest.MonkeyPatch, model: Scripted | None = None) -> list[str]:
    """Lines that are told."""

    @contextlib.asynccontextmanager
    async def started(_: EvalSettings) -> AsyncIterator[Answerer]:
        yield model or Scripted(right)

    monkeypatch.setattr(answerers, "started", started)
    told: list[str] = []
    asyncio.run(evaluate(chosen, told.append))
    return told


def test_what_is_right_counts_in_scores_and_report(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = run(settings(data, tmp_path / "out", "countbench,vstar"), monkeypatch)
    assert "countbench: 4 items, but 491 in vikhyatk/CountBenchQA at 76d6003" in told
    assert "vstar: 3 samples, 0 on record, 3 to ask" in told
    report = json.loads((tmp_path / "out" / "report.json").read_bytes())
    values = {
        (one["task"], way["which"]): way["figures"][0]["estimate"]["value"]
        for one in report["benchmarks"]
        for way in one["scorings"]
    }
    assert values == {(task, which): 1.0 for task in ("countbench", "vstar") for which in ("official", "ours")}
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"report.html", "model_card.md", "scores"}


def test_a_second_run_asks_nothing_and_other_settings_are_refused(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = Scripted(right), Scripted(right)
    run(settings(data, tmp_path / "out", "countbench"), monkeypatch, first)
    run(settings(data, tmp_path / "out", "countbench"), monkeypatch, second)
    assert (len(first.asked), len(second.asked)) == (4, 0)
    with pytest.raises(ChangedKey, match=r"sampling\.temperature: 0\.0 -> 0\.5"):
        run(settings(data, tmp_path / "out", "countbench", "eval.temperature=0.5"), monkeypatch)


def test_benchmarks_that_share_replies_are_asked_once(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Scripted(right)
    run(settings(data, tmp_path / "out", "mathvista_corrected,mathvista"), monkeypatch, model)
    assert len(model.asked) == 2
    assert {path.stem for path in (tmp_path / "out" / "scores").iterdir()} == {"mathvista", "mathvista_corrected"}


def test_a_report_of_the_first_items_says_so(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(settings(data, tmp_path / "out", "countbench", "eval.limit=2"), monkeypatch)
    report = json.loads((tmp_path / "out" / "report.json").read_bytes())
    assert report["notes"] == ["countbench: the first 2 items alone (eval.limit)"]


def test_the_plan_says_what_is_left(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(settings(data, tmp_path / "out", "countbench"), monkeypatch)
    arguments = ["eval", "m", "countbench", "vstar", "--data", str(data), "--out", str(tmp_path / "out"), "--plan"]
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0
    assert capsys.readouterr().out.splitlines() == [
        "countbench: 4 items, 4 samples, 4 on record, 0 left",
        "vstar: 3 items, 3 samples, none on record",
    ]


def test_the_plan_names_settings_that_have_changed(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(settings(data, tmp_path / "out", "countbench"), monkeypatch)
    changed = settings(data, tmp_path / "out", "countbench", "eval.samples=4")
    with pytest.raises(ChangedKey, match="samples: 1 -> 4"):
        list(plans(changed, lambda _: None))


def test_what_is_on_record_is_scored_without_the_model(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(settings(data, tmp_path / "out", "countbench"), monkeypatch)
    (tmp_path / "out" / "report.json").unlink()
    monkeypatch.setattr(answerers, "started", None)
    asyncio.run(evaluate(settings(data, tmp_path / "out", "countbench", "eval.score_only=true"), lambda _: None))
    assert (tmp_path / "out" / "report.json").is_file()


@pytest.mark.parametrize(
    ("files", "line"),
    [
        (("a/test.parquet", "b/test.parquet"), "b/test.parquet: its name is that of .*a/test.parquet; rename the file"),
        (("vstar.parquet",), "vstar.parquet: its name is that of a benchmark"),
        (("scores.parquet",), "scores.parquet: its name is that of a folder of the run"),
    ],
)
def test_a_file_with_a_name_that_is_taken_is_refused(
    tmp_path: Path, files: tuple[str, ...], line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, name in enumerate(files):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_records(tmp_path / name, [record(number)])
    names = ",".join(str(tmp_path / name) for name in files)
    with pytest.raises(UserError, match=line):
        run(settings(tmp_path, tmp_path / "out", names), monkeypatch)


def test_two_runs_are_compared_from_the_command_line(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(settings(data, tmp_path / "a", "countbench"), monkeypatch)
    run(settings(data, tmp_path / "b", "countbench"), monkeypatch, Scripted(lambda _: Reply(text="no idea")))
    with pytest.raises(SystemExit) as ended:
        main(["eval", "compare", str(tmp_path / "a"), str(tmp_path / "b")])
    assert ended.value.code == 0
    assert "100.0" in (shown := capsys.readouterr().out) and "countbench" in shown


def test_files_are_found_under_the_name_of_the_benchmark_or_of_its_dataset(data: Path) -> None:
    assert source_of(task_of("vstar_unshuffled"), str(data)) == data / "vstar"
    assert source_of(task_of("countbench"), str(data / "countbench")) == data / "countbench"
    with pytest.raises(UserError, match=r"holds no files of ChartQA.* nor is there a folder"):
        source_of(task_of("chartqa"), str(data))
