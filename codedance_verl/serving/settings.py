"""Model that is served, and the settings it was trained under."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from codedance_verl.config.compose import compose_config
from codedance_verl.config.renamed import renamed
from codedance_verl.environment.config import EnvironmentConfig
from codedance_verl.errors import UserError
from codedance_verl.sandbox.config import SandboxConfig
from codedance_verl.serving.config import ServingConfig

CONFIGURATION = "config.yaml"
"""In the folder of a run: its whole configuration."""

SETTINGS_FILE = "codedance.yaml"
"""Beside an exported model: the part of its run's configuration that `inherited` reads."""

OF_THE_SANDBOX = (
    "preload",
    "on_error",
    "cell_timeout_s",
    "max_code_bytes",
    "max_stdout_bytes",
    "max_images",
    "max_image_pixels",
    "session_memory_mb",
)
"""Keys that code of a trajectory can notice; number and place of containers are the server's own affair."""

_OF_SERVING = {
    "data.max_response_length": "serving.response_tokens",
    "sampling.code_temperature": "serving.code_temperature",
}
"""Keys of training that go by another name in serving."""


@dataclass(frozen=True)
class Settings:
    """Model, its name, and the rules it is served under.

    Attributes:
        model: Hugging Face folder, or a name on the Hub.
        name: what clients call it.
        origin: the file that the rules of training were read from; None where there is none.
        warm_start: whether vLLM's engine is forked from a process that has imported it.
        env_vars: to be set before vLLM is imported, where the user has not.
    """

    model: str
    name: str
    origin: Path | None
    environment: EnvironmentConfig
    sandbox: SandboxConfig
    serving: ServingConfig
    warm_start: bool
    env_vars: Mapping[str, str]

    def set_environment(self) -> None:
        """Sets the environment variables of vLLM, but those that the user has set; before vLLM is imported."""
        for key, value in self.env_vars.items():
            os.environ.setdefault(key, value)
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")  # most of its warnings mean nothing here


def load(model: str, overrides: Sequence[str] = (), **defaults: Any) -> Settings:
    """Loads the settings of a model under the configuration `serve`.

    Args:
        model: a run's folder, a Hugging Face folder, or a name on the Hub.
        overrides: `key=value`, as for training; they go before everything else.
        defaults: values of `sandbox` keys that go before the configuration's.

    Raises:
        UserError: no model there, or a bad setting.
    """
    return settings_of(model, compose_config("serve", list(overrides)), overrides, **defaults)


def settings_of(model: str, config: DictConfig, overrides: Sequence[str] = (), **defaults: Any) -> Settings:
    """Settings of a model under a configuration that holds that of `serve`; it is changed. See `load`."""
    folder, origin = find_model(model)
    given = config.serving.settings_of
    origin = _origin_of(given) if given is not None else origin
    of_training = inherited(origin) if origin is not None else {}
    _update(config, {f"sandbox.{key}": value for key, value in defaults.items()} | of_training, overrides)
    serving = ServingConfig.from_mapping(_plain(config, "serving"))
    return Settings(
        model=folder,
        name=serving.model_name or _name(model, folder),
        origin=origin if of_training else None,
        environment=EnvironmentConfig.from_mapping(_plain(config, "environment")),
        sandbox=_isolated(SandboxConfig.from_mapping(_plain(config, "sandbox")), serving),
        serving=serving,
        warm_start=config.warm_start is True,
        env_vars={key: str(value) for key, value in _plain(config, "env_vars").items()},
    )


def take_settings(config: DictConfig, overrides: Sequence[str]) -> None:
    """Sets what `serving.settings_of` passes on, for a model that runs elsewhere. Raises UserError: it is no run."""
    given = config.serving.settings_of
    if given is not None:
        _update(config, inherited(_origin_of(given)), overrides)


def _update(config: DictConfig, values: Mapping[str, Any], overrides: Sequence[str]) -> None:
    chosen = {override.split("=", 1)[0].lstrip("+~") for override in overrides}
    for key, value in values.items():
        if key not in chosen:
            OmegaConf.update(config, key, value, force_add=True)


def _origin_of(run: str) -> Path:
    """File of the settings that a run, or a model from one, passes on. Raises UserError: there are none."""
    folder = Path(run).expanduser()
    # a run that still trains has no model yet
    places = [folder / CONFIGURATION, folder / SETTINGS_FILE]
    origin = next((place for place in places if place.is_file()), None) or _found_beside(folder)
    if origin is None or not inherited(origin):
        raise UserError(f"serving.settings_of={run}: no run of RL, nor a model from one; its settings are not there")
    return origin


def _found_beside(folder: Path) -> Path | None:
    return find_model(str(folder))[1] if (folder / "config.json").is_file() else None


def find_model(given: str) -> tuple[str, Path | None]:
    """Finds the Hugging Face folder of a run, a folder or a name, and the file with the settings of its training.

    Raises:
        UserError: the folder is there, or looks like one, and holds no model.
    """
    path = Path(given).expanduser()
    folder = path / "model" if (path / "model" / "config.json").is_file() else path
    if (folder / "config.json").is_file():
        folder = folder.resolve()
        places = (folder / SETTINGS_FILE, *_configurations_of_runs(folder))
        return str(folder), next((place for place in places if place.is_file()), None)
    if path.exists() or given.startswith((".", "/", "~")):
        raise UserError(f"{given}: no model there; give a run's folder, or a Hugging Face folder with a config.json")
    return given, None


def inherited(origin: Path) -> dict[str, Any]:
    """Values of `serve` by dotted key, as the configuration file of a run has them; empty for SFT."""
    try:
        trained = OmegaConf.load(origin)
    except Exception as error:
        raise UserError(f"{origin}: no YAML ({' '.join(str(error).split())[:200]})") from None
    if not isinstance(trained, DictConfig):
        raise UserError(f"{origin}: holds no configuration of a run")
    # a run of an earlier version has keys by their old names
    values = {renamed(f"environment.{key}"): value for key, value in _plain(trained, "environment").items()}
    sandbox = _plain(trained, "sandbox")
    values |= {f"sandbox.{key}": sandbox[key] for key in OF_THE_SANDBOX if key in sandbox}
    if not values:
        return {}
    named = {ours: OmegaConf.select(trained, key) for key, ours in _OF_SERVING.items()}
    return values | {ours: value for ours, value in named.items() if value is not None}


def settings_document(origin: Path) -> str:
    """Part of a run's configuration that `inherited` reads, as YAML that can travel with its model; empty for SFT."""
    trained = OmegaConf.load(origin)
    assert isinstance(trained, DictConfig)
    if not _plain(trained, "environment"):
        return ""
    sandbox = _plain(trained, "sandbox")
    kept: dict[str, Any] = {
        "environment": _plain(trained, "environment"),
        "sandbox": {key: sandbox[key] for key in OF_THE_SANDBOX if key in sandbox},
    }
    for key in _OF_SERVING:
        node, name = key.split(".")
        if (value := OmegaConf.select(trained, key)) is not None:
            kept[node] = {name: value}
    return OmegaConf.to_yaml({key: value for key, value in kept.items() if value})


def _configurations_of_runs(folder: Path) -> list[Path]:
    """Configuration files of the run whose published model, or part of whose checkpoint, this folder may be."""
    published = [folder.parent] if folder.name == "model" else []
    checkpoint = [parent.parent for parent in folder.parents if parent.name == "checkpoints"]
    return [run / CONFIGURATION for run in (*published, *checkpoint)]


def _name(given: str, folder: str) -> str:
    path = Path(folder)
    return path.parent.name if path.name == "model" and (path.parent / "config.yaml").is_file() else path.name or given


def _isolated(sandbox: SandboxConfig, serving: ServingConfig) -> SandboxConfig:
    """Settings of the sandbox, which must be containers where other machines may send requests."""
    if serving.on_loopback:
        return sandbox
    if sandbox.backend == "process":
        raise UserError(
            f"sandbox.backend=process: no security boundary, and serving.host={serving.host} lets other machines run "
            "code; use sandbox.backend=docker or serving.host=127.0.0.1"
        )
    return sandbox.replace(backend="docker")


def _plain(config: DictConfig, node: str) -> dict[str, Any]:
    found = OmegaConf.select(config, node)
    values: Any = {} if found is None else OmegaConf.to_container(found, resolve=True)
    return dict(values)
