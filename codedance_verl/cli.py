"""Command `codedance`. Its commands live beside what they belong to and are imported only when called."""

from __future__ import annotations

import pkgutil
import sys
from typing import Any

import typer

from codedance_verl.errors import UserError

GROUPS = {
    "sandbox": ("sandbox.cli:sandbox_app", "Build, run and clean up interpreters."),
    "data": ("synthesis.cli:data_app", "Make, check, filter, audit and look at data sets."),
    "cluster": ("cluster.cli:cluster_app", "Prepare and look over a Ray cluster."),
    "eval": ("harness.cli:eval_app", "Ask a model the items of benchmarks, score, compare and report."),
    "reward": ("reward.cli:reward_app", "Say what a reward gives to rollouts, and why."),
}
"""Groups of commands, each with its `typer.Typer` and its help line."""

COMMANDS = {
    "chat": ("serving.cli:chat", "Ask a trained model about an image in the terminal."),
    "serve": ("serving.cli:serve", "Serve a trained model to OpenAI clients."),
    "dashboards": ("metrics.cli:dashboards", "Set up Grafana and Prometheus for Ray."),
    "plot": ("evaluation.curves:plot", "Draw the curves of a training run."),
    "view": ("viewer.cli:view", "Show trajectories of runs in a browser."),
    "export": ("serving.export:export", "Make a checkpoint a Hugging Face folder of its own."),
}
"""Commands, each with its function and its help line."""


def build_app(arguments: list[str]) -> typer.Typer:
    """Returns the application, with the command that `arguments` call loaded; of the others it has name and help.

    So `codedance doctor` starts fast, and runs where a package that another command imports is missing.
    """
    app = typer.Typer(
        name="codedance",
        help="CodeDance on verl: train vision-language models that reason by writing and running code.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    app.command()(doctor)
    for name, (path, text) in COMMANDS.items():
        if name in arguments[:1]:
            app.command(name)(_load(path))
        else:
            app.command(name, help=text)(_not_called)
    for name, (path, text) in GROUPS.items():
        app.add_typer(_load(path) if name in arguments[:1] else typer.Typer(), name=name, help=text)
    return app


def _load(path: str) -> Any:
    return pkgutil.resolve_name(f"codedance_verl.{path}")


def _not_called() -> None:
    """Placeholder for a command of which only name and help are shown."""


def doctor() -> None:
    """Check this machine: what is there, what is missing, and what to do about it."""
    from codedance_verl.preflight.doctor import run

    raise typer.Exit(run())


def main(arguments: list[str] | None = None) -> None:
    """Console entry point. A `UserError` ends it with one line on stderr and exit code 2."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        build_app(given)(args=given)
    except UserError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
