from __future__ import annotations

import io
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
from codedance_verl.reward.config import RewardConfig
from codedance_verl.rollout.sampling_config import SamplingConfig
from recipes.ablation.questions import main as write_questions
from recipes.ablation.results import is_kept, read_result, result_file, start_file
from recipes.ablation.results import main as write_result
from recipes.ablation.run import Plan, _run_all, main, stages
from recipes.ablation.table import BEGIN, END, read_comparison
from recipes.ablation.table import main as write_table
from recipes.ablation.variants import DEFAULT, NOT_BY_DEFAULT, VARIANTS, chosen
from recipes.cpu_demo.console import Console
from recipes.cpu_demo.runner import Runner, StageFailed
from recipes.cpu_demo.stages import Stage, rl_steps
from tests.unit.evaluation.logs import Line, line, write_log, write_test_file

OUT = Path("/nonexistent/ablation")
REPOSITORY = Path(__file__).resolve().parents[3]


def plan(
    variants: str, seeds: tuple[int, ...] = (0,), *, results: Path = OUT / "results", demo: Path | None = None
) -> Plan:
    return Plan(OUT, results, demo, chosen(variants), seeds, rl_steps(), "docker")


def test_every_variant_is_run_with_a_seed_before_any_is_with_the_next() -> None:
    names = [stage.name for stage in stages(plan("robust,outcome", (0, 1)))]
    rounds = [["outcome_seed0", "robust_seed0"], ["outcome_seed1", "robust_seed1"]]
    first, second = ([name for run in runs for name in (run, f"{run}_result")] for runs in rounds)
    shared = ["image", "data", "model", "sft", "eval_sft", "questions", "start_result"]
    assert names == [*shared, *first, "table_seed0", *second, "table"]


def test_the_estimate_of_a_run_is_that_of_the_runs_that_have_ended() -> None:
    runs = [stage for stage in stages(plan("robust,outcome", (0, 1))) if stage.alike]
    assert [run.name for run in runs] == ["outcome_seed0", "robust_seed0", "outcome_seed1", "robust_seed1"]
    assert all(set(run.alike) == {other.name for other in runs} for run in runs)


def test_the_data_and_the_model_of_a_demo_are_taken(tmp_path: Path) -> None:
    questions, start, run, *_ = stages(plan("paper", demo=tmp_path))
    assert questions.inputs == (tmp_path / "data" / "test.parquet",)
    assert {str(tmp_path / "eval_sft"), "--evaluated", str(tmp_path / "data" / "test.parquet")} <= set(start.command)
    assert run.name == "paper_seed0" and run.folder == OUT / "paper_seed0"
    assert f"data.train_files={tmp_path}/data/rl_train.parquet" in run.command
    assert f"data.val_files={OUT}/test.parquet" in run.command
    assert f"actor_rollout_ref.model.path={tmp_path}/sft/model" in run.command


def test_a_run_that_has_its_result_is_not_repeated(tmp_path: Path) -> None:
    results = tmp_path / "results"
    keep(tmp_path, "outcome", 0)
    names = [stage.name for stage in stages(plan("outcome", (0, 1), results=results, demo=tmp_path))]
    assert names == ["questions", "start_result", "outcome_seed1", "outcome_seed1_result", "table"]
    keep(tmp_path, "outcome", 1)
    keep(tmp_path, "start", 0)
    start_file(results).write_bytes(result_file(results, "start", 0).read_bytes())
    assert [stage.name for stage in stages(plan("outcome", (0, 1), results=results))] == ["table"]


def test_a_result_of_other_questions_counts_as_not_there(tmp_path: Path) -> None:
    """Those of the former demo hold no greedy answers; their version says so."""
    path = result_file(tmp_path, "outcome", 0)
    pq.write_table(pa.table({"sample": [0]}).replace_schema_metadata({"codedance": "{}"}), path)
    assert not is_kept(path) and not is_kept(tmp_path / "none.parquet")
    assert "outcome_seed0" in [stage.name for stage in stages(plan("outcome", results=tmp_path))]
    with pytest.raises(UserError, match="not the result of a run"):
        read_result(path)


def test_the_number_of_steps_is_that_of_every_run() -> None:
    *_, run, kept, _ = stages(replace(plan("paper", demo=OUT), steps=7))
    assert {"trainer.total_training_steps=7", "trainer.test_freq=7"} <= set(run.command)
    assert OUT / "paper_seed0" / "checkpoints" / "global_step_7" in run.outputs
    assert kept.command[kept.command.index("--steps") + 1] == "7"


def test_greedy_and_sampled_rows_are_evaluated_and_no_control(tmp_path: Path) -> None:
    variants = ("greedy", "sampled", "blank", "grey", "no_tools", "sampled")
    rows = [{"prompt": name, "extra_info": {"variant": name}} for name in variants]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "test.parquet")
    assert write_questions(["--test", str(tmp_path / "test.parquet"), "--out", str(tmp_path / "kept.parquet")]) == 0
    assert pq.read_table(tmp_path / "kept.parquet").to_pylist() == [rows[0], rows[1], rows[5]]


def test_every_variant_runs_by_default_but_those_that_are_named() -> None:
    by_default = {variant.name for variant in chosen(DEFAULT)}
    assert {"outcome", "per_call_bonus", "paper", "robust", "robust_ats"} <= by_default
    assert (
        by_default | set(NOT_BY_DEFAULT)
        == {variant.name for variant in VARIANTS}
        == {variant.name for variant in chosen("all")}
    )
    assert not by_default & set(NOT_BY_DEFAULT)


class Failing:
    """Stands in for the runner: stages of these names fail, and a result is kept for each other run."""

    def __init__(self, folder: Path, *names: str) -> None:
        self.folder, self.names, self.ran = folder, names, []  # type: ignore[var-annotated]

    def run(self, todo: list[Stage]) -> None:
        for stage in todo:
            if stage.name in self.names:
                raise StageFailed(f"stage {stage.name} failed", (), stage.name)
            self.ran.append(stage.name)
            if stage.name.endswith("_result") and stage.name != "start_result":
                variant, _, seed = stage.name.removesuffix("_result").rpartition("_seed")
                keep(self.folder, variant, int(seed))


def test_a_run_that_fails_is_left_out_and_the_others_are_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = plan("outcome,paper,robust", (0,), results=tmp_path / "results", demo=tmp_path)
    runner, stream = Failing(tmp_path, "paper_seed0"), io.StringIO()
    monkeypatch.setattr(Runner, "run", lambda _, todo: runner.run(todo))
    assert [failure.stage for failure in _run_all(wanted, Console(stream))] == ["paper_seed0"]
    assert {"outcome_seed0", "robust_seed0", "table"} <= set(runner.ran)
    assert "NOT MEASURED: stage paper_seed0 failed" in stream.getvalue()


@pytest.mark.parametrize("names", [("outcome_seed0", "paper_seed0"), ("questions",)])
def test_two_failures_in_a_row_end_it_and_so_does_one_of_what_all_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]
) -> None:
    wanted = plan("outcome,paper,robust", (0,), results=tmp_path / "results", demo=tmp_path)
    runner = Failing(tmp_path, *names)
    monkeypatch.setattr(Runner, "run", lambda _, todo: runner.run(todo))
    with pytest.raises(StageFailed, match=f"stage {names[-1]} failed"):
        _run_all(wanted, Console(io.StringIO()))
    assert "robust_seed0" not in runner.ran


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


SIZES = {"count_photo": 20, "count_digits": 10, "look": 10, "look_large": 10, "easy": 10}
"""Questions of each kind."""

HARD = ("count_photo", "count_digits", "look")


def answers(right: float = 0.5, called: float = 1.0, needless: float = 0.0, found: bool = False) -> list[Line]:
    """Greedy and sampled rollouts of a run: shares of hard ones that are right, and of both levels with a call."""
    lines = []
    for kind, number in SIZES.items():
        hard = kind in HARD
        for index in range(number):
            share = index / number
            solved = (found if kind == "count_digits" else share < right) if hard else True
            calls = ("ok",) if share < (called if hard else needless) else ()
            for variant in ("greedy", "sampled"):
                verdict = "correct" if solved else "wrong"
                level = "hard" if hard else "easy"
                name = f"{kind}-{index}"
                lines.append(line(name, kind=kind, difficulty=level, calls=calls, verdict=verdict, variant=variant))
    return lines


def keep(
    folder: Path,
    variant: str,
    seed: int,
    lines: list[Line] | None = None,
    *,
    steps: int = 3,
    model: str = "tiny",
    extra: list[Line] | None = None,
) -> Path:
    """A run with these rollouts, and its result; returns the result's file. `extra` is beyond the test file."""
    lines = lines or answers()
    run, test, weights = folder / "runs" / f"{variant}_seed{seed}", folder / "test.parquet", folder / model
    write_log(run / "trajectories", [*lines, *(extra or [])])
    write_test_file(test, lines)
    weights.write_text(model)
    path = result_file(folder / "results", variant, seed)
    arguments = ["--run", run, "--test", test, "--model", weights, "--steps", steps, "--out", path]
    if extra:
        write_test_file(folder / "more.parquet", [*lines, *extra])
        arguments += ["--evaluated", folder / "more.parquet"]
    assert write_result([str(item) for item in arguments]) == 0
    return path


def test_a_result_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = keep(tmp_path, "paper", 0)
    assert is_kept(path)
    assert read_result(path).evaluation == read_evaluation(
        tmp_path / "runs" / "paper_seed0" / "trajectories", tmp_path / "test.parquet"
    )


def test_an_evaluation_of_more_questions_keeps_those_of_the_comparison(tmp_path: Path) -> None:
    blank = [line("count_photo-0", variant="blank", verdict="wrong")]
    more, same = keep(tmp_path, "paper", 0, extra=blank), keep(tmp_path, "paper", 1)
    assert read_result(more).evaluation.outcomes == read_result(same).evaluation.outcomes


def test_what_cannot_be_compared_is_refused_or_said(tmp_path: Path) -> None:
    keep(tmp_path, "outcome", 0)
    keep(tmp_path, "robust", 0, model="other")
    both = chosen("outcome,robust")
    assert read_comparison(tmp_path / "results", both, (0,)).models == 2
    longer = keep(tmp_path, "robust", 0, steps=4)
    with pytest.raises(UserError, match=f"{longer}: trained or asked otherwise"):
        read_comparison(tmp_path / "results", both, (0,))
    with pytest.raises(UserError, match="no run has ended yet"):
        read_comparison(tmp_path / "results", chosen("paper"), (0,))


def test_tables_plot_and_figures_are_written_and_put_into_a_document(tmp_path: Path) -> None:
    for seed in range(3):
        for variant, right in (("outcome", 0.3), ("robust", 0.9)):
            keep(tmp_path, variant, seed, answers(right, needless=0.2 * (variant == "outcome")))
    document, out = tmp_path / "page.md", tmp_path / "new" / "folder"
    document.write_text(f"# Page\n{BEGIN}\nold\n{END}\nrest\n")
    arguments = ["--results", str(tmp_path / "results"), "--variants", "outcome,robust", "--seeds", "0,1,2"]
    assert write_table([*arguments, "--out", str(out), "--document", str(document)]) == 0
    text = (out / "ablation.md").read_text()
    assert document.read_text() == (
        f"# Page\n{BEGIN}\n{text}\n"
        f"![A panel a column; dots are seeds, bars 95 % intervals](pictures/ablation.png)\n{END}\nrest\n"
    )
    figures = json.loads((out / "ablation.json").read_text())
    assert [row["name"] for row in figures["rows"]] == ["outcome", "robust"] and figures["seeds"] == [0, 1, 2]
    for picture in (out / "ablation.png", tmp_path / "pictures" / "ablation.png"):
        with Image.open(picture) as opened:
            assert opened.format == "PNG"


def test_a_document_without_marks_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keep(tmp_path, "outcome", 0)
    (tmp_path / "page.md").write_text("# Page\n")
    arguments = ["--results", tmp_path / "results", "--out", tmp_path, "--document", tmp_path / "page.md"]
    assert write_table([str(item) for item in arguments]) == 2
    assert f"must have one line {BEGIN}" in capsys.readouterr().err


def test_the_documented_tables_are_what_the_documented_command_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As soon as there are results of the present demo; those of the former one count as not there."""
    text = (REPOSITORY / "docs" / "ablation.md").read_text()
    (command,) = re.findall(r"^python -m recipes\.ablation\.table (.*)$", text.replace("\\\n", " "), re.MULTILINE)
    monkeypatch.chdir(REPOSITORY)
    words = shlex.split(command)
    assert words[-2:] == ["--document", "docs/ablation.md"] and text.count(BEGIN) == text.count(END) == 1
    kept = [path for path in (REPOSITORY / "recipes" / "ablation" / "results").glob("*.parquet") if is_kept(path)]
    if kept:
        assert write_table([*words[:-2], "--out", str(tmp_path)]) == 0
        assert (tmp_path / "ablation.md").read_text() in text
