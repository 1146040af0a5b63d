"""Report of the checks: facts for the table of a dry run, and one line a fault."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from omegaconf import DictConfig, OmegaConf

from codedance_verl.config.hardware import joins
from codedance_verl.errors import UserError


@dataclass(frozen=True)
class Fact:
    """Row of the table: its area, its name, and the fact."""

    area: str
    name: str
    value: str


@dataclass
class Report:
    """Results of the checks, in their order. `dry`: no run follows, so nothing may be started.

    Attributes:
        facts: rows of the table.
        findings: errors, a line each.
        warnings: a line each.
    """

    dry: bool = False
    facts: list[Fact] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def add_row(self, area: str, name: str, value: object) -> None:
        """Adds a row to the table."""
        self.facts.append(Fact(area, name, str(value)))

    def add_error(self, line: str) -> None:
        """Adds an error, once: the dotted key, its value, and the values allowed."""
        # two checks may rest on one value and find the same fault
        if line not in self.findings:
            self.findings.append(line)

    def warn(self, line: str) -> None:
        """Adds a warning about a value that works, but not as it may be meant: dotted key, value, consequence."""
        if line not in self.warnings:
            self.warnings.append(line)

    def has_error(self, key: str) -> bool:
        """Returns True where an error names this key."""
        return any(line.startswith((f"{key}=", f"{key}:")) for line in self.findings)

    def has_error_below(self, node: str) -> bool:
        """Returns True where an error names this node or a key of it."""
        return self.has_error(node) or any(line.startswith(f"{node}.") for line in self.findings)

    @contextlib.contextmanager
    def collecting(self) -> Iterator[None]:
        """Turns a `UserError` into errors of the report, and leaves out a check whose value has an error already."""
        try:
            yield
        except AlreadyReported:
            pass
        except UserError as error:
            for line in str(error).splitlines():
                self.add_error(line)

    @contextlib.contextmanager
    def resting(self) -> Iterator[None]:
        """Leaves out a check that a value of the wrong type breaks, where an error may be the cause."""
        try:
            yield
        except (TypeError, AttributeError, ValueError):
            if not self.findings:  # then the fault is in the check itself
                raise


class AlreadyReported(Exception):
    """Signal of a check that rests on a value with an error: another check has reported it."""


Check: TypeAlias = Callable[[DictConfig, Report], None]
Rule: TypeAlias = Callable[[DictConfig], Iterator[str]]
"""Yields a line a fault."""


def apply_rules(rules: Sequence[Rule], config: DictConfig, report: Report) -> None:
    """Adds the errors of every rule; a rule that cannot be applied keeps no other one from it."""
    for rule in rules:
        with report.collecting():
            for line in rule(config):
                report.add_error(line)


def at(config: DictConfig, key: str) -> Any:
    """Returns the value at a dotted key; None where there is none."""
    return OmegaConf.select(config, key)


def joins_cluster(config: DictConfig) -> bool:
    """Returns True where the run joins a cluster, so that its devices and containers may be on other machines."""
    return joins(at(config, "ray_kwargs.ray_init.address"))


def print_warnings(report: Report) -> None:
    """Prints the warnings, a line each, to standard error."""
    for line in report.warnings:
        print(f"warning: {line}", file=sys.stderr)


def print_report(report: Report, title: str) -> None:
    """Prints the table of facts; the caller prints the errors, one line each."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left")
    for heading in ("", "", "found"):
        table.add_column(heading, overflow="fold")
    # rows of an area stand together, areas in the order of their first row; sorting is stable
    previous, areas = "", list(dict.fromkeys(fact.area for fact in report.facts))
    for fact in sorted(report.facts, key=lambda fact: areas.index(fact.area)):
        table.add_row(fact.area if fact.area != previous else "", fact.name, Text(fact.value))
        previous = fact.area
    Console().print(table)
