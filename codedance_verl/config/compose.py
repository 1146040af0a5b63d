"""Composes the Hydra tree of `conf/` over verl's own and turns its errors into one line each."""

from __future__ import annotations

import contextlib
import difflib
import functools
import importlib.util
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import ConfigCompositionException, HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from codedance_verl.config import hardware
from codedance_verl.config.files import shipped_folder
from codedance_verl.config.overrides import Mistake, key_of, read_overrides
from codedance_verl.config.renamed import renamed_line
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
    """Composes as `compose_config` does, but leaves out overrides that name no key or option, to report all of them.

    There is no configuration where one of them is what other settings rest on, such as the recipe or the folder of a
    run: without it much else would seem to be wrong.
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
    lines = _lines(mistakes, config)
    if any(_BASIC.fullmatch(mistake.key) for mistake in mistakes):
        return Composed(None, lines)
    return Composed(None, (*lines, *faults)) if faults else Composed(config, lines)


_BASIC = re.compile(r"recipe|model|data|run_dir|env_vars|([\w.]+\.)?(path|train_files|val_files)")
"""Keys that much else rests on: without what was meant by them, other checks would find what is no mistake."""


def _lines(mistakes: list[Mistake], config: DictConfig | None = None) -> tuple[str, ...]:
    """The line of each mistake, with the nearest key there is where one is unknown."""
    return tuple(mistake.line + _nearest(mistake, config) for mistake in mistakes)


def _nearest(mistake: Mistake, config: DictConfig | None) -> str:
    if config is None or not mistake.unknown:
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
    """Yields options that are none of ours, and what Hydra would take: recipes of another main, verl's own groups."""
    for item in overrides:
        key, _, value = item.lstrip("+").partition("=")
        nodes = _NODES_OF_SFT if name == "sft" else _VERLS_NODES
        if key == "reward" and value != "null":
            yield Mistake(key, f"{item}: verl's own node; the rewards of this project are reward_preset={value}")
        elif key in nodes:
            yield Mistake(key, f"{item}: is a node of keys; set them one by one, as {key}.KEY=VALUE")
        elif key == "model_engine" and value != "dp":
            yield Mistake(key, f"{item}: must be dp, which is FSDP; verl's other training engines do not run here")
        elif "." in key or not (CONF_DIR / key).is_dir():
            continue
        elif item.startswith("+"):
            yield Mistake(key, f"{item}: a group has one option: {key}={value}")
        elif value not in (options := _recipes(name) if key == "recipe" else _options(key)):
            yield Mistake(key, f"{item}: must be one of {', '.join(options)}")


_NODES_OF_SFT = ("model", "engine", "optim", "profiler", "data", "trainer", "checkpoint")

_VERLS_NODES = ("critic", "distillation", "reward", "transfer_queue", "optim", "engine", "profiler", "rollout")
"""Groups of verl's alone."""


def _options(group: str) -> list[str]:
    """Options of a group of `conf/`; `data` has verl's own one too, which names no files."""
    ours = [path.stem for path in (CONF_DIR / group).glob("*.yaml")]
    return ["auto"] * (group == "hardware") + sorted(["legacy_data"] * (group == "data") + ours)


def _recipes(name: str) -> list[str]:
    """The recipes of the configuration `name`: the end of a recipe's name says whose it is."""
    every = sorted(path.stem for path in (CONF_DIR / "recipe").glob("*.yaml"))
    own = {"sft": "_sft", "eval": "_benchmarks"}
    if name in own:
        return [recipe for recipe in every if recipe.endswith(own[name])]
    others = tuple(own.values()) if name == "evaluate" else (*own.values(), "_eval")
    return [recipe for recipe in every if not recipe.endswith(others)]


def _compose(name: str, overrides: list[str]) -> DictConfig:
    with _hydra() as searchpath:
        config = compose(name, overrides=[searchpath, *overrides])
    # an attribute of the object rather than a key, as it is no setting; a copy of the configuration does not have it
    vars(config)[_ORIGIN] = (name, tuple(overrides))
    return config


_ORIGIN = "_composed_from"


def chosen_files(config: DictConfig) -> frozenset[Path]:
    """Files of `conf/` that a configuration was composed of; all of them where it was not composed here."""
    origin = vars(config).get(_ORIGIN)
    return frozenset(CONF_DIR.rglob("*.yaml")) if origin is None else _files_of(*origin)


@functools.lru_cache(maxsize=8)
def _files_of(name: str, overrides: tuple[str, ...]) -> frozenset[Path]:
    with _hydra() as searchpath:
        loader = GlobalHydra.instance().config_loader()
        found = loader.compute_defaults_list(name, [searchpath, *overrides], RunMode.RUN)
    paths = (CONF_DIR / f"{default.config_path}.yaml" for default in found.defaults)
    return frozenset(path for path in paths if path.is_file())


@contextlib.contextmanager
def _hydra() -> Iterator[str]:
    """Hydra over `conf/`; gives the override that adds verl's tree."""
    OmegaConf.register_new_resolver(hardware.RESOLVER, hardware.option, replace=True)
    GlobalHydra.instance().clear()
    with initialize_config_dir(config_dir=str(CONF_DIR), version_base=None):
        yield f'hydra.searchpath=["{_verl_configs()}"]'


def _verl_configs() -> str:
    """Folder of verl's tree. Importing verl for it would choose its platform before `env_vars` are set."""
    found = importlib.util.find_spec("verl")
    if found is None or not found.submodule_search_locations:
        raise UserError("verl is not installed; run `make setup`")
    return f"file://{Path(found.submodule_search_locations[0]) / 'trainer' / 'config'}"


def _unusable(config: DictConfig, overrides: list[str], complete: bool) -> Iterator[str]:
    """Faults of the keys that are read before a configuration is examined, and of interpolations."""
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


def _explain(error: Exception, name: str, overrides: list[str]) -> Mistake:
    """Error of Hydra or OmegaConf as one line, with the cure for the commonest mistakes, and the key it is about."""
    if (ours := _of_ours(error)) is not None:
        return Mistake("", str(ours))
    cause = error.__cause__
    if isinstance(error, ConfigCompositionException) and isinstance(cause, ConfigAttributeError | ConfigKeyError):
        # OmegaConf names the first part that is not there, which is above the key where a whole node is unknown
        part = str(cause.full_key)
        key = next((key for key in map(key_of, overrides) if f"{key}.".startswith(f"{part}.")), part)
        return _unknown_key(key, name)
    guilty = _guilty(error, overrides)
    if guilty.startswith("+") and isinstance(error, ConfigCompositionException) and cause is None:
        return Mistake(key_of(guilty), f"+{key_of(guilty)}: this key is there already; write it without +")
    text = " ".join(str(error).split())
    return Mistake(key_of(guilty), f"{guilty or name}: {text.split(' full_key:')[0].split(' See https')[0]}")


def _unknown_key(key: str, name: str) -> Mistake:
    if line := renamed_line(key):
        return Mistake(key, line)
    keys = "conf/serve.yaml has" if name == "serve" else "`--cfg job` prints"
    return Mistake(key, f"{key}: unknown key; {keys} every key there is", unknown=True)


def _guilty(error: Exception, overrides: list[str]) -> str:
    """Override that an error of Hydra or OmegaConf is about, empty where it is none.

    Hydra 1.3 names the override in its text alone; where OmegaConf raised the error, it has the key.
    """
    text, full_key = " ".join(str(error).split()), str(getattr(error, "full_key", None) or "")
    for item in reversed(overrides):
        if item in text or (full_key and key_of(item) == full_key):
            return item
    return next((item for item in reversed(overrides) if "${" in item), "")


def _of_ours(error: BaseException | None) -> UserError | None:
    """The error that a resolver of ours raised, of which Hydra and OmegaConf made theirs; None where there is none."""
    while error is not None and not isinstance(error, UserError):
        error = error.__cause__ or error.__context__
    return error


def write_resolved(config: DictConfig, folder: Path) -> Path:
    """Writes the resolved configuration to `<folder>/config.yaml`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "config.yaml"
    path.write_text(OmegaConf.to_yaml(config, resolve=True))
    return path


def apply_env_vars(config: DictConfig) -> dict[str, str]:
    """Sets the configuration's `env_vars` in this process where the user has not; returns those in force."""
    wanted: dict[str, Any] = OmegaConf.to_container(config.env_vars, resolve=True)  # type: ignore[assignment]
    for key, value in wanted.items():
        os.environ.setdefault(key, str(value))
    return {key: os.environ[key] for key in wanted}
