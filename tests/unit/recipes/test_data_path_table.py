"""Path of data: the table and its sentence, from made-up logs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codedance_verl.statistics.crossed_intervals import Estimate, Spread
from recipes.data_path.paths import ARMS, layout
from recipes.data_path.table import COLUMNS, Line, main, markdown, read_lines, verdict
from tests.unit.evaluation.logs import line, write_log, write_test_file

SEEDS = (0, 1, 2)
HARD, EASY = range(40), range(40, 60)

Right = Callable[[str, str, int, int], bool]
"""Whether an arm is right after a phase, by arm, phase, seed and question."""


def better_after_rl(arm: str, phase: str, seed: int, question: int) -> bool:
    share = {"filtered": 8, "unfiltered": 3}[arm] if phase == "RL" else 4
    return question in EASY or (question * 7 + seed) % 10 < share


def alike(arm: str, phase: str, seed: int, question: int) -> bool:
    return (question * 7 + seed + len(arm)) % 10 < 5


def make_runs(out: Path, right: Right) -> Path:
    """Runs of both arms with each seed; returns the folder of the filter."""
    for arm in ARMS:
        for seed in SEEDS:
            of = layout(out, arm, seed)
            for phase, run in (("SFT", of.eval_sft), ("RL", of.rl(seed))):
                lines = [
                    line(
                        f"q{question}",
                        variant=variant,
                        kind="look" if question in HARD else "easy",
                        difficulty="hard" if question in HARD else "easy",
                        verdict="correct" if right(arm, phase, seed, question) else "wrong",
                        calls=("ok",) if question in HARD or (arm == "unfiltered" and question % 2) else (),
                    )
                    for question in (*HARD, *EASY)
                    for variant in ("sampled", "greedy")
                ]
                write_log(run / "trajectories", lines)
                write_test_file(of.data / "test.parquet", lines)
            pq.write_table(pa.table({"a": [0] * 30}), of.data / "sft.parquet")
            pq.write_table(pa.table({"a": [0] * 25}), of.data / "rl_train.parquet")
    strata = out / "filter"
    strata.mkdir()
    (strata / "filter.json").write_text(json.dumps({"strata": {"easy": 20, "medium": 15, "hard": 10}}))
    return strata


def written(out: Path, right: Right) -> str:
    strata = make_runs(out, right)
    assert main(["--out", str(out), "--strata", str(strata), "--seeds", "0,1,2"]) == 0
    return (out / "data_path.md").read_text()


def test_what_is_better_after_rl_is_said_with_its_interval(tmp_path: Path) -> None:
    text = written(tmp_path, better_after_rl)
    assert text.startswith(
        "Filtered data is better than unfiltered data of equal size in greedy accuracy on hard questions after RL: "
        "+50.0 points ("
    )
    assert "Strata of 45 questions: 20 easy, 15 medium, 10 hard." in text
    assert "Each arm has 30 demonstrations and 25 questions for RL." in text
    rows = [row for row in text.splitlines() if row.startswith(("| SFT", "| RL"))]
    assert [row.split(" | ")[1] for row in rows] == [column.title for column in COLUMNS] * 2
    assert "| RL | needless calls | 0.0% (" in text and "| 50.0% (" in text and "| -50.0 (" in text


def test_what_is_alike_is_not_told_apart(tmp_path: Path) -> None:
    text = written(tmp_path, alike)
    assert text.startswith("Filtered and unfiltered data of equal size are not told apart by greedy accuracy on hard")
    found = json.loads((tmp_path / "data_path.json").read_text())
    assert found["verdict"] == text.splitlines()[0]
    assert len(found["lines"]) == 10


def test_lines_have_both_phases_and_all_seeds(tmp_path: Path) -> None:
    make_runs(tmp_path, better_after_rl)
    found = {(one.after, one.column): one for one in read_lines(tmp_path, SEEDS)}
    before, after = found["SFT", "greedy_hard"], found["RL", "greedy_hard"]
    assert before.difference is not None and before.difference.value == 0
    assert after.filtered is not None and after.filtered.value == pytest.approx(0.8)
    assert after.unfiltered is not None and after.unfiltered.value == pytest.approx(0.3)
    # a single seed more than those that are there is said
    assert main(["--out", str(tmp_path), "--strata", str(tmp_path / "filter"), "--seeds", "0,7"]) == 2


def decided(low: float, high: float) -> Line:
    estimate = Estimate((low + high) / 2, low, high, Spread(0.0, 0.0, 0.0, 0.0))
    return Line("RL", "greedy_hard", "greedy accuracy, hard", None, None, estimate)


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.01, 0.05, "Filtered data is better than"),
        (-0.05, -0.01, "Filtered data is worse than"),
        (-0.01, 0.05, "are not told apart"),
    ],
)
def test_the_interval_of_the_difference_decides(low: float, high: float, words: str) -> None:
    sentence = verdict([decided(low, high)], 3)
    assert words in sentence
    assert f"({100 * low:+.1f} to {100 * high:+.1f}), 3 seeds" in sentence


def test_fewer_than_three_seeds_decide_nothing() -> None:
    assert "takes 3 seeds, and there are 2" in verdict([decided(0.2, 0.3)], 2)
    assert "was not measured" in verdict([], 3)
    assert "| RL | greedy accuracy, hard | n/a | n/a | +25.0 (+20.0 to +30.0) |" in markdown([decided(0.2, 0.3)], 2)
