from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from codedance_verl.harness.model_card import card
from codedance_verl.harness.report_build import evaluation_report
from codedance_verl.harness.report_files import write_files
from tests.unit.harness.made_up import benchmark, every, failed, items, key


def front_matter(text: str) -> dict[str, object]:
    start, front, _ = text.split("---\n", 2)
    assert start == ""
    found = yaml.safe_load(front)
    assert isinstance(found, dict)
    return found


def test_the_card_has_every_figure_with_interval_and_rule() -> None:
    asked = items(40)
    own = benchmark(every(asked, lambda n: float(n < 30), lambda _: 0), asked)
    text = card(evaluation_report("tiny", [own]))
    result = front_matter(text)["model-index"][0]["results"][0]  # type: ignore[index]
    assert result["dataset"]["type"] == own.task.source and result["dataset"]["revision"] == own.task.revision
    first = result["metrics"][0]
    assert (first["name"], first["value"]) == ("accuracy (official)", 75.0)
    low, high = first["args"]["interval_95"]
    assert 50 < low < 75 < high < 90
    assert first["args"]["rule"] == own.task.rule
    assert "| V\\* bench | accuracy | ours | 75.0 % (" in text


def test_the_hub_reads_the_card() -> None:
    hub = pytest.importorskip("huggingface_hub")
    asked = items(10)
    text = card(evaluation_report("tiny", [benchmark(every(asked, lambda _: 1.0, lambda _: 0), asked)]))
    results = hub.ModelCard(text).data.eval_results
    assert {result.metric_name for result in results} >= {"accuracy (official)", "accuracy (ours)"}
    assert all(result.metric_value == 100.0 for result in results)


def test_nothing_measured_gives_a_card_without_results() -> None:
    text = card(evaluation_report("tiny", []))
    assert front_matter(text) == {"model-index": [{"name": "tiny", "results": []}]}


def test_hostile_names_stay_text() -> None:
    asked = items(3)
    name = "x\n---\nevil: true\n| <script>alert(1)</script> |"
    own = benchmark([failed(item, reason=name) for item in asked], asked, of=key(model=name))
    text = card(evaluation_report(name, [own], notes=[name]))
    assert set(front_matter(text)) == {"model-index"}
    body = text.split("\n---\n", 1)[1]
    assert "<script>" not in body.replace("\\<script", "")
    assert "evil: true\n" not in body


def test_all_files_of_a_run_are_written(tmp_path: Path) -> None:
    asked = items(4)
    own = benchmark(every(asked, lambda n: n % 2, lambda _: 1), asked)
    written = write_files(tmp_path, "tiny", [own])
    names = ["report.json", "report.html", "model_card.md", "tiny_VStarBench.tsv"]
    assert [path.name for path in written.files] == names
    assert all(path.stat().st_size for path in written.files)
