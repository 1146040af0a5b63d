"""The catalogue of attacks is sound, and a runner's verdict follows what was observed."""

from __future__ import annotations

import ast
from collections import Counter

from rich.console import Console

from sandbox_security import selfcheck
from sandbox_security.attacks.attack import ERROR, OK, Attack, Needs
from sandbox_security.attacks.catalogue import ALL
from sandbox_security.attacks.runner import Outcome
from sandbox_security.selfcheck import CheckOutcome, Report

GROUPS = {"resources", "escape", "network", "other sessions", "host files", "protocol", "time", "deception"}
ONE = Attack("open the door", "escape", ("1",), OK)


def test_there_are_attacks_of_every_class_under_names_of_their_own() -> None:
    assert {attack.group for attack in ALL} == GROUPS
    assert len(ALL) >= 60
    assert not [name for name, times in Counter(attack.name for attack in ALL).items() if times > 1]


def test_an_attack_says_what_must_come_of_it() -> None:
    for attack in ALL:
        assert attack.cells and attack.statuses, attack.name
        for code in attack.cells:
            ast.parse(code)
        assert not attack.refusals or attack.statuses & ERROR, f"{attack.name}: refusals are exceptions"
        assert attack.alone or not attack.shared_fate, attack.name


def report(*outcomes: Outcome, basics: tuple[CheckOutcome, ...] = ()) -> Report:
    return Report("process", "", basics, outcomes, 1.0)


def test_a_report_passes_when_nothing_that_was_run_had_a_problem() -> None:
    assert report(Outcome(ONE), Outcome(ONE, skipped="needs a container")).passed
    assert not report(Outcome(ONE), Outcome(ONE, "it is open")).passed
    assert not report(basics=(CheckOutcome("numpy works", "it is not there", 0.1),)).passed


def test_a_report_names_what_was_not_contained_and_what_was_not_run() -> None:
    other = Attack("climb in", "host files", ("1",), OK, needs=Needs.CONTAINER)
    console = Console(record=True, width=120)
    selfcheck.show(report(Outcome(ONE, "it is open"), Outcome(other, skipped="needs a container")), console)
    text = console.export_text()
    assert "NOT CONTAINED: escape: open the door: it is open" in text
    assert "host files: climb in (needs a container)" in text
    told = report(Outcome(ONE, "it is open", 0.5)).as_json()["attacks"]
    assert told == [
        {"name": "open the door", "class": "escape", "state": "not contained", "reason": "it is open", "seconds": 0.5}
    ]
