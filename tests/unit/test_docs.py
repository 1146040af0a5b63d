"""The commands, files and links that the documentation names exist and are understood by what they call."""

from __future__ import annotations

import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer.main
from click.testing import CliRunner
from ray.scripts.scripts import cli as ray_cli

from codedance_verl.cli import build_app
from codedance_verl.config.compose import compose_config

REPOSITORY = Path(__file__).resolve().parents[2]
DOCUMENTS = [
    *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md")),
    *sorted((REPOSITORY / "docs").glob("*.md")),
    *sorted((REPOSITORY / "recipes").glob("*/README.md")),
]
BENCHMARKS = REPOSITORY / "benchmarks" / "README.md"


def _commands(document: Path) -> Iterator[list[str]]:
    """Every command of a document's bash blocks, comments and line continuations resolved."""
    for block in re.findall(r"```bash\n(.*?)```", document.read_text(), re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
                words = words[1:]
            if words:
                yield words


ALL = [
    pytest.param(words, id=f"{path.name}: {' '.join(words)[:60]}") for path in DOCUMENTS for words in _commands(path)
]


@pytest.mark.parametrize("words", ALL)
def test_a_documented_command_is_understood(words: list[str]) -> None:
    program, arguments = Path(words[0]).name, words[1:]
    if program == "make":
        targets = re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
        assert {item for item in arguments if "=" not in item} <= set(targets)
    elif program == "codedance":
        _assert_cli_knows(arguments)
    elif program.startswith("python") and arguments[:1] == ["-m"]:
        _assert_module_takes(arguments[1], arguments[2:])
    elif program == "torchrun":
        module = arguments.index("-m") + 1
        _assert_module_takes(arguments[module], arguments[module + 1 :])
    elif program.startswith("python"):
        assert (REPOSITORY / arguments[0]).is_file()
    elif program == "ray":
        _assert_ray_knows(arguments)
    else:
        assert program in {"git", "tensorboard", "docker", "pre-commit", "pytest", "ruff", "mypy"}, words


def test_every_picture_is_shown_somewhere() -> None:
    texts = "".join(document.read_text() for document in DOCUMENTS)
    unseen = {path.name for path in (REPOSITORY / "docs" / "pictures").iterdir() if path.name not in texts}
    assert not unseen


def _assert_ray_knows(arguments: list[str]) -> None:
    """Its sub-command has the options; what a job runs is a command of ours."""
    ours = arguments[arguments.index("--") + 1 :] if "--" in arguments else []
    command: click.Command = ray_cli
    for word in arguments:
        if not isinstance(command, click.Group):
            break
        command = command.commands[word]
    known = {option for parameter in command.params for option in parameter.opts}
    given = {item.split("=")[0] for item in arguments[: len(arguments) - len(ours)] if item.startswith("--")}
    assert given - {"--"} <= known, f"{given - known} are no options of ray {arguments[:2]}"
    if ours:
        test_a_documented_command_is_understood(ours)


def _assert_cli_knows(arguments: list[str]) -> None:
    if arguments[0] == "eval":
        arguments = arguments if arguments[1] in ("compare", "faithfulness", "run") else ["eval", "run", *arguments[1:]]
        compose_config("eval", [item for item in arguments if "=" in item and not item.startswith("--")])
    depth = 2 if arguments[0] in {"sandbox", "data", "reward", "cluster", "eval"} else 1
    application = typer.main.get_command(build_app(arguments))
    shown = CliRunner().invoke(application, [*arguments[:depth], "--help"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0, shown.output
    for option in (item.split("=")[0] for item in arguments if item.startswith("--")):
        assert option in shown.output, f"{option} is no option of {arguments[:depth]}"


def _assert_module_takes(module: str, arguments: list[str]) -> None:
    importlib.import_module(module)
    if module in {"codedance_verl.train", "codedance_verl.evaluate", "codedance_verl.sft"}:
        overrides = [item for item in arguments if "=" in item]
        compose_config(module.rsplit(".", 1)[1], ["hardware=cpu", "run_dir=/tmp/run", *overrides])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_links_and_pictures_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
        if not target.startswith("http"):
            assert (document.parent / target).exists(), target


def _anchors(document: Path) -> set[str]:
    """Anchors of a document's headings, as GitHub makes them."""
    text = re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", [*DOCUMENTS, BENCHMARKS], ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_links_to_headings_lead_to_one(document: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", document.read_text()):
        assert anchor in _anchors(document.parent / target if target else document), f"{target}#{anchor}"


def test_headings_that_the_code_names_exist() -> None:
    code = "".join(path.read_text() for path in (REPOSITORY / "codedance_verl").rglob("*.py"))
    named = re.findall(r"(docs/\w+\.md)#([\w-]+)", code)
    assert named
    for target, anchor in named:
        assert anchor in _anchors(REPOSITORY / target), f"{target}#{anchor}"


def test_the_file_tree_of_the_readme_names_what_is_there() -> None:
    (tree,) = re.findall(r"## Repository layout\n\n```\n(.*?)```", (REPOSITORY / "README.md").read_text(), re.DOTALL)
    for line in tree.splitlines():
        folder = REPOSITORY / "codedance_verl" if line.startswith("  ") else REPOSITORY
        names = re.findall(r"\S+", line) if line.count(".py") > 1 else [line.split()[0]]
        for name in (name for name in names if name.endswith(("/", ".py"))):
            assert (folder / name).exists(), name
