"""Table of verl's features, read from `capabilities.yaml`; docs/configuration.md shows it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import yaml

from codedance_verl.config.run import RunConfig
from codedance_verl.preflight.capabilities import Capability, Status
from codedance_verl.preflight.capability_words import ROOT
from codedance_verl.preflight.settings import OURS

OWN = (*OURS, *RunConfig.model_fields, "run_dir", "env_vars")
"""Keys of this project; what reads them checks them."""

_BELOW_ROOT = ("actor", "rollout", "model", "ref", "hybrid_engine", "nccl_timeout")


def _rows() -> Iterator[Capability]:
    areas = yaml.safe_load(Path(__file__).with_name("capabilities.yaml").read_text())
    for area, rows in areas.items():
        for row in rows:
            given = {name: tuple(row.get(name, ())) for name in ("keys", "examples")}
            given["keys"] = tuple(f"{ROOT}.{key}" if key.split(".")[0] in _BELOW_ROOT else key for key in given["keys"])
            status, note = Status(row["status"]), row.get("note", "")
            yield Capability(area, row["feature"], status, note, **given, open=row.get("open", False))


TABLE = tuple(_rows())
"""Every row, in the order of the documentation."""
