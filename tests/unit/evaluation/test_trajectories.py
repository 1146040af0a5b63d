from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from codedance_verl.errors import UserError
from codedance_verl.trajectories import schema
from codedance_verl.trajectories.reader import TrajectoryReader
from codedance_verl.trajectories.writer import TrajectoryLog
from codedance_verl.types import (
    Execution,
    ExecutionError,
    ExecutionStatus,
    FinishReason,
    Grade,
    Observation,
    RenderedImage,
    RewardTerms,
    Trajectory,
    Turn,
    Verdict,
)
from tests.unit.evaluation.logs import line, png, write_log


def test_reads_what_the_rollout_worker_writes(tmp_path: Path) -> None:
    picture = RenderedImage("0" * 64, 8, 6, png("blue"))
    failed = Execution(ExecutionStatus.ERROR, error=ExecutionError("KeyError", "'x'", "line 2"), duration_s=0.25)
    shown = Execution(ExecutionStatus.OK, stdout="7\n", images=(picture,), queue_s=0.5, truncated=("stdout",))
    rollout = Trajectory(
        record_id="digits-3",
        data_source="codedance_demo/digits",
        question="Wie viele «Ä»?",
        ground_truth="7",
        turns=(
            Turn("a", 0, 2, "x", failed, Observation("no")),
            Turn("b", 4, 6, "y", shown, Observation("yes", 1)),
            Turn("<answer>7</answer>", 8, 9),
        ),
        finish=FinishReason.ANSWER,
        answer="7",
    )
    terms = RewardTerms(accuracy=1, format=0, difficulty=0.25, sequence=0.5, score=1.5, turns=(-0.5, 0, 0))
    TrajectoryLog(tmp_path, "worker").write(
        rollout,
        Grade(Verdict.CORRECT, "number", "7 = 7"),
        terms,
        step=12,
        split="train",
        group="g",
        sample=3,
        extra_info={"kind": "digits", "difficulty": "hard", "variant": None},
        input_images=[Image.new("RGB", (5, 4))],
        timing={"generate_s": 1.5, "execute_s": 0.25, "queue_s": 0.5, "total_s": 3},
    )
    (read,) = TrajectoryReader(tmp_path, "train")
    assert (read.step, read.sample, read.record_id, read.kind, read.difficulty) == (12, 3, "digits-3", "digits", "hard")
    assert read.question == "Wie viele «Ä»?" and read.variant is None
    assert [turn.observation for turn in read.turns] == ["no", "yes", None]
    assert [turn.images_shown for turn in read.turns] == [0, 1, None] and read.version == schema.VERSION
    first, second = read.executions
    assert first.error == failed.error and not first.succeeded
    assert second.succeeded and second.stdout == "7\n" and second.truncated == ("stdout",) and second.queue_s == 0.5
    assert second.images[0].file(tmp_path).read_bytes() == picture.png
    assert (read.input_images[0].width, read.input_images[0].height) == (5, 4)
    assert read.reward.turns == (-0.5, 0, 0) and read.reward.score == 1.5 and not read.reward.masked
    assert read.timing.generate_s == 1.5 and read.timing.total_s == 3
    assert read.grade.verdict is Verdict.CORRECT


def test_files_come_by_step_then_by_time_of_writing(tmp_path: Path) -> None:
    write_log(tmp_path, [line("late", step=2)], written_at=1_000)
    write_log(tmp_path, [line("second", step=1)], worker="a", written_at=3_000)
    write_log(tmp_path, [line("first", step=1)], worker="b", written_at=2_000)
    (tmp_path / "val" / "notes.txt").write_text("not a log")
    assert [item.record_id for item in TrajectoryReader(tmp_path, "val")] == ["first", "second", "late"]


def test_the_unfinished_last_line_of_a_killed_writer_is_counted(tmp_path: Path) -> None:
    write_log(tmp_path, [line("a"), line("b")], tail='{"step": 0, "spl')
    reader = TrajectoryReader(tmp_path, "val")
    assert [item.record_id for item in reader] == ["a", "b"]
    assert reader.cut_off == 1


def test_a_last_line_that_lacks_only_its_newline_counts(tmp_path: Path) -> None:
    write_log(tmp_path, [line("a")], tail=json.dumps(line("b")))
    reader = TrajectoryReader(tmp_path, "val")
    assert [item.record_id for item in reader] == ["a", "b"] and reader.cut_off == 0


@pytest.mark.parametrize("broken", ["{", "[]", "\x00\x00", '{"step": 1}'])
def test_any_other_broken_line_is_an_error_that_names_file_and_line(tmp_path: Path, broken: str) -> None:
    (path,) = write_log(tmp_path, [line("a")], tail=f"{broken}\n{json.dumps(line('b'))}\n")
    with pytest.raises(UserError, match=f"{path}:2: not a rollout"):
        list(TrajectoryReader(tmp_path, "val"))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"finish": "gave_up"}, "finish: Invalid enum value 'gave_up', must be one of answer"),
        ({"sample": "0"}, "sample: Expected `int`, got `str`"),
        ({"sample": True}, "sample: Expected `int`, got `bool`"),
        ({"turns": None}, "turns: Expected `array`, got `null`"),
        ({"grade": {"verdict": "correct"}}, "grade: Object missing required field `rung`"),
        (
            {"input_images": [{"sha256": "../../etc/passwd", "width": 1, "height": 1}]},
            r"input_images\[0\].sha256: Expected",
        ),
        ({"reward": {"accuracy": "1"}}, "reward.accuracy: Expected `float`, got `str`"),
    ],
)
def test_a_field_that_does_not_fit_is_named(tmp_path: Path, change: dict[str, Any], complaint: str) -> None:
    write_log(tmp_path, [{**line(), **change}])
    with pytest.raises(UserError, match=complaint):
        list(TrajectoryReader(tmp_path, "val"))


def test_an_endless_line_is_refused_before_it_fills_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "MAX_LINE_BYTES", 10_000)
    write_log(tmp_path, [line("a"), line("b", question="x" * 20_000)])
    with pytest.raises(UserError, match=r"jsonl:2: longer than"):
        list(TrajectoryReader(tmp_path, "val"))


def test_reading_is_lazy(tmp_path: Path) -> None:
    write_log(tmp_path, [line("a")], tail="broken\n")
    assert next(iter(TrajectoryReader(tmp_path, "val"))).record_id == "a"


def test_no_log_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no trajectory log at .*save_trajectories=true"):
        list(TrajectoryReader(tmp_path, "val"))
