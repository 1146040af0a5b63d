from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from codedance_verl.config.compose import compose_config
from codedance_verl.errors import UserError
from codedance_verl.evaluation.outcomes import read_evaluation
from codedance_verl.evaluation.report import Figure
from codedance_verl.reward.config import RewardConfig
from codedance_verl.rollout.sampling_config import SamplingConfig
from recipes.ablation.questions import main as write_questions
from recipes.ablation.results import main as write_result
from recipes.ablation.results import read_result, result_file
from recipes.ablation.run import Plan, main, stages
from recipes.ablation.table import Row, markdown, origin_text, read_results, read_rows, verdict, write
from recipes.ablation.table import main as write_table
from recipes.ablation.variants import VARIANTS, chosen
from recipes.cpu_demo.stages import rl_steps
from tests.unit.evaluation.logs import line, write_log, write_test_file

OUT = Path("/nonexistent/ablation")
REPOSITORY = Path(__file__).resolve().parents[3]


def plan(
    variants: str, seeds: tuple[int, ...] = (0,), *, results: Path = OUT / "results", demo: Path | None = None
) -> Plan:
    return Plan(OUT, results, demo, chosen(variants), seeds, rl_steps(), "docker")


def test_every_variant_and_seed_is_a_run_between_what_they_share_and_the_table() -> None:
    names = [stage.name for stage in stages(plan("robust,outcome", (0, 1)))]
    runs = ["outcome_seed0", "robust_seed0", "outcome_seed1", "robust_seed1"]
    runs_and_results = [name for run in runs for name in (run, f"{run}_result")]
    assert names == ["image", "data", "model", "sft", "questions", *runs_and_results, "table"]


def test_the_data_and_the_model_of_a_demo_are_taken(tmp_path: Path) -> None:
    questions, run, *_ = stages(plan("paper", demo=tmp_path))
    assert questions.inputs == (tmp_path / "data" / "test.parquet",)
    assert run.name == "paper_seed0" and run.folder == OUT / "paper_seed0"
    assert f"data.train_files={tmp_path}/data/rl_train.parquet" in run.command
    assert f"data.val_files={OUT}/test.parquet" in run.command
    assert f"actor_rollout_ref.model.path={tmp_path}/sft/model" in run.command


def test_a_run_that_has_its_result_is_not_repeated(tmp_path: Path) -> None:
    result_file(tmp_path, "outcome", 0).touch()
    names = [stage.name for stage in stages(plan("outcome", (0, 1), results=tmp_path, demo=tmp_path))]
    assert names == ["questions", "outcome_seed1", "outcome_seed1_result", "table"]
    result_file(tmp_path, "outcome", 1).touch()
    assert [stage.name for stage in stages(plan("outcome", (0, 1), results=tmp_path))] == ["table"]


def test_the_number_of_steps_is_that_of_every_run() -> None:
    _, run, kept, _ = stages(replace(plan("paper", demo=OUT), steps=7))
    assert {"trainer.total_training_steps=7", "trainer.test_freq=7"} <= set(run.command)
    assert OUT / "paper_seed0" / "checkpoints" / "global_step_7" in run.outputs
    assert kept.command[kept.command.index("--steps") + 1] == "7"


def test_only_sampled_rows_are_evaluated(tmp_path: Path) -> None:
    rows = [{"prompt": name, "extra_info": {"variant": name}} for name in ("greedy", "sampled", "blank", "sampled")]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "test.parquet")
    assert write_questions(["--test", str(tmp_path / "test.parquet"), "--out", str(tmp_path / "kept.parquet")]) == 0
    assert pq.read_table(tmp_path / "kept.parquet").to_pylist() == [rows[1], rows[3]]


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_a_variant_composes_and_draws_as_many_rollouts_as_the_others(variant: object) -> None:
    name = f"{variant.name}_seed0"  # type: ignore[attr-defined]
    (stage,) = (item for item in stages(plan("all", demo=OUT)) if item.name == name)
    config = compose_config("train", ["hardware=cpu", *stage.command[3:]])
    RewardConfig.from_mapping(config.reward_preset)
    rollouts = SamplingConfig.from_mapping(config.sampling).drawn(config.actor_rollout_ref.rollout.n)
    assert (rollouts, config.trainer.total_training_steps) == (8, rl_steps())


def test_unknown_variants_and_unfinished_demos_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="--variants best: 'best' is none of outcome, per_call_bonus"):
        chosen("best")
    assert main(["--demo", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "has no" in capsys.readouterr().err
    assert main(["--steps", "0", "--out", str(tmp_path / "out")]) == 2
    assert "--steps 0: must be 1 or more" in capsys.readouterr().err


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


QUESTIONS = (("q0", "easy", ()), ("q1", "hard", ("ok",)))


def keep(folder: Path, variant: str, seed: int, right: tuple[str, ...], *, steps: int = 3, model: str = "tiny") -> Path:
    """A run whose evaluation has these answers right, and its result; returns the result's file."""
    lines = [
        line(item, difficulty=level, calls=calls, verdict="correct" if item in right else "wrong")
        for item, level, calls in QUESTIONS
    ]
    run, test, weights = folder / f"{variant}_seed{seed}", folder / "test.parquet", folder / model
    write_log(run / "trajectories", lines)
    write_test_file(test, lines)
    weights.write_text(model)
    path = result_file(folder / "results", variant, seed)
    arguments = ["--run", run, "--test", test, "--model", weights, "--steps", steps, "--out", path]
    assert write_result([str(item) for item in arguments]) == 0
    return path


def test_figures_come_from_the_evaluation_of_every_run(tmp_path: Path) -> None:
    """Of two questions `outcome` answers one, `robust` both, with code on the hard one; both seeds alike."""
    for seed in (0, 1):
        keep(tmp_path, "outcome", seed, ("q0",))
        keep(tmp_path, "robust", seed, ("q0", "q1"))
    compared, seeds = chosen("outcome,robust"), (0, 1)
    results = read_results(tmp_path / "results", compared, seeds)
    outcome, robust = read_rows(results, compared, seeds)
    assert (outcome.accuracy.value, robust.accuracy.value) == (0.5, 1.0)
    assert (robust.easy_tool_rate.value, robust.hard_tool_rate.value, robust.turns.value) == (0.0, 1.0, 1.5)
    assert outcome.over_baseline is None
    assert robust.over_baseline is not None and robust.over_baseline.value == 0.5
    assert origin_text(results) == "3 steps each, from the same SFT model."


def test_a_result_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = keep(tmp_path, "paper", 0, ("q1",))
    assert read_result(path).evaluation == read_evaluation(
        tmp_path / "paper_seed0" / "trajectories", tmp_path / "test.parquet"
    )


def test_what_cannot_be_compared_is_refused_or_said(tmp_path: Path) -> None:
    keep(tmp_path, "outcome", 0, ("q0",))
    keep(tmp_path, "robust", 0, ("q0",), model="other")
    both = chosen("outcome,robust")
    assert origin_text(read_results(tmp_path / "results", both, (0,))) == "3 steps each, from 2 SFT models."
    longer = keep(tmp_path, "robust", 0, ("q0",), steps=4)
    with pytest.raises(UserError, match=f"{longer}: trained or asked otherwise"):
        read_results(tmp_path / "results", both, (0,))
    longer.write_text("no parquet")
    for seed in (0, 1):
        with pytest.raises(UserError, match=f"robust_seed{seed}.parquet: not the result of a run"):
            read_results(tmp_path / "results", chosen("robust"), (seed,))


def test_table_plot_and_figures_are_written(tmp_path: Path) -> None:
    found = rows(outcome=0.6, robust=0.7)
    out = tmp_path / "new" / "folder"
    write(found, (0, 1), "9 steps each.", out)
    text = (out / "ablation.md").read_text()
    assert text == markdown(found, (0, 1), "9 steps each.") and "2 seeds; 9 steps each. 95 % intervals." in text
    table = text.splitlines()
    assert table[2].startswith("| `outcome`, accuracy and format | 60.0% (58.0% to 62.0%) | 2.00 (1.98 to 2.02) |")
    assert table[3].endswith("| +10.0% (+8.0% to +12.0%) |")
    assert markdown(found, (0,), "9 steps each.").splitlines()[-1].startswith("1 seed; 9 steps each.")
    assert json.loads((out / "ablation.json").read_text())["rows"][1]["accuracy"]["value"] == 0.7
    with Image.open(out / "ablation.png") as picture:
        assert picture.format == "PNG"


def test_the_documented_table_is_what_the_documented_command_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (REPOSITORY / "docs" / "ablation.md").read_text()
    (command,) = re.findall(r"^python -m recipes\.ablation\.table (.*)$", text.replace("\\\n", " "), re.MULTILINE)
    monkeypatch.chdir(REPOSITORY)
    assert write_table([*shlex.split(command), "--out", str(tmp_path)]) == 0
    assert (tmp_path / "ablation.md").read_text() in text
