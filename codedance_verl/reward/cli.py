"""`codedance reward`: what a reward gives to rollouts, and why."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from codedance_verl.errors import UserError
from codedance_verl.grading.config import GradingConfig
from codedance_verl.reward.config import RewardConfig
from codedance_verl.reward.presets import PRESETS

reward_app = typer.Typer(help="Rewards of rollouts, term by term.", no_args_is_help=True)


@reward_app.callback()
def _group() -> None:
    """Keeps `explain` a command of its own: typer would make a lone command the application."""


@reward_app.command("explain")
def explain_command(
    file: Annotated[Path, typer.Argument(help="Rollouts, one JSON a line (docs/reward.md).")],
    preset: Annotated[str, typer.Option(help=f"One of {', '.join(PRESETS)}.")] = "robust",
    constants: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Replace a constant of the preset.")
    ] = None,
    grading: Annotated[
        list[str] | None, typer.Option("--grading", metavar="KEY=VALUE", help="Replace a setting of grading.")
    ] = None,
    regrade: Annotated[bool, typer.Option("--regrade", help="Grade lines that bring a verdict too.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Write a PNG of d(mu) and the terms of one group.")] = None,
    group: Annotated[str | None, typer.Option(help="The group to draw (default: the first).")] = None,
) -> None:
    """Grade and score rollouts as one batch; the same lines come out with their terms and advantages."""
    from codedance_verl.reward.explain import explain
    from codedance_verl.reward.rollout_lines import read_rollouts

    config = _config(preset, constants or [])
    explained = explain(read_rollouts(file), config, _grading(grading or []), regrade=regrade)
    for item in explained:
        sys.stdout.write(json.dumps(item.as_record()) + "\n")
    if plot is not None:
        _draw(explained, group, config, plot)


def _config(preset: str, constants: list[str]) -> RewardConfig:
    if preset not in PRESETS:
        raise UserError(f"--preset {preset}: must be one of {', '.join(PRESETS)}")
    values = _constants(constants, "--set", "gamma=2")
    return RewardConfig.from_mapping({**values, "preset": preset})


def _grading(settings: list[str]) -> GradingConfig:
    values = _constants(settings, "--grading", "custom=my_grader:grade")
    if "judge" in values:
        raise UserError("--grading judge: no judge is asked here; answers that only one could grade are ungraded")
    return GradingConfig.from_mapping(values)


def _constants(items: list[str], option: str, example: str) -> dict[str, Any]:
    merged: Any = OmegaConf.to_container(OmegaConf.merge({}, *(_constant(item, option, example) for item in items)))
    return dict(merged)


def _constant(item: str, option: str, example: str) -> DictConfig:
    """Returns the constant that KEY=VALUE sets, below the nodes that its key names; the value is read as YAML."""
    key, equals, _ = item.partition("=")
    if not equals or not all(part.isidentifier() for part in key.split(".")):
        raise UserError(f"{option} {item}: must be KEY=VALUE, such as {example}")
    try:
        return OmegaConf.from_dotlist([item])
    except (OmegaConfBaseException, yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{option} {item}: the value of {key} cannot be read ({reason})") from None


def _draw(explained: list[Any], group: str | None, config: RewardConfig, path: Path) -> None:
    from codedance_verl.reward.plots import draw

    name = explained[0].line.group if group is None else group
    members = [item for item in explained if item.line.group == name]
    if not members:
        known = ", ".join(sorted({item.line.group for item in explained})[:10])
        raise UserError(f"--group {name}: no such group in the file; there are {known}")
    try:
        draw(members, config, path)
    except OSError as error:
        raise UserError(f"--plot {path}: cannot be written ({error.strerror}); choose another file") from None
