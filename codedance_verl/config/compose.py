"""Composes the Hydra tree of `conf/` over verl's own and turns its errors into one line each."""

from __future__ import annotations

import difflib
import importlib.util
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

from codedance_verl.config import hardware
from codedance_verl.config.files import shipped_folder
from codedance_verl.config.overrides import Mistake, key_of, read_overrides
from codedance_verl.errors import UserError

CONF_DIR = shipped_folder("conf")


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
    """As `compose_config`, but overrides that name no key or option are left out and told, so that all can be told.

    Where one of them is what other settings rest on, such as the recipe or the folder of a run, there is no
    configuration: without it much else would seem to be wrong.
    """
    read = read_overrides(overrides)
    given = [item for item in read.good if item not in ("recipe=null", "model=null")]  # as if they were not given
    mistakes, rest = list(read.mistakes), hardware.resolve(given)
    while True:
        strange = next(_refused_options(name, rest), None)
        if strange is None:
            try:
                config = _compose(name, rest)
                faults = list(_unusable(config, rest, complete))
                break
            except (HydraException, OmegaConfBaseException) as error:
                strange = _explain(error, name, rest)
        mistakes.append(strange)
        fewer = [item for item in rest if key_of(item) != strange.key]
        if len(fewer) == len(rest):
            return Composed(None, _lines(mistakes))
        rest = fewer
    if any(_BASIC.fullmatch(mistake.key) for mistake in mistakes):
        return Composed(None, _lines(mistakes, config))
    if faults:
        return Composed(None, (*_lines(mistakes, config), *faults))
    return Composed(config, _lines(mistakes, config))


_BASIC = re.compile(r"recipe|model|data|run_dir|env_vars|([\w.]+\.)?(path|train_files|val_files)")
"""Keys that much else rests on: without what was meant by them, other checks would find what is no mistake."""


def _lines(mistakes: list[Mistake], config: DictConfig | None = None) -> tuple[str, ...]:
    """The line of each mistake, with the nearest key there is where one is unknown."""
    return tuple(mistake.line + _nearest(mistake, config) for mistake in mistakes)


def _nearest(mistake: Mistake, config: DictConfig | None) -> str:
    if config is None or ": unknown key;" not in mistake.line:
        return ""
    keys = list(_keys(config))
    near = sorted((key for key in keys if key.endswith(f".{mistake.key}")), key=len)
    if not near or (len(near) > 1 and "." not in mistake.key):
        near = difflib.get_close_matches(mistake.key, keys, n=1, cutoff=0.85)
    return f"; did you mean {near[0]}?" if near else ""


def _keys(node: DictConfig, above: str = "") -> Iterator[str]:
    """Every dotted key of a tree, nodes included."""
    for name in map(str, node):
        yield f"{above}{name}"
        below = node._get_node(name)
        if isinstance(below, DictConfig) and not below._is_none() and not below._is_interpolation():
            yield from _keys(below, f"{above}{name}.")


def _refused_options(name: str, overrides: list[str]) -> Iterator[Mistake]:
    """Options that Hydra would take: recipes of another main, and those of verl's own groups."""
    for item in overrides:
        key, _, value = item.lstrip("+").partition("=")
        if name == "sft" and key in _NODES_OF_SFT:
            yield Mistake(key, f"{item}: is a node of keys; set them one by one, as {key}.KEY=VALUE")
        elif key == "model_engine" and value != "dp":
            yield Mistake(key, f"{item}: must be dp, which is FSDP; verl's other training engines do not run here")
        elif item.startswith("+") and (CONF_DIR / key).is_dir():
            yield Mistake(key, f"{item}: a group has one option: {key}={value}")
        elif key == "recipe" and value not in _recipes(name):
            yield Mistake(key, f"{item}: must be one of {', '.join(_recipes(name))}")
        elif value == "null" and "." not in key and (CONF_DIR / key).is_dir():
            yield Mistake(key, f"{item}: must be one of {', '.join(_options(key))}")
        elif value == "null" and key in _VERLS_NODES:
            yield Mistake(key, f"{item}: is a node of keys; set them one by one, as {key}.KEY=VALUE")
        elif key in _BESIDE_VERLS and value not in _options(key):
            yield Mistake(key, f"{item}: must be one of {', '.join(_options(key))}")


_BESIDE_VERLS = ("model", "data", "algorithm")
"""Groups of which verl has options too, which set nothing that a run of ours needs."""

_NODES_OF_SFT = ("model", "engine", "optim", "profiler", "data", "trainer", "checkpoint")

_VERLS_NODES = ("critic", "distillation", "reward", "transfer_queue", "optim", "engine", "profiler", "rollout")
"""Groups of verl's alone."""


def _options(group: str) -> list[str]:
    """Options of a group of `conf/`; verl's own one for data names no files."""
    return sorted(["legacy_data"] * (group == "data") + [path.stem for path in (CONF_DIR / group).glob("*.yaml")])


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
        return compose(name, overrides=[f'hydra.searchpath=["{_verl_configs()}"]', *overrides])


def _verl_configs() -> str:
    """Where verl's tree lies. verl is not imported for it: that would settle its platform before `env_vars` are set."""
    found = importlib.util.find_spec("verl")
    if found is None or not found.submodule_search_locations:
        raise UserError("verl is not installed; run `make setup`")
    return f"file://{Path(found.submodule_search_locations[0]) / 'trainer' / 'config'}"


def _unusable(config: DictConfig, overrides: list[str], complete: bool) -> Iterator[str]:
    """What is wrong with the keys that are read before a configuration is examined, and with interpolations."""
    if not complete:
        return
    if OmegaConf.is_missing(config, "run_dir"):
        yield "run_dir: no value given; add run_dir=... to the command"
        return
    if any("${" in item for item in overrides):
        OmegaConf.to_container(config, resolve=True)  # raises what `_explain` makes a line of
    run_dir, env_vars = (OmegaConf.select(config, key) for key in ("run_dir", "env_vars"))
    if "run_dir" in config and (not isinstance(run_dir, str) or not run_dir):
        yield f"run_dir={run_dir}: must be the path of a folder; one whose name is a number is written ./2024"
    if "env_vars" in config and not isinstance(env_vars, DictConfig):
        yield f"env_vars={env_vars}: must be a mapping of names to values, {{}} for none"


_UNKNOWN_KEY = re.compile(r"Could not override '([^']+)'")
_KNOWN_KEY = re.compile(r"Could not append to config\. An item is already at '([^']+)'")
_UNKNOWN_OPTION = re.compile(
    r"Could not find '([^']+)/([^'/]+)'(?:.*?Available options in '[^']+': (.*?) Config search path)?"
)


def _explain(error: Exception, name: str, overrides: list[str]) -> Mistake:
    """Hydra's message as one line, with the cure for the commonest mistakes, and the key it is about."""
    if (ours := _of_ours(error)) is not None:
        return Mistake("", str(ours))
    text = " ".join(str(error).split())
    if unknown := _UNKNOWN_KEY.search(text):
        keys = "conf/serve.yaml has" if name == "serve" else "`--cfg job` prints"
        return Mistake(unknown.group(1), f"{unknown.group(1)}: unknown key; {keys} every key there is")
    if known := _KNOWN_KEY.search(text):
        return Mistake(known.group(1), f"+{known.group(1)}: this key is there already; write it without +")
    if unknown := _UNKNOWN_OPTION.search(text):
        return _unknown_option(*unknown.groups())
    guilty = _guilty(error, text, overrides)
    return Mistake(key_of(guilty), f"{guilty or name}: {text.split(' full_key:')[0].split(' See https')[0]}")


def _unknown_option(group: str, option: str, known: str | None) -> Mistake:
    if group == "reward":
        cure = f"verl's own node; the rewards of this project are reward_preset={option}"
        return Mistake(group, f"{group}={option}: {cure}")
    if not (CONF_DIR / group).is_dir():
        return Mistake(group, f"{group}={option}: is a node of keys; set them one by one, as {group}.KEY=VALUE")
    allowed = ["auto"] * (group == "hardware") + (known or "").split()
    return Mistake(group, f"{group}={option}: must be one of {', '.join(allowed)}")


def _guilty(error: Exception, text: str, overrides: list[str]) -> str:
    """The override that an error of Hydra or OmegaConf is about, empty where it is none."""
    full_key = str(getattr(error, "full_key", None) or "")
    for item in reversed(overrides):
        if item in text or (full_key and key_of(item) == full_key):
            return item
    return next((item for item in reversed(overrides) if "${" in item), "")


def _of_ours(error: BaseException | None) -> UserError | None:
    """The error that a resolver of ours raised, of which Hydra and OmegaConf made theirs; None where there is none."""
    while error is not None and not isinstance(error, UserError):
        error = error.__cause__ or error.__context__
    return error


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
