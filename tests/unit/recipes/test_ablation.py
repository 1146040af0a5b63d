from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from codedance_verl.config import compose_config
from codedance_verl.errors import UserError
from codedance_verl.evaluation.report import Figure
from codedance_verl.reward.config import RewardConfig
from codedance_verl.rollout.sampling_config import SamplingConfig
from recipes.ablation.questions import main as write_questions
from recipes.ablation.run import main, stages
from recipes.ablation.table import Row, markdown, read_rows, verdict, write
from recipes.ablation.variants import VARIANTS, chosen
from recipes.cpu_demo.stages import rl_steps
from tests.unit.evaluation.logs import line, write_log, write_test_file

OUT = Path("/nonexistent/ablation")


def test_every_variant_and_seed_is_a_run_between_what_they_share_and_the_table() -> None:
    names = [stage.name for stage in stages(OUT, None, chosen("robust,outcome"), (0, 1), "docker")]
    shared = ["image", "data", "model", "sft", "eval_sft"]
    assert names == [*shared, "questions", "outcome_seed0", "robust_seed0", "outcome_seed1", "robust_seed1", "table"]


def test_the_data_and_the_model_of_a_demo_are_taken(tmp_path: Path) -> None:
    questions, run, *_ = stages(OUT, tmp_path, chosen("paper"), (0,), "process")
    assert questions.inputs == (tmp_path / "data" / "test.parquet",)
    assert run.name == "paper_seed0" and run.folder == OUT / "paper_seed0"
    assert f"data.train_files={tmp_path}/data/rl_train.parquet" in run.command
    assert f"data.val_files={OUT}/test.parquet" in run.command
    assert f"actor_rollout_ref.model.path={tmp_path}/sft/model" in run.command


def test_only_sampled_rows_are_evaluated(tmp_path: Path) -> None:
    rows = [{"prompt": name, "extra_info": {"variant": name}} for name in ("greedy", "sampled", "blank", "sampled")]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "test.parquet")
    assert write_questions(["--test", str(tmp_path / "test.parquet"), "--out", str(tmp_path / "kept.parquet")]) == 0
    assert pq.read_table(tmp_path / "kept.parquet").to_pylist() == [rows[1], rows[3]]


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_a_variant_composes_and_draws_as_many_rollouts_as_the_others(variant: object) -> None:
    (stage,) = (item for item in stages(OUT, OUT, VARIANTS, (0,), "process") if item.name == f"{variant.name}_seed0")  # type: ignore[attr-defined]
    config = compose_config("train", ["hardware=cpu", *stage.command[3:]])
    RewardConfig.from_mapping(config.reward_preset)
    rollouts = SamplingConfig.from_mapping(config.sampling).drawn(config.actor_rollout_ref.rollout.n)
    assert (rollouts, config.trainer.total_training_steps) == (8, rl_steps())


def test_unknown_variants_and_unfinished_demos_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="--variants best: 'best' is none of outcome, per_call_bonus"):
        chosen("best")
    assert main(["--demo", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "has no" in capsys.readouterr().err


def figure(value: float, spread: float = 0.02) -> Figure:
    return Figure(value, value - spread, value + spread, 100, (value - 0.01, value + 0.01))


def rows(**accuracy: float) -> list[Row]:
    known = {variant.name: variant for variant in VARIANTS}
    one = figure(0.5)
    return [
        Row(known[name], figure(value), one, one, figure(2.0), one, None if name == "outcome" else figure(0.1))
        for name, value in accuracy.items()
    ]


@pytest.mark.parametrize(
    ("accuracy", "said"),
    [
        ({"outcome": 0.6, "robust": 0.5}, "`robust` does not win: `outcome` is 10.0% ahead in accuracy."),
        (
            {"outcome": 0.6, "robust": 0.61},
            "`robust` is 1.0% ahead of the next, `outcome`, in accuracy; their intervals o",
        ),
        (
            {"outcome": 0.6, "robust": 0.7},
            "`robust` is 10.0% ahead of the next, `outcome`, in accuracy; their intervals d",
        ),
        ({"outcome": 0.6}, "`robust` is not compared."),
    ],
)
def test_it_is_said_plainly_whether_robust_wins(accuracy: dict[str, float], said: str) -> None:
    assert verdict(rows(**accuracy)).startswith(said)


def test_figures_come_from_the_evaluation_of_every_run(tmp_path: Path) -> None:
    """Of two questions `outcome` answers one, `robust` both, with code on the hard one; both seeds alike."""
    questions = (("q0", "easy", ()), ("q1", "hard", ("ok",)))
    for seed in (0, 1):
        for name, right in (("outcome", ("q0",)), ("robust", ("q0", "q1"))):
            lines = [
                line(item, difficulty=level, calls=calls, verdict="correct" if item in right else "wrong")
                for item, level, calls in questions
            ]
            write_log(tmp_path / f"{name}_seed{seed}" / "trajectories", lines)
    test_file = write_test_file(tmp_path / "test.parquet", lines)
    outcome, robust = read_rows(tmp_path, test_file, chosen("outcome,robust"), (0, 1))
    assert (outcome.accuracy.value, robust.accuracy.value) == (0.5, 1.0)
    assert (robust.easy_tool_rate.value, robust.hard_tool_rate.value, robust.turns.value) == (0.0, 1.0, 1.5)
    assert outcome.over_baseline is None
    assert robust.over_baseline is not None and robust.over_baseline.value == 0.5


def test_table_plot_and_figures_are_written(tmp_path: Path) -> None:
    found = rows(outcome=0.6, robust=0.7)
    write(found, (0, 1), tmp_path)
    table = markdown(found, (0, 1)).splitlines()
    assert table[2].startswith("| `outcome`, accuracy and format | 60.0% (58.0% to 62.0%) | 2.00 (1.98 to 2.02) |")
    assert table[3].endswith("| +10.0% (+8.0% to +12.0%) |")
    assert json.loads((tmp_path / "ablation.json").read_text())["rows"][1]["accuracy"]["value"] == 0.7
    with Image.open(tmp_path / "ablation.png") as picture:
        assert picture.format == "PNG"
