"""Path of data: its stages, and what is done again when it is started again."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from recipes.cpu_demo.console import Console
from recipes.cpu_demo.runner import Runner, StageFailed
from recipes.cpu_demo.stages import Layout, Stage, plan
from recipes.data_path.paths import Study
from recipes.data_path.run import main, stages

TRAINED = [f"{arm}_seed{{}}_{what}" for arm in ("filtered", "unfiltered") for what in ("sft", "eval_sft", "rl")]


def study(folder: Path, seeds: tuple[int, ...] = (0,), questions: int = 150) -> Study:
    return Study(folder / "out", Layout(folder / "demo"), seeds, "process", questions)


def test_seeds_follow_one_another_and_data_comes_first(tmp_path: Path) -> None:
    found = stages(study(tmp_path, (0, 3)))
    runs = [[f"arms_seed{seed}", *(name.format(seed) for name in TRAINED)] for seed in (0, 3)]
    assert [stage.name for stage in found] == ["pool", "filter", "synthesize", *runs[0], *runs[1], "table"]


def test_containers_need_the_image_first(tmp_path: Path) -> None:
    assert stages(replace(study(tmp_path), backend="docker"))[0].name == "image"


def test_every_input_comes_from_an_earlier_stage_or_the_demo(tmp_path: Path) -> None:
    one, made = study(tmp_path, (0, 1)), list[Path]()
    for stage in stages(one):
        for path in stage.inputs:
            if path.is_relative_to(one.out) and path not in one.strata_files:
                # the first model is copied with the data
                assert path.name == "tiny" or any(path in (made_one, *made_one.parents) for made_one in made), (
                    stage.name
                )
        made += stage.outputs


def test_an_arm_is_trained_as_the_demo_is_on_its_own_data(tmp_path: Path) -> None:
    one = study(tmp_path, (2,))
    folder = one.out / "unfiltered" / "seed2"
    own = {stage.name: stage for stage in stages(one)}
    of_the_demo = {stage.name: stage for stage in plan(folder, (2,), "process")}
    assert own["unfiltered_seed2_sft"].command == (*of_the_demo["sft"].command, "seed=2")
    assert own["unfiltered_seed2_eval_sft"].command == of_the_demo["eval_sft"].command
    assert own["unfiltered_seed2_rl"].command == of_the_demo["rl_seed2"].command
    assert f"data.train_files={folder / 'data' / 'rl_train.parquet'}" in own["unfiltered_seed2_rl"].command
    assert own["filtered_seed2_rl"].folder != own["unfiltered_seed2_rl"].folder


def _stand_in(one: Study, stage: Stage, fail: bool) -> Stage:
    """Stage with a short program: it notes that it ran and writes its outputs, which say what they were made from."""
    code = f"""
import pathlib, sys
with open({str(one.out / "ran")!r}, "a") as ran:
    print({stage.name!r}, file=ran)
folder = pathlib.Path({str(stage.folder or one.out)!r})
folder.mkdir(parents=True, exist_ok=True)
with open(folder / {f"{stage.name}.records"!r}, "a") as records:
    print("a reply", file=records)
if {fail}:
    sys.exit(1)
inputs = [pathlib.Path(path) for path in {[str(path) for path in stage.inputs]!r}]
read = [path.read_text() for path in inputs if path.is_file()]
for path in map(pathlib.Path, {[str(path) for path in stage.outputs]!r}):
    path = path if path.suffix else path / "file"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(read) + {" ".join(stage.command)!r})
"""
    return replace(stage, command=(sys.executable, "-S", "-c", code), progress=None, timeout_s=60.0)


def _run(one: Study, failing: str = "") -> list[str]:
    """Runs the stages with stand-ins; returns those that ran."""
    one.out.mkdir(exist_ok=True)
    (one.out / "ran").write_text("")
    plan = [_stand_in(one, stage, stage.name == failing) for stage in stages(one)]
    runner = Runner(one.out, Console(), min_free_bytes=0)
    if failing:
        with pytest.raises(StageFailed, match=f"stage {failing} failed"):
            runner.run(plan)
    else:
        runner.run(plan)
    return (one.out / "ran").read_text().split()


def _names(one: Study) -> list[str]:
    return [stage.name for stage in stages(one)]


def test_it_resumes_where_it_was_and_keeps_what_was_asked(tmp_path: Path) -> None:
    one = study(tmp_path)
    assert _run(one, "filter") == ["pool", "filter"]
    kept = _stand_in(one, next(stage for stage in stages(one) if stage.name == "filter"), True)
    assert kept.folder is not None and (kept.folder / "filter.records").read_text() == "a reply\n"
    # a stage is resumed with the same command alone, so the one that fails must go on with it
    assert _run(one, "filter") == ["filter"]
    assert (kept.folder / "filter.records").read_text() == "a reply\n" * 2
    assert _run(one) == _names(one)[1:]
    assert _run(one) == ["table"]


def test_a_further_seed_leaves_the_others_alone(tmp_path: Path) -> None:
    one = study(tmp_path)
    assert _run(one) == _names(one)
    more = study(tmp_path, (0, 1))
    again = [name for name in _names(more) if "seed0" not in name and name not in ("pool", "filter", "synthesize")]
    ran = _run(more)
    assert [name for name in ran if name in again] == again
    assert not {"pool", "filter", "synthesize", "arms_seed0"} & set(ran)


def test_another_pool_is_filtered_and_trained_on_anew(tmp_path: Path) -> None:
    assert _run(study(tmp_path)) == _names(study(tmp_path))
    other = study(tmp_path, questions=300)
    assert _run(other) == _names(other)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--questions", "60"], "--questions 60: must be 150 or more"),
        (["--samples", "0"], "--samples 0: must be 1 or more"),
    ],
)
def test_what_cannot_be_run_is_said_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: Sequence[str], words: str
) -> None:
    given = ["--demo", str(tmp_path), "--out", str(tmp_path / "out")]
    assert main([*given, *arguments]) == 2
    assert f"--demo {tmp_path}: has no" in capsys.readouterr().err
    for name in ("data/rl_val.parquet", "data/test.parquet", "tiny/config.json", "sft/model/config.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert main([*given, *arguments]) == 2
    assert "has no run of RL" in capsys.readouterr().err
    (tmp_path / "rl_seed0").mkdir()
    (tmp_path / "rl_seed0" / "config.yaml").touch()
    assert main([*given, *arguments]) == 2
    assert words in capsys.readouterr().err
