"""The command `codedance`. Sub-commands live beside what they belong to and are imported only when called."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass

import typer

from codedance_verl.errors import UserError


@dataclass(frozen=True)
class SubCommand:
    """A group of commands: the module that defines it, the name of its `typer.Typer` there, and its help line."""

    module: str
    attribute: str
    help: str

    def load(self) -> typer.Typer:
        loaded = getattr(importlib.import_module(self.module), self.attribute)
        assert isinstance(loaded, typer.Typer)
        return loaded


SUB_COMMANDS = {
    "sandbox": SubCommand("codedance_verl.sandbox.cli", "sandbox_app", "Build, run and clean up interpreters."),
    "data": SubCommand("codedance_verl.data.cli", "data_app", "Make, check and look at data sets."),
    "cluster": SubCommand("codedance_verl.cluster.cli", "cluster_app", "Prepare and look over a Ray cluster."),
    "reward": SubCommand("codedance_verl.reward.cli", "reward_app", "Say what a reward gives to rollouts, and why."),
}


@dataclass(frozen=True)
class Command:
    """A command without sub-commands: the module that defines it, the name of its function there, and its help line."""

    module: str
    function: str
    help: str

    def load(self) -> Callable[..., None]:
        loaded: Callable[..., None] = getattr(importlib.import_module(self.module), self.function)
        return loaded


COMMANDS = {
    "chat": Command("codedance_verl.serving.cli", "chat", "Ask a trained model about a picture in the terminal."),
    "serve": Command("codedance_verl.serving.cli", "serve", "Serve a trained model to OpenAI clients."),
    "dashboards": Command("codedance_verl.metrics.cli", "dashboards", "Set up Grafana and Prometheus for Ray."),
    "plot": Command("codedance_verl.evaluation.curves", "plot", "Draw the curves of a training run."),
    "view": Command("codedance_verl.viewer.cli", "view", "Show trajectories of runs in a browser."),
    "export": Command("codedance_verl.serving.export", "export", "Make a checkpoint a Hugging Face folder of its own."),
}


def build_app(arguments: list[str]) -> typer.Typer:
    """The application, with the sub-command that `arguments` call loaded and the others known by name only.

    So `codedance doctor` starts fast, and runs where what another command imports is missing.
    """
    app = typer.Typer(
        name="codedance",
        help="CodeDance on verl: train vision-language models that reason by writing and running code.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    app.command()(doctor)
    for name, command in COMMANDS.items():
        if name in arguments[:1]:
            app.command(name)(command.load())
        else:
            app.command(name, help=command.help)(_not_called)
    for name, sub_command in SUB_COMMANDS.items():
        loaded = sub_command.load() if name in arguments[:1] else typer.Typer()
        app.add_typer(loaded, name=name, help=sub_command.help)
    return app


def _not_called() -> None:
    """Stands for a command of which only the name is shown."""


def doctor() -> None:
    """Look over this machine: what is there, what is missing, and what to do about it."""
    from codedance_verl.preflight.doctor import run

    raise typer.Exit(run())


def main(arguments: list[str] | None = None) -> None:
    """Console entry point. A `UserError` ends it with one line on stderr and exit code 2."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        build_app(given)(args=given)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
