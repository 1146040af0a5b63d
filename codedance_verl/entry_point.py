"""Common part of the mains: `--cfg job`, `dry_run=true`, and errors as lines."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError

from codedance_verl.config.compose import Composed, apply_env_vars, compose_config, compose_leniently, write_resolved
from codedance_verl.errors import UserError

if TYPE_CHECKING:
    from codedance_verl.preflight.report import Report

USAGE = """usage: python -m codedance_verl.{name} [recipe=NAME] run_dir=FOLDER [KEY=VALUE ...]

  KEY=VALUE      any key of conf/{name}.yaml or of verl's own tree (docs/configuration.md)
  --cfg job      print the whole configuration as composed, and end
  dry_run=true   check all that can be checked beforehand, print it, and end"""

FOLDER = "dry_run"
"""Folder in that of the run for the resolved configuration of a dry run, which must not replace a run's."""


def run_cli(
    name: str,
    arguments: list[str] | None,
    run: Callable[[DictConfig], None],
    check: Callable[[DictConfig], Report],
) -> int:
    """Runs a command line with the configuration `name`; returns the exit code: 0, or 2 for a `UserError`.

    `--cfg job` prints the composed configuration instead of running, `dry_run=true` checks it, `--help` prints both.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if {"-h", "--help"} & {*arguments}:
        print(USAGE.format(name=name))
        return 0
    try:
        overrides = _overrides(arguments)
        if len(overrides) < len(arguments):
            print(OmegaConf.to_yaml(compose_config(name, overrides, complete=False), resolve=False))
        elif _asks_for_dry_run(overrides):
            _dry_run(compose_leniently(name, overrides), name, check)
        else:
            run(compose_config(name, overrides))
    except UserError as error:
        text = str(getattr(error, "cause", error))  # raised in a Ray task, its own text is a whole traceback
        for line in text.splitlines():  # one for everything that is wrong
            print(f"error: {line}", file=sys.stderr)
        return 2
    return 0


def _overrides(arguments: list[str]) -> list[str]:
    """Returns the arguments without `--cfg job`. Raises `UserError` for another argument of `--cfg`."""
    rest = list(arguments)
    if "--cfg" in rest:
        place = rest.index("--cfg")
        if rest[place + 1 : place + 2] != ["job"]:
            raise UserError("--cfg: must be `--cfg job`, which prints the configuration as composed")
        del rest[place : place + 2]
    return rest


def _asks_for_dry_run(arguments: list[str]) -> bool:
    """True when the last `dry_run=` of a command line says yes."""
    given = [item.split("=", 1)[1].lower() for item in arguments if item.startswith("dry_run=")]
    return bool(given) and given[-1] in ("true", "1", "yes", "on")


def _dry_run(composed: Composed, name: str, check: Callable[[DictConfig], Report]) -> None:
    """Checks what was composed, prints the table, and writes the configuration resolved.

    Raises:
        UserError: a line for everything that is wrong, what could not be composed first.
    """
    config = composed.config
    if config is None:
        raise UserError("\n".join(composed.mistakes))
    apply_env_vars(config)  # before anything imports verl
    report = check(config)
    from codedance_verl.preflight.report import print_report, print_warnings

    print_report(report, f"dry run of {name}")
    print_warnings(report)
    findings = [*composed.mistakes, *report.findings]
    with contextlib.suppress(OSError, InterpolationResolutionError):  # findings about run_dir and its node have it
        print(f"configuration: {write_resolved(config, Path(config.run_dir) / FOLDER)}", flush=True)
    if findings:
        raise UserError("\n".join(findings))
    print("nothing wrong was found", flush=True)
