"""Presets of the reward by name, read from `conf/reward_preset/`: a file there is a preset."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from codedance_verl.config.files import shipped_folder
from codedance_verl.errors import UserError
from codedance_verl.reward.config import RewardConfig

_FIRST = (
    *("robust", "paper", "release", "outcome", "per_call_bonus", "gated", "gtpo"),
    *("taco", "at_grpo", "fatal_aware"),
)
"""Order in which messages and tables list them; those of a user follow."""


@functools.cache
def preset_names() -> tuple[str, ...]:
    found = {path.stem for path in _folder().glob("*.yaml")}
    return (*(name for name in _FIRST if name in found), *sorted(found - set(_FIRST)))


def preset_values(name: object) -> Mapping[str, Any]:
    """Returns the constants of a preset as its files have them; none for an unknown name."""
    known = isinstance(name, str) and name in preset_names()
    return _composed(_folder() / f"{name}.yaml") if known else {}


def _folder() -> Path:
    return shipped_folder("conf") / RewardConfig.KEY


@functools.cache
def _composed(path: Path) -> dict[str, Any]:
    """Values of a file over those of its defaults list.

    A small part of what Hydra does: a worker and `codedance reward` need a preset without a configuration around it.
    """
    own, below = _read(path), dict[str, Any]()
    for item in own.pop("defaults", []):
        if isinstance(item, dict):  # a group and its option: "tool_term: share", "override tool_term: share"
            ((group, option),) = item.items()
            node = group.removeprefix("override ")
            below[node] = _composed(path.parent / node / f"{option}.yaml")
        elif item != "_self_":
            below = _merged(below, _composed(path.parent / f"{item}.yaml"))
    return _merged(below, own)


def _read(path: Path) -> dict[str, Any]:
    try:
        # as Hydra reads it, for which 1e-1 is a number
        values = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except (OSError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"{path}: cannot be read as a reward preset ({' '.join(str(error).split())})") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: must be a mapping of constants to values")
    return {str(key): value for key, value in values.items()}


def _merged(below: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Values over those below them, node by node."""
    merged = {**below, **own}
    for key, value in own.items():
        if isinstance(value, Mapping) and isinstance(node := below.get(key), Mapping):
            merged[key] = {**node, **value}
    return merged


PRESETS: dict[str, RewardConfig] = {name: RewardConfig.from_mapping({"preset": name}) for name in _FIRST}
"""Presets that come with the package; those of a user are read when they are chosen."""
ROBUST, PAPER, RELEASE, OUTCOME, PER_CALL_BONUS, GATED, GTPO, TACO, AT_GRPO, FATAL_AWARE = (
    PRESETS[name] for name in _FIRST
)
