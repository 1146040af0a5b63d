"""Composes the Hydra tree of `conf/` over verl's own and turns its errors into one line each."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from codedance_verl import hardware
from codedance_verl.errors import UserError

CONF_DIR = Path(__file__).resolve().parent.parent / "conf"
VERL_CONFIGS = "pkg://verl.trainer.config"


@dataclass(frozen=True)
class Composed:
    """A configuration, and a line for every override that was left out because there is no such key or option.

    `config` is None where what is wrong cannot be left out.
    """

    config: DictConfig | None
    mistakes: tuple[str, ...] = ()


def compose_config(name: str, overrides: list[str], complete: bool = True) -> DictConfig:
    """The configuration `name` of `conf/` with command-line overrides applied and every interpolation resolvable.

    Args:
        name: train, evaluate, sft or serve.
        overrides: as Hydra reads them.
        complete: whether `run_dir` must be given.

    Raises:
        UserError: unknown keys or group options, a missing mandatory value, or an override that cannot be parsed; one
            line each, which names the dotted key.
    """
    composed = compose_leniently(name, overrides, complete)
    if composed.config is None or composed.mistakes:
        raise UserError("\n".join(composed.mistakes))
    return composed.config


def compose_leniently(name: str, overrides: list[str], complete: bool = True) -> Composed:
    """As `compose_config`, but overrides that name no key or option are left out and told, so that all can be told."""
    known = {f"recipe={recipe}" for recipe in [*_recipes(name), "null"]}
    strange = [item for item in overrides if item.startswith("recipe=") and item not in known]
    mistakes = [f"{item}: must be one of {', '.join(_recipes(name))}" for item in strange]
    rest = hardware.resolve([item for item in overrides if item not in strange])
    while True:
        try:
            config = _compose(name, rest)
        except (HydraException, OmegaConfBaseException) as error:
            mistakes.append(_explain(error, name))
            fewer = _without_culprit(rest, error)
            if len(fewer) == len(rest):
                return Composed(None, tuple(mistakes))
            rest = fewer
            continue
        if complete and OmegaConf.is_missing(config, "run_dir"):
            return Composed(None, (*mistakes, "run_dir: no value given; add run_dir=... to the command"))
        if complete and (unusable := list(_unusable(config))):
            return Composed(None, (*mistakes, *unusable))
        return Composed(config, tuple(mistakes))


def _recipes(name: str) -> list[str]:
    """The recipes of the configuration `name`: the end of a recipe's name says whose it is."""
    every = sorted(path.stem for path in (CONF_DIR / "recipe").glob("*.yaml"))
    if name == "sft":
        return [recipe for recipe in every if recipe.endswith("_sft")]
    others = ("_sft",) if name == "evaluate" else ("_sft", "_eval")
    return [recipe for recipe in every if not recipe.endswith(others)]


def _compose(name: str, overrides: list[str]) -> DictConfig:
    hardware.register()
    GlobalHydra.instance().clear()
    with initialize_config_dir(config_dir=str(CONF_DIR), version_base=None):
        return compose(name, overrides=[f"hydra.searchpath=[{VERL_CONFIGS}]", *overrides])


def _unusable(config: DictConfig) -> Iterator[str]:
    """What is wrong with the keys that are read before a configuration is examined."""
    run_dir, env_vars = (OmegaConf.select(config, key) for key in ("run_dir", "env_vars"))
    if "run_dir" in config and (not isinstance(run_dir, str) or not run_dir):
        yield f"run_dir={run_dir}: must be the path of a folder; one whose name is a number is written ./2024"
    if "env_vars" in config and not isinstance(env_vars, DictConfig):
        yield f"env_vars={env_vars}: must be a mapping of names to values, {{}} for none"


_UNKNOWN_KEY = re.compile(r"Could not override '([^']+)'")
_UNKNOWN_OPTION = re.compile(
    r"Could not find '([^']+)/([^'/]+)'(?:.*?Available options in '[^']+': (.*?) Config search path)?"
)


def _explain(error: Exception, name: str) -> str:
    """Hydra's message as one line, with the cure for the commonest mistakes."""
    if (ours := _of_ours(error)) is not None:
        return str(ours)
    text = " ".join(str(error).split())
    if unknown := _UNKNOWN_KEY.search(text):
        keys = "conf/serve.yaml has" if name == "serve" else "`--cfg job` prints"
        return f"{unknown.group(1)}: unknown key; {keys} every key there is"
    if unknown := _UNKNOWN_OPTION.search(text):
        group, option, known = unknown.groups()
        if group == "reward":
            return f"{group}={option}: verl's own node; the rewards of this project are reward_preset={option}"
        allowed = ["auto"] * (group == "hardware") + (known or "").split()
        return f"{group}={option}: must be one of {', '.join(allowed)}"
    return text


def _of_ours(error: BaseException | None) -> UserError | None:
    """The error that a resolver of ours raised, of which Hydra and OmegaConf made theirs; None where there is none."""
    while error is not None and not isinstance(error, UserError):
        error = error.__cause__ or error.__context__
    return error


def _without_culprit(overrides: list[str], error: Exception) -> list[str]:
    """The overrides without those that Hydra's message is about; all of them where it names none."""
    text = " ".join(str(error).split())
    if unknown := _UNKNOWN_KEY.search(text):
        return [item for item in overrides if item.lstrip("+~").split("=", 1)[0] != unknown.group(1)]
    if unknown := _UNKNOWN_OPTION.search(text):
        return [item for item in overrides if item != f"{unknown.group(1)}={unknown.group(2)}"]
    return overrides


def print_config(config: DictConfig) -> None:
    print(OmegaConf.to_yaml(config, resolve=False))


def write_resolved(config: DictConfig, folder: Path) -> Path:
    """Write the resolved configuration to `<folder>/config.yaml`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "config.yaml"
    path.write_text(OmegaConf.to_yaml(config, resolve=True))
    return path


def apply_env_vars(config: DictConfig) -> dict[str, str]:
    """Set the configuration's `env_vars` in this process where the user has not; returns what holds now."""
    wanted: dict[str, Any] = OmegaConf.to_container(config.env_vars, resolve=True)  # type: ignore[assignment]
    for key, value in wanted.items():
        os.environ.setdefault(key, str(value))
    return {key: os.environ[key] for key in wanted}
