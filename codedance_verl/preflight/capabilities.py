"""Keys of verl that are used here, refused, or without effect, and those to set instead.

`capabilities.yaml` has a row for each feature. The row of the longest prefix of its key decides on a value that differs
from the one composed without it, so that no key of verl's is silently ignored.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from codedance_verl.config.compose import CONF_DIR, chosen_files
from codedance_verl.preflight.report import Report


class Status(Enum):
    """Treatment of a feature; keys of the last two are refused when they are changed."""

    WORKS = "works"
    REFUSED = "refused"
    NO_EFFECT = "no effect"


@dataclass(frozen=True)
class Capability:
    """Feature of verl: a row of the table in docs/configuration.md.

    Attributes:
        area, feature: headings of the row.
        status: treatment of the feature.
        note: restriction, or the key to set instead; ends the line of a refusal.
        keys: dotted prefixes of its keys in verl's tree; a longer prefix in another row wins.
        examples: overrides that show the status: they pass the dry run, or end it with an error.
        open: its mappings take keys that verl's tree does not list.
    """

    area: str
    feature: str
    status: Status
    note: str
    keys: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()
    open: bool = False


@dataclass(frozen=True)
class Change:
    """Value that differs from what is composed without it.

    Attributes:
        key: dotted.
        value: not resolved.
        added: verl's tree does not list the key.
        node: values of the mapping that it replaces by something else; None where it replaces none.
    """

    key: str
    value: Any
    added: bool = False
    node: Mapping[str, Any] | None = None


def check_capabilities(config: DictConfig, report: Report) -> None:
    """Finds every changed key that is refused, has no effect, or is unknown to a node that takes what it is given."""
    from codedance_verl.preflight.capability_table import OWN, TABLE

    for change in changes(config):
        # a key nobody lists falls to the row of its node, if any: a new key of verl's is refused or works with its node
        row = row_of(change.key, TABLE)
        if change.key.split(".")[0] in OWN:
            continue
        if change.node is not None:
            report.add_error(f"{shown(change)}: is a node of keys{_some(change.node)}; {_cure(change, row)}")
        elif row is None:
            report.add_error(f"{shown(change)}: unknown key; `--cfg job` prints every key there is")
        elif row.status is not Status.WORKS:
            what = "has no effect here" if row.status is Status.NO_EFFECT else "is refused"
            report.add_error(f"{shown(change)}: {what}: {row.note}")
        elif change.added and not row.open and not in_dataclass(config, change.key):
            report.add_error(f"{shown(change)}: unknown key; nothing reads it")


def changes(config: DictConfig) -> tuple[Change, ...]:
    """Returns the differences from verl's tree with `conf/base.yaml` over it."""
    raw: Any = OmegaConf.to_container(config, resolve=False)
    return tuple(_changes(composed_values(), raw, ""))


def nodes_are_whole(config: DictConfig) -> bool:
    """Returns True where every mapping of verl's tree still is one."""
    return all(change.node is None for change in changes(config))


def row_of(key: str, table: tuple[Capability, ...]) -> Capability | None:
    """Returns the row with the longest prefix of a key."""
    prefixes = {prefix: row for row in table for prefix in row.keys}
    names = key.split(".")
    for length in range(len(names), 0, -1):
        if row := prefixes.get(".".join(names[:length])):
            return row
    return None


def in_dataclass(config: DictConfig, key: str) -> bool:
    """Returns True where a mapping above a key becomes a dataclass of verl's, which refuses other fields itself."""
    names = key.split(".")
    above = (OmegaConf.select(config, ".".join(names[:length])) for length in range(1, len(names)))
    return any(isinstance(node, DictConfig) and "_target_" in node for node in above)


def markdown(table: tuple[Capability, ...]) -> str:
    """Returns the table for docs/configuration.md, without `actor_rollout_ref.` before the names of its nodes."""
    lines = ["| verl's feature | | keys | to know, or to set instead |", "|---|---|---|---|"]
    area = ""
    for row in table:
        if row.area != area:
            lines.append(f"| **{row.area}** | | | |")
            area = row.area
        keys = [key.removeprefix("actor_rollout_ref.") for key in row.keys]
        listed = ", ".join(f"`{key}`" for key in keys[:_SHOWN]) + ", ..." * (len(keys) > _SHOWN)
        lines.append(f"| {row.feature} | {row.status.value} | {listed} | {row.note} |")
    return "\n".join(lines)


_SHOWN = 6
"""Keys of a row in the documentation."""


@functools.cache
def composed_values() -> dict[str, Any]:
    """Returns verl's training tree with `conf/base.yaml` over it, interpolations unresolved; not to be changed."""
    values = {"model_engine": "dp", **shipped_values()}
    _merge(values, _load(CONF_DIR / "base.yaml"))
    return values


def chosen_pairs(config: DictConfig) -> frozenset[tuple[str, str]]:
    """Returns dotted keys with the `repr` of their values, as set by the files a configuration was composed of."""
    return frozenset(pair for path in chosen_files(config) for pair in _pairs_of(path))


@functools.cache
def _pairs_of(path: Path) -> frozenset[tuple[str, str]]:
    return frozenset(_pairs(_load(path) or {}, ""))


def _pairs(values: Mapping[str, Any], above: str) -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _pairs(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", repr(value)


def shipped_values() -> dict[str, Any]:
    """Returns verl's training tree for FSDP, which verl ships composed."""
    import verl

    values: dict[str, Any] = _load(
        Path(str(verl.__file__)).parent / "trainer" / "config" / "_generated_ppo_trainer.yaml"
    )
    return values


def _load(path: Path) -> Any:
    # the C loader where there is one: verl's tree is long
    return yaml.load(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def _merge(values: dict[str, Any], over: Mapping[str, Any]) -> None:
    for name, value in over.items():
        if isinstance(value, Mapping) and isinstance(values.get(name), dict):
            _merge(values[name], value)
        else:
            values[name] = value


def _changes(before: Mapping[str, Any], now: Mapping[str, Any], above: str) -> Iterator[Change]:
    for name, value in now.items():
        key = f"{above}{name}"
        old = before.get(name)
        if name == "_target_" or (name in before and _same(old, value)):
            continue
        if isinstance(value, dict) and (value or isinstance(old, dict)):
            yield from _changes(old if isinstance(old, dict) else {}, value, f"{key}.")
        # an interpolation may stand for a whole mapping
        elif isinstance(old, dict) and not isinstance(value, dict) and "${" not in str(value):
            yield Change(key, value, node=old)
        else:
            yield Change(key, value, added=name not in before)


def _same(before: Any, now: Any) -> bool:
    # True == 1 in Python, yet `key=1` is no way to write a boolean
    return bool(before == now) and isinstance(before, bool) == isinstance(now, bool)


def shown(change: Change) -> str:
    """Returns a change as it is written on the command line."""
    return f"{change.key}={value_shown(change.value)}"


def value_shown(value: object) -> str:
    """Returns a value as it is written on the command line."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _some(node: Mapping[str, Any]) -> str:
    names = [name for name in node if name != "_target_"]
    return f" ({', '.join(names[:3])}{', ...' * (len(names) > 3)})" if names else ""


def _cure(change: Change, row: Capability | None) -> str:
    if row is None or row.status is Status.WORKS:
        return f"set them one by one, as {change.key}.KEY=VALUE"
    what = "none has an effect here" if row.status is Status.NO_EFFECT else "they are refused"
    return f"{what}: {row.note}"
