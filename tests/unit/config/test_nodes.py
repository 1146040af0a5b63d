"""Every node agrees with its file in `conf/`: defaults, ranges, choices."""

from __future__ import annotations

import importlib
import pkgutil
import re
import typing
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic.fields import FieldInfo

import codedance_verl
from codedance_verl.config.compose import CONF_DIR
from codedance_verl.config.node import Node, OneOf, bounds
from codedance_verl.config.renamed import _TOOL_TERMS, RENAMED
from codedance_verl.config.run import RunConfig
from codedance_verl.formats import FORMATS
from codedance_verl.reward.tool_terms import ToolTerm

FILES = {"": "train", "sandbox": "sandbox/docker", "serving": "serve"}
"""Where the root of a key does not have the name of its file."""

OTHER_DEFAULTS = {"sandbox.backend": "docker"}
"""Values of files that differ from the field's: the option names it."""


def _nodes() -> list[type[Node]]:
    for module in pkgutil.iter_modules(codedance_verl.__path__, "codedance_verl."):
        if module.ispkg and not module.name.endswith("verl_compat"):
            for part in pkgutil.iter_modules([str(Path(codedance_verl.__file__).parent / module.name.split(".")[1])]):
                if "config" in part.name or part.name in ("monitors", "custom"):
                    importlib.import_module(f"{module.name}.{part.name}")
    importlib.import_module("codedance_verl.grading.judge.config")
    return sorted((node for node in _below(Node) if node.KEY), key=lambda node: node.KEY)


def _below(node: type[Node]) -> Iterator[type[Node]]:
    for child in node.__subclasses__():
        if child.__module__.startswith("codedance_verl."):
            yield child
            yield from _below(child)


NODES = _nodes()
FIELDS = [(node, name) for node in NODES for name in node.model_fields]
ELSEWHERE = ("grading.custom", "reward_preset")
"""Nodes without a file, or with one for each part (tests/unit/reward/test_config.py)."""


def _file(node: type[Node]) -> Path:
    root = node.KEY.split(".")[0]
    return CONF_DIR / f"{FILES.get(root, root)}.yaml"


def _values(node: type[Node]) -> Any:
    """Values of the file at the node's key; a file of a group has no root."""
    values: Any = yaml.safe_load(_file(node).read_text())
    root, *names = node.KEY.split(".")
    for name in [root, *names] if root in values else names:
        values = values[name]
    return values


def _comment(node: type[Node], field: str) -> str:
    """Comment above a field, or above the lines without one that it is the last of."""
    lines = _file(node).read_text().splitlines()
    start, depth = 0, 0
    root, *names = node.KEY.split(".")
    for name in [*([root] if f"{root}:" in lines else []), *names]:
        start = next(i for i in range(start, len(lines)) if lines[i].startswith(f"{' ' * depth}{name}:")) + 1
        depth = len(re.match(" *", lines[next(i for i in range(start, len(lines)) if lines[i].strip())])[0])  # type: ignore[index]
    place = next(i for i in range(start, len(lines)) if lines[i].startswith(f"{' ' * depth}{field}:"))
    while place and lines[place - 1].strip() and not lines[place - 1].lstrip().startswith("#"):
        place -= 1
    comment = list[str]()
    while place and lines[place - 1].lstrip().startswith("#"):
        place -= 1
        comment.insert(0, lines[place].strip("# "))
    return " ".join(comment)


def _written(number: float) -> str:
    return f"{int(number):,}" if number == int(number) else str(number)


def _choices(field: FieldInfo) -> list[str]:
    kind: Any = field.annotation
    if isinstance(kind, type) and issubclass(kind, Enum):
        return [str(item.value) for item in kind]
    literal = typing.get_args(kind) if typing.get_origin(kind) is typing.Literal else ()
    return [*map(str, literal), *(name for item in field.metadata if isinstance(item, OneOf) for name in item.names)]


def test_the_nodes_are_these() -> None:
    assert [node.KEY for node in NODES] == [
        "environment",
        "eval",
        "grading",
        "grading.custom",
        "grading.judge",
        "monitors",
        "reward_preset",
        "sampling",
        "sandbox",
        "serving",
        "serving.engine",
        "trajectories",
    ]


@pytest.mark.parametrize("node", [node for node in NODES if node.KEY not in ELSEWHERE], ids=lambda node: node.KEY)
def test_the_file_has_every_field_with_its_default(node: type[Node]) -> None:
    values = _values(node)
    assert list(values) == list(node.model_fields)
    values = {name: value for name, value in values.items() if "${" not in str(value)}  # follows from elsewhere
    own = {key.rpartition(".")[2]: value for key, value in OTHER_DEFAULTS.items() if key.rpartition(".")[0] == node.KEY}
    assert node.from_mapping(values) == node(**own)


@pytest.mark.parametrize(("node", "name"), FIELDS, ids=[f"{node.KEY}.{name}" for node, name in FIELDS])
def test_the_comment_of_a_field_has_its_range_and_its_choices(node: type[Node], name: str) -> None:
    field = node.model_fields[name]
    assert field.description
    if node.KEY in ELSEWHERE:
        return
    comment, (low, high) = _comment(node, name), bounds(field)
    assert comment
    if low is not None:
        assert f"{_written(low)} to {_written(high)}" in comment
    for choice in _choices(field):
        assert re.search(rf"\b{re.escape(choice)}\b", comment), choice


OF_THE_HARDWARE = {"gpu_memory_gib": "cpu", "warm_start": "1xgpu"}
"""Settings that each option of the hardware sets, and an option that sets the default."""


@pytest.mark.parametrize("name", RunConfig.model_fields)
def test_a_setting_of_the_run_stands_at_the_root(name: str) -> None:
    field = RunConfig.model_fields[name]
    if name in OF_THE_HARDWARE:
        option = CONF_DIR / "hardware" / f"{OF_THE_HARDWARE[name]}.yaml"
        assert yaml.safe_load(option.read_text())[name] is field.default
        return
    low, high = bounds(field)
    assert yaml.safe_load(_file(RunConfig).read_text())[name] == field.default
    assert low is None or f"{_written(low)} to {_written(high)}" in _comment(RunConfig, name)


def test_the_environment_takes_every_format() -> None:
    assert _choices(next(node for node in NODES if node.KEY == "environment").model_fields["format"]) == list(FORMATS)


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_a_renamed_key_is_one_there_is(old: str, new: str) -> None:
    above, _, name = new.rpartition(".")
    nodes = get_args(ToolTerm) if above == "reward_preset.tool_term" else [node for node in NODES if above == node.KEY]
    assert any(name in node.model_fields for node in nodes)
    before, _, former = old.rpartition(".")
    assert not any(former in node.model_fields for node in NODES if before == node.KEY)


def test_the_documentation_has_the_renamed_keys() -> None:
    document = (CONF_DIR.parent / "docs" / "configuration.md").read_text()
    rows = re.findall(r"^\| `(\S+)` \| `(\S+)` \|$", document.partition("## Renamed keys")[2], re.MULTILINE)
    assert rows == list(RENAMED.items())


def test_the_line_of_a_renamed_constant_names_the_tool_terms_that_have_it() -> None:
    terms = {name.rpartition(".")[2] for name in RENAMED.values() if ".tool_term." in name}
    having = {name: [term().name for term in get_args(ToolTerm) if name in term.model_fields] for name in terms}
    assert {name: ", ".join(names) for name, names in having.items()} == _TOOL_TERMS
