"""What the checks found: facts for the table of a dry run, and one line for everything that is wrong."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from omegaconf import DictConfig, OmegaConf

from codedance_verl.errors import UserError


@dataclass(frozen=True)
class Fact:
    """A row of the table: what it is about, its name, and what was found."""

    area: str
    name: str
    value: str


@dataclass
class Report:
    """What the checks found, in their order. `dry`: nothing will follow, so nothing may be started."""

    dry: bool = False
    facts: list[Fact] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def add_row(self, area: str, name: str, value: object) -> None:
        """Add a row to the table."""
        self.facts.append(Fact(area, name, str(value)))

    def add_error(self, line: str) -> None:
        """Add something that is wrong, once: the dotted key, the value seen, and what is allowed."""
        if line not in self.findings:
            self.findings.append(line)

    def warn(self, line: str) -> None:
        """Add what works, but not as it may be meant: the dotted key, the value seen, and what follows from it."""
        if line not in self.warnings:
            self.warnings.append(line)

    def told(self, key: str) -> bool:
        """Whether something was found about this key."""
        return any(line.startswith((f"{key}=", f"{key}:")) for line in self.findings)

    def told_below(self, node: str) -> bool:
        """Whether something was found about a key of this node."""
        return self.told(node) or any(line.startswith(f"{node}.") for line in self.findings)

    @contextlib.contextmanager
    def collecting(self) -> Iterator[None]:
        """Turn a `UserError` into findings, and leave out what rests on a value that was told to be wrong already."""
        try:
            yield
        except ToldAlready:
            pass
        except UserError as error:
            for line in str(error).splitlines():
                self.add_error(line)

    @contextlib.contextmanager
    def resting(self) -> Iterator[None]:
        """Leave out a check that a value of the wrong kind breaks, where something was found that may be the cause."""
        try:
            yield
        except (TypeError, AttributeError, ValueError):
            if not self.findings:
                raise


class ToldAlready(Exception):
    """A check rests on something that another check has told to be wrong."""


Check: TypeAlias = Callable[[DictConfig, Report], None]
Rule: TypeAlias = Callable[[DictConfig], Iterator[str]]
"""Yields a line for everything it finds wrong."""


def apply_rules(rules: Sequence[Rule], config: DictConfig, report: Report) -> None:
    """Collect what every rule finds; one that cannot be applied keeps none of the others from it."""
    for rule in rules:
        with report.collecting():
            for line in rule(config):
                report.add_error(line)


def at(config: DictConfig, key: str) -> Any:
    """The value at a dotted key; None where there is none."""
    return OmegaConf.select(config, key)


def print_warnings(report: Report) -> None:
    """Print the warnings, a line each, to standard error."""
    for line in report.warnings:
        print(f"warning: {line}", file=sys.stderr)


def print_report(report: Report, title: str) -> None:
    """The table of facts; findings are told by the caller, one line each."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left")
    for heading in ("", "", "found"):
        table.add_column(heading, overflow="fold")
    previous, areas = "", list(dict.fromkeys(fact.area for fact in report.facts))
    for fact in sorted(report.facts, key=lambda fact: areas.index(fact.area)):
        table.add_row(fact.area if fact.area != previous else "", fact.name, Text(fact.value))
        previous = fact.area
    Console().print(table)
