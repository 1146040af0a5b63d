"""Operations of rollouts in a log, against those of demonstrations in a file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codedance_verl.errors import UserError
from codedance_verl.evaluation import operations
from codedance_verl.evaluation.operations import (
    known_from,
    lift_of,
    operation_figures,
    read_demonstrations,
    read_rollouts,
)
from codedance_verl.formats import get_format
from codedance_verl.operations.catalogue import Category
from codedance_verl.operations.novelty import Repertoire, novelty, repertoire
from recipes.cpu_demo.demo_sizes import DEMO_KINDS
from recipes.cpu_demo.demonstrations import DEMO_MIXTURE, demonstrate
from recipes.cpu_demo.tasks import generate_task
from recipes.cpu_demo.tasks.base import Split
from tests.unit.evaluation.logs import Line, answer_turn, code_turn, line, write_log

CROP = "input_image.crop((0, 0, 9, 9))"
CROP_AND_TURN = f"{CROP}.rotate(5)"


def rollout(group: str, sample: int, cells: Sequence[str], right: bool = True, *statuses: str, **given: object) -> Line:
    turns = [code_turn(statuses[number] if number < len(statuses) else "ok", code) for number, code in enumerate(cells)]
    return line(
        group,
        step=1,
        split="train",
        sample=sample,
        verdict="correct" if right else "wrong",
        turns=[*turns, answer_turn()],
        **given,  # type: ignore[arg-type]
    )


@pytest.fixture
def sft(tmp_path: Path) -> Path:
    call = get_format("code").render_call(CROP)
    rows = [[{"role": "user", "content": "<image>What?"}, {"role": "assistant", "content": f"<think>x</think>{call}"}]]
    path = tmp_path / "sft.parquet"
    pq.write_table(pa.table({"messages": rows}), path)
    return path


def test_demonstrations_of_the_demo_are_nothing_new_to_themselves(tmp_path: Path) -> None:
    rows = []
    for index in range(40):
        rng = np.random.default_rng(index)
        task = generate_task(DEMO_KINDS[index % len(DEMO_KINDS)], 0, Split.TRAIN, index)
        messages = demonstrate(rng, task, DEMO_MIXTURE).messages
        rows.append([{"role": message.role, "content": message.content} for message in messages])
    pq.write_table(pa.table({"messages": rows}), tmp_path / "sft.parquet")
    sessions = list(read_demonstrations(tmp_path / "sft.parquet"))
    known = repertoire(sessions)
    assert len(sessions) == 40 and {Category.THRESHOLD, Category.RESIZE} <= known.categories
    found = novelty(sessions, known)
    assert found.any.count == 0 and not found.calls
    assert novelty(sessions, Repertoire()).any.count > 10


def test_figures_of_a_log(tmp_path: Path, sft: Path) -> None:
    write_log(
        tmp_path,
        [
            rollout("a", 0, [CROP]),
            rollout("a", 1, [CROP_AND_TURN], right=True),
            rollout("a", 2, [], right=False),
            rollout("b", 0, ["not python !"], right=False),
            rollout("b", 1, [CROP_AND_TURN], True, "error"),
            rollout("b", 2, [CROP_AND_TURN], True, "rejected"),
            rollout("c", 0, [CROP], finish="infrastructure"),
        ],
    )
    figures = operation_figures(read_rollouts(tmp_path, "train"), known_from(sft))
    usage, new = figures.usage, figures.novelty
    assert (usage.rollouts, usage.with_code.count, usage.cells, usage.no_python) == (6, 4, 4, 1)
    assert usage.categories["crop"].count == 2 and usage.categories["rotate"].count == 1
    # a cell that failed shows nothing, one that was refused has not run
    assert new.categories == {"rotate": 1} and new.compositions == {"crop > rotate": 1}
    assert figures.lift["any on the image"].value == 1.0 and figures.lift["any on the image"].groups == 1
    # "b" has no rollout with an operation
    assert figures.lift["rotate"].value == pytest.approx(0.5) and figures.lift["rotate"].left_out == 1
    json.dumps(operations.asdict(figures))


def test_the_last_try_of_a_step_counts(tmp_path: Path) -> None:
    write_log(tmp_path, [rollout("a", 0, [CROP])], worker="w0", written_at=1.0)
    write_log(tmp_path, [rollout("a", 0, [CROP_AND_TURN])], worker="w1", written_at=2.0)
    (found,) = read_rollouts(tmp_path, "train")
    assert found.analysis.categories == {Category.CROP, Category.ROTATE}


def test_answers_without_a_verdict_have_no_lift(tmp_path: Path) -> None:
    ungraded = rollout("a", 1, [])
    ungraded["grade"]["verdict"] = "ungraded"
    write_log(tmp_path, [rollout("a", 0, [CROP]), ungraded])
    found = lift_of(read_rollouts(tmp_path, "train"), lambda session: bool(session.operations))
    assert (found.groups, found.left_out) == (0, 1)


def test_bad_input_is_one_line(tmp_path: Path) -> None:
    pq.write_table(pa.table({"other": [1]}), tmp_path / "bad.parquet")
    with pytest.raises(UserError, match="no column messages"):
        known_from(tmp_path / "bad.parquet")
    with pytest.raises(UserError, match="no rollout"):
        operation_figures([], Repertoire())


def test_the_command(
    tmp_path: Path, sft: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_log(tmp_path / "log", [rollout("a", 0, [CROP_AND_TURN])])
    monkeypatch.setattr("sys.argv", ["operations", str(tmp_path / "log"), "--sft", str(sft)])
    operations.main()
    assert json.loads(capsys.readouterr().out)["novelty"]["any"]["count"] == 1
    monkeypatch.setattr("sys.argv", ["operations", str(tmp_path / "none"), "--sft", str(sft)])
    with pytest.raises(SystemExit) as ended:
        operations.main()
    assert ended.value.code == 2 and capsys.readouterr().err.startswith("error: ")
