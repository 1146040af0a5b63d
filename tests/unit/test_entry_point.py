"""What every main does with a command line that is no run: help, mistakes, the configuration as composed."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from codedance_verl.entry_point import run_cli


def _never(config: object) -> None:
    pytest.fail("it ran")


def _told(capsys: pytest.CaptureFixture[str], *arguments: str, name: str = "train") -> list[str]:
    assert run_cli(name, [*arguments], _never, _never) == 2  # type: ignore[arg-type]
    return capsys.readouterr().err.splitlines()


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_says_how_to_call_it(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("sft", [flag], _never, _never) == 0  # type: ignore[arg-type]
    assert capsys.readouterr().out.startswith("usage: python -m codedance_verl.sft ")


def test_the_configuration_is_printed_without_a_run_dir(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("train", ["hardware=cpu", "--cfg", "job", "seed=7"], _never, _never) == 0  # type: ignore[arg-type]
    assert OmegaConf.create(capsys.readouterr().out).seed == 7


@pytest.mark.parametrize("argument", ["bogus", "--dry-run", "run_dir"])
def test_what_is_no_override_is_told(argument: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _told(capsys, "run_dir=o", argument) == [
        f"error: {argument}: must be KEY=VALUE; --help says what else there is"
    ]


def test_only_the_job_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = _told(capsys, "--cfg", "jobs")
    assert line.startswith("error: --cfg: must be `--cfg job`")


@pytest.mark.parametrize(
    ("name", "recipe", "known"),
    [
        ("train", "codedance_7b_sft", "codedance_7b, codedance_7b_async, cpu_demo, ppo"),
        ("train", "foo", "codedance_7b, codedance_7b_async, cpu_demo, ppo"),
        ("evaluate", "codedance_7b_sft", "codedance_7b, codedance_7b_async, codedance_7b_eval, cpu_demo, ppo"),
        ("sft", "cpu_demo", "codedance_7b_sft"),
    ],
)
def test_a_recipe_of_another_main_names_those_of_this_one(
    name: str, recipe: str, known: str, capsys: pytest.CaptureFixture[str]
) -> None:
    told = _told(capsys, "hardware=cpu", "run_dir=o", f"recipe={recipe}", name=name)
    assert told == [f"error: recipe={recipe}: must be one of {known}"]
