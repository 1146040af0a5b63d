"""The capability matrix is true: what it refuses is refused, what it says works passes, and it knows every key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from codedance_verl.config.compose import CONF_DIR, compose_leniently
from codedance_verl.config.overrides import key_of
from codedance_verl.preflight.capabilities import Status, check_capabilities, markdown, row_of, shipped_values
from codedance_verl.preflight.capability_table import OWN, TABLE
from codedance_verl.preflight.checks import check_values
from codedance_verl.preflight.report import Report

DOCUMENT = Path(__file__).parents[3] / "docs" / "configuration.md"
KEYS_OF_VERL = 898
"""Leaves of the training tree of verl 0.9.1. Where another version has another number, look at what is new."""

BASE = ["recipe=cpu_demo", "hardware=cpu", "run_dir=/tmp/run"]


def test_the_documentation_has_the_table() -> None:
    assert markdown(TABLE) in DOCUMENT.read_text()


def test_every_key_of_verl_has_a_row() -> None:
    keys = list(_leaves(shipped_values()))
    assert [key for key in keys if row_of(key, TABLE) is None] == []
    assert len(keys) == KEYS_OF_VERL


def test_a_key_is_in_one_row_and_the_rows_are_of_verl() -> None:
    keys = [key for row in TABLE for key in row.keys]
    assert len(keys) == len(set(keys))
    assert not {key.split(".")[0] for key in keys} & set(OWN)


def test_what_is_refused_has_an_example_and_says_what_to_do() -> None:
    for row in TABLE:
        if row.status is not Status.WORKS:
            assert row.examples and row.note, row.feature


def _leaves(values: Mapping[str, Any], above: str = "") -> Iterator[str]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{above}{name}.")
        else:
            yield f"{above}{name}"


def _batches(*statuses: Status) -> list[list[str]]:
    """Examples of these rows in command lines, none of which names a key or a group twice."""
    batches = list[list[str]]()
    for example in (example for row in TABLE if row.status in statuses for example in row.examples):
        for batch in batches:
            if not any(_meet(example, other) for other in batch):
                batch.append(example)
                break
        else:
            batches.append([example])
    return batches


def _meet(one: str, other: str) -> bool:
    keys = sorted((key_of(one), key_of(other)), key=len)
    return keys[0] == keys[1] or keys[1].startswith(f"{keys[0]}.")


def _told(overrides: list[str]) -> list[str]:
    composed = compose_leniently("train", [*BASE, *overrides])
    report = Report(dry=True)
    if composed.config is not None:
        check_capabilities(composed.config, report)
        check_values(composed.config, report)
    return [*composed.mistakes, *report.findings]


@pytest.mark.slow
@pytest.mark.parametrize("batch", _batches(Status.REFUSED, Status.NO_EFFECT), ids=lambda batch: batch[0])
def test_what_the_table_refuses_is_refused(batch: list[str]) -> None:
    told = _told(batch)
    for example in batch:
        lines = [line for line in told if line.startswith((f"{key_of(example)}=", f"{key_of(example)}:"))]
        assert len(lines) == 1, (example, lines)
    assert len(told) == len(batch), told


@pytest.mark.slow
@pytest.mark.parametrize("batch", _batches(Status.WORKS), ids=lambda batch: batch[0])
def test_what_the_table_says_works_passes(batch: list[str]) -> None:
    assert _told(batch) == []


@pytest.mark.slow
@pytest.mark.parametrize("model", sorted(path.stem for path in (CONF_DIR / "model").glob("*.yaml")))
def test_what_the_files_of_the_models_set_is_taken(model: str) -> None:
    assert _told([f"model={model}"]) == []


@pytest.mark.slow
def test_a_patch_has_pixels() -> None:
    (line,) = _told(["data.image_patch_size=0"])
    assert line.startswith("data.image_patch_size=0: ")
