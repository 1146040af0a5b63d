from __future__ import annotations

import json
from pathlib import Path

from recipes.cpu_demo.progress import Progress, evaluation_progress, in_turn, training_progress
from tests.unit.evaluation.experiment import make_training
from tests.unit.evaluation.logs import line, write_log, write_test_file


def test_a_training_run_says_step_reward_accuracy_tools_and_what_is_left(tmp_path: Path) -> None:
    make_training(tmp_path, steps=3)
    assert training_progress(tmp_path, 16)() == Progress(
        "step 3/16, reward 0.50, accuracy 75%, tools easy 0%, tools hard 100%", 130.0
    )


def test_fine_tuning_says_its_loss(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 40, "data": {"train/loss": 1.25}}) + "\n")
    assert training_progress(tmp_path)() == Progress("step 40, loss 1.250")
    assert training_progress(tmp_path, 200)() == Progress("step 40/200, loss 1.250", done=0.2)


def test_what_is_left_follows_from_the_share_done() -> None:
    assert Progress("", done=0.2).seconds_left(30.0) == 120.0
    assert Progress("", remaining_s=7.0, done=0.2).seconds_left(30.0) == 7.0
    assert Progress("").seconds_left(30.0) is None


def test_before_the_first_step_there_is_nothing_to_say(tmp_path: Path) -> None:
    assert training_progress(tmp_path / "absent", 16)() is None


def test_a_broken_file_never_ends_a_stage(tmp_path: Path) -> None:
    make_training(tmp_path)
    write_log(tmp_path / "trajectories", [line(step=3, split="train")], tail="broken\n", worker="x")
    assert training_progress(tmp_path, 16)() is None


def test_an_evaluation_counts_its_rollouts(tmp_path: Path) -> None:
    asked = [line("a"), line("a", variant="greedy"), line("b")]
    test_file = write_test_file(tmp_path / "test.parquet", asked)
    progress = evaluation_progress(tmp_path / "run", test_file)
    assert progress() is None
    write_log(tmp_path / "run" / "trajectories", asked[:2], tail='{"unfinished')
    assert progress() == Progress("2/3 rollouts evaluated")


def test_of_two_sources_the_later_one_takes_over() -> None:
    said: list[Progress | None] = [None, Progress("late")]
    look = in_turn(lambda: said.pop(0), lambda: Progress("early"))
    assert [look(), look()] == [Progress("early"), Progress("late")]
