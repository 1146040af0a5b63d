"""Composes the Hydra tree of `conf/` over verl's own and turns its errors into one line each."""

from __future__ import annotations

import os
import re
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


def compose_config(name: str, overrides: list[str]) -> DictConfig:
    """The configuration `name` of `conf/` with command-line overrides applied and every interpolation resolvable.

    Raises:
        UserError: unknown key or group option, missing mandatory value, or an override that cannot be parsed; the
            message names the dotted key.
    """
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(config_dir=str(CONF_DIR), version_base=None):
            search = f"hydra.searchpath=[{VERL_CONFIGS}]"
            config = compose(name, overrides=[search, *hardware.resolve(overrides)])
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_explain(error)) from error
    if OmegaConf.is_missing(config, "run_dir"):
        raise UserError("run_dir: no value given; add run_dir=... to the command")
    return config


def _explain(error: Exception) -> str:
    """Hydra's message as one line, with the cure for the commonest mistake."""
    text = " ".join(str(error).split())
    if unknown := re.search(r"Could not override '([^']+)'", text):
        return f"{unknown.group(1)}: unknown key; `--cfg job` prints every key there is"
    return text


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
