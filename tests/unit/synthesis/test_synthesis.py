"""A synthesis from the questions to the demonstrations: a scripted teacher over HTTP, real interpreters."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from omegaconf import OmegaConf

from codedance_verl.data.checking import check_file
from codedance_verl.errors import UserError
from codedance_verl.harness.settings import EvalSettings, load
from codedance_verl.records.key import ChangedKey
from codedance_verl.rollout.dataset import DemonstrationDataset
from codedance_verl.synthesis.kinds import Kind
from codedance_verl.synthesis.report import SynthesisReport, lines_of
from codedance_verl.synthesis.run import plan_lines, synthesize
from codedance_verl.synthesis.settings import Rules, Synthesis
from tests.unit.environment.harness import processor, tokenizer
from tests.unit.synthesis.scripted_teacher import SMALL, Teacher, scenes, serving, write_questions

NAMES = (
    "easy",
    "visual",
    "computation",
    "drawing",
    "hard_coded",
    "decorative",
    "crash",
    "elsewhere",
    "large",
    "wrong",
    "no_call",
    "no_answer",
)
REJECTED_AT = {
    "hard_coded": "faithful",
    "decorative": "faithful",
    "crash": "executed",
    "elsewhere": "box_holds",
    "large": "box_size",
    "wrong": "right",
    "no_call": "executed",
    "no_answer": "answered",
}
ONE = Synthesis(direct=1, tries=1, kinds=())


def settings(questions: Path, out: Path, url: str, *more: str) -> EvalSettings:
    keys = {"eval.model": "scripted", "eval.benchmarks": f"[{questions}]", "eval.out": out, "eval.endpoint": url}
    return load([*(f"{name}={value}" for name, value in keys.items()), *SMALL, *more])


def run(chosen: EvalSettings, synthesis: Synthesis = ONE, ask: bool = True) -> SynthesisReport:
    return asyncio.run(synthesize(chosen, synthesis, lambda _: None, ask))


def rows(out: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(out / "sft.parquet").to_pylist()
    return sorted(found, key=lambda row: str(row["record_id"]))


def rejections(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "rejections.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SynthesisReport, Teacher]:
    folder = tmp_path_factory.mktemp("synthesis")
    teacher = Teacher(scenes(len(NAMES)))
    questions = write_questions(folder / "data", NAMES, teacher.scenes)
    with serving(teacher) as url:
        report = run(settings(questions, folder / "out", url))
    return folder / "out", report, teacher


def test_what_passes_all_checks_is_kept(made: tuple[Path, SynthesisReport, Teacher]) -> None:
    out, report, _ = made
    kept = {row["record_id"]: (row["kind"], row["difficulty"], row["style"]) for row in rows(out)}
    assert kept == {
        "q0": ("direct", "easy", "direct"),
        "q1": ("visual", "hard", "tools"),
        "q2": ("computation", "hard", "tools"),
        "q3": ("drawing", "hard", "tools"),
    }
    assert report.by_kind == {"direct": 1, "visual": 1, "computation": 1, "drawing": 1}
    assert (report.questions, report.easy, report.rows, report.undecided) == (12, 1, 4, 0)


def test_every_rejection_has_its_stage_reason_and_text(made: tuple[Path, SynthesisReport, Teacher]) -> None:
    out, _, _ = made
    found = {NAMES[int(one["item"][1:])]: one for one in rejections(out)}
    assert {name: one["stage"] for name, one in found.items()} == REJECTED_AT
    assert all(one["reason"] and one["text"] and one["truth"] for one in found.values())
    assert "ZeroDivisionError" in found["crash"]["reason"]
    assert "100 % of the image" in found["large"]["reason"]
    assert "constant" in found["hard_coded"]["reason"]
    assert found["hard_coded"]["uses"] == ["hard_coded"]
    assert "0 % of a region" in found["elsewhere"]["reason"]


def test_rates_of_checks_stand_beside_the_published_ones(made: tuple[Path, SynthesisReport, Teacher]) -> None:
    _, report, _ = made
    counts = {stage.stage: (stage.tried, stage.passed, stage.published) for stage in report.stages}
    assert counts == {
        "answered": (11, 10, None),
        "well_formed": (10, 10, 0.9),
        "executed": (10, 8, None),
        "right": (8, 7, None),
        # of those with a crop by constants: visual, computation, drawing, elsewhere, large
        "box_holds": (5, 4, 0.15),
        "box_size": (4, 3, 0.65),
        "faithful": (5, 3, None),
    }
    assert report.kept_trajectories == 3
    assert any("4 / 5" in line and "15 %" in line for line in lines_of(report))


def test_a_demonstration_is_the_conversation_with_its_images(made: tuple[Path, SynthesisReport, Teacher]) -> None:
    out, _, teacher = made
    found = check_file(out / "sft.parquet", True)
    assert (found.good, len(found.lines)) == (4, 0)
    visual = rows(out)[1]
    assert [message["role"] for message in visual["messages"]] == ["user", "assistant", "user", "assistant"]
    assert visual["messages"][0]["content"] == "<image>Question 1 (visual): which colour is the patch on the left?"
    assert len(visual["images"]) == 2
    assert (out / visual["images"][0]).read_bytes() == teacher.scenes[1].png
    assert "without code" not in json.dumps([row["messages"] for row in rows(out)])


def test_the_page_shows_kept_and_rejected_trajectories(made: tuple[Path, SynthesisReport, Teacher]) -> None:
    out, _, _ = made
    page = (out / "report.html").read_text()
    for title in ("Kept, drawing", "Kept, direct", "Rejected, box holds", "Rejected, executed"):
        assert title in page
    assert page.count("data:image/jpeg") >= 12
    assert "<script" not in page
    assert json.loads((out / "report.json").read_text())["stages"][4]["published"] == 0.15


def test_the_same_run_again_asks_nothing_and_writes_the_same(made: tuple[Path, SynthesisReport, Teacher]) -> None:
    out, report, teacher = made
    before, asked = rows(out), teacher.asked.total()
    with serving(teacher) as url:
        again = run(settings(out.parent / "data/questions.parquet", out, url))
    assert teacher.asked.total() == asked
    assert rows(out) == before
    assert again.stages == report.stages


def test_other_bounds_check_what_is_on_record_and_ask_nothing(made: tuple[Path, SynthesisReport, Teacher]) -> None:
    out, _, teacher = made
    asked = teacher.asked.total()
    chosen = settings(out.parent / "data/questions.parquet", out, "http://127.0.0.1:9/v1")
    wider = Synthesis(direct=1, tries=1, kinds=(), rules=Rules(largest_box=1.0))
    report = run(chosen, wider, ask=False)
    # a crop of all that there is holds the evidence, but shows what the model had already
    assert [one["stage"] for one in rejections(out) if one["item"] == "q8"] == ["faithful"]
    assert teacher.asked.total() == asked
    assert report.rows == 4


def test_another_teacher_is_not_mixed_in(made: tuple[Path, SynthesisReport, Teacher]) -> None:
    out, _, teacher = made
    with serving(teacher) as url:
        chosen = settings(out.parent / "data/questions.parquet", out, url, "eval.model_revision=two")
        with pytest.raises(ChangedKey, match="revision"):
            run(chosen)


def _of(folder: Path, teacher: Teacher, names: Sequence[str], synthesis: Synthesis) -> SynthesisReport:
    questions = write_questions(folder / "data", names, teacher.scenes)
    with serving(teacher) as url:
        return run(settings(questions, folder / "out", url), synthesis)


def test_a_try_asks_for_another_kind_and_stops_once_one_is_kept(tmp_path: Path) -> None:
    teacher = Teacher(scenes(3))
    report = _of(tmp_path, teacher, ["by_request"] * 3, Synthesis(direct=1, tries=3))
    assert report.rows == 3
    kept, asked_for = report.by_kind["drawing"] + report.by_kind["visual"], report.asked_for
    assert kept == 3
    assert report.trajectories == sum(counts["tried"] for counts in asked_for.values()) < 9
    # computation is answered wrongly, whenever it is asked for
    assert asked_for.get(Kind.COMPUTATION, {"kept": 0})["kept"] == 0
    assert max(teacher.asked.values()) == 1


def test_an_easy_question_is_solved_each_time(tmp_path: Path) -> None:
    teacher = Teacher(scenes(2))
    report = _of(tmp_path, teacher, ["easy", "visual"], Synthesis(direct=3, tries=1, kinds=()))
    assert (report.easy, report.direct) == (1, (4, 3))
    # the second try without tools is for the question that the first one solved
    assert sorted(teacher.asked) == ["0/direct/0/0", "0/direct/0/1", "0/direct/0/2", "1/direct/0/0"] + [
        key for key in sorted(teacher.asked) if "/tools/" in key
    ]


def test_a_failing_endpoint_leaves_questions_undecided(tmp_path: Path) -> None:
    teacher = Teacher(scenes(1), down=True)
    questions = write_questions(tmp_path / "data", ["visual"], teacher.scenes)
    with serving(teacher) as url:
        chosen = settings(questions, tmp_path / "out", url)
        report = run(chosen)
        assert (report.undecided, report.rows, report.trajectories) == (1, 0, 0)
        teacher.down = False
        report = run(chosen)
    assert (report.undecided, report.rows) == (0, 1)


def test_a_plan_says_what_it_may_cost(made: tuple[Path, SynthesisReport, Teacher]) -> None:
    out, _, _ = made
    chosen = settings(out.parent / "data/questions.parquet", out, "http://127.0.0.1:9/v1")
    lines = list(plan_lines(chosen, ONE, lambda _: None))
    assert "12 questions" in lines[0] and "24 samples" in lines[0]
    assert lines[1:] == ["questions, direct-0: 12 answered, 0 failed", "questions, tools-0: 11 answered, 0 failed"]


@pytest.mark.parametrize(
    ("override", "said"),
    [("eval.loop=plain", "runs code"), ("eval.samples=2", "--tries"), ("eval.control=blank", "out")],
)
def test_settings_of_another_purpose_are_refused(tmp_path: Path, override: str, said: str) -> None:
    questions = write_questions(tmp_path / "data", ["visual"], scenes(1))
    with pytest.raises(UserError, match=said):
        run(settings(questions, tmp_path / "out", "http://127.0.0.1:9/v1", override))


def test_sft_reads_the_demonstrations(made: tuple[Path, SynthesisReport, Teacher], tmp_path: Path) -> None:
    out, _, _ = made
    values = {"table_dir": str(tmp_path), "pad_mode": "no_padding", "max_length": 4_000, "max_image_pixels": 1_003_520}
    tokens = tokenizer()
    found = DemonstrationDataset(
        [str(out / "sft.parquet")], tokens, OmegaConf.create(values), processor=processor("qwen2_5_vl")
    )
    items = [found[index] for index in range(len(found))]
    assert sorted(len(item["multi_modal_inputs"]["image_grid_thw"]) for item in items) == [1, 1, 2, 2]
    for item in items:
        learnt = tokens.decode(item["input_ids"][item["loss_mask"].bool()])
        assert "<answer>" in learnt and "tool_response" not in learnt and "Question" not in learnt
