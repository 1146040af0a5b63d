"""Provisioning of dashboards and alerts in Ray's folder for Grafana and Prometheus, `<session>/metrics` of the head."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from codedance_verl.errors import UserError
from codedance_verl.metrics.alerts import rules
from codedance_verl.metrics.dashboards import DASHBOARDS
from codedance_verl.metrics.grafana import grafana
from codedance_verl.runtime.atomic import write_atomically

OUTPUT_ROOT_VARIABLE = "RAY_METRICS_OUTPUT_ROOT"
"""Ray's variable for another folder than `<session>/metrics`."""

DASHBOARDS_VARIABLE = "RAY_METRICS_GRAFANA_DASHBOARD_OUTPUT_DIR"
"""Ray's variable for the folder from which its Grafana takes dashboards, in place of `grafana/dashboards`."""

RULES_FILE = "codedance_alerts.yml"
TARGETS_FILE = "codedance_targets.json"


@dataclass(frozen=True)
class Provisioned:
    """Paths that were written: the folder of the dashboards, the configurations of Prometheus and of Grafana."""

    dashboards: Path
    prometheus: Path
    grafana: Path


def metrics_folder(temp_dir: Path) -> Path:
    """Returns Ray's folder for the set-ups of Grafana and Prometheus; `temp_dir` as in `ray start --temp-dir`.

    Raises:
        UserError: no cluster has been started with it on this machine.
    """
    if root := os.environ.get(OUTPUT_ROOT_VARIABLE):
        return Path(root)
    session = temp_dir / "session_latest"
    if not session.exists():
        raise UserError(f"{session}: not there; start a cluster on this machine with `ray start --head` first")
    return session.resolve() / "metrics"


def provision(folder: Path, targets: Sequence[str] = ()) -> Provisioned:
    """Writes dashboards, alert rules and a Prometheus configuration that has them; harmless when repeated.

    Args:
        folder: as of `metrics_folder`.
        targets: `host:port` of the nodes' metrics, for a cluster without Ray's dashboard, which else lists them itself.
    """
    boards = Path(os.environ.get(DASHBOARDS_VARIABLE) or folder / "grafana" / "dashboards")
    boards.mkdir(parents=True, exist_ok=True)
    for dashboard in DASHBOARDS:
        write_atomically(boards / f"{dashboard.uid}.json", json.dumps(grafana(dashboard), indent=1) + "\n")
    prometheus = folder / "prometheus"
    prometheus.mkdir(parents=True, exist_ok=True)
    write_atomically(prometheus / RULES_FILE, yaml.safe_dump(rules(), sort_keys=False, width=120))
    _write_configuration(prometheus, targets)
    return Provisioned(boards, prometheus / "prometheus.yml", folder / "grafana" / "grafana.ini")


def _write_configuration(folder: Path, targets: Sequence[str]) -> None:
    """Adds our rules to Ray's configuration of Prometheus; where Ray wrote none, makes one that scrapes the targets."""
    path = folder / "prometheus.yml"
    config: dict[str, Any] = (yaml.safe_load(path.read_text()) if path.is_file() else None) or {
        "global": {"scrape_interval": "10s", "evaluation_interval": "10s"}
    }
    ours = str(folder / RULES_FILE)
    # Ours once, also when this is repeated; those of others stay.
    config["rule_files"] = [item for item in config.get("rule_files") or [] if item != ours] + [ours]
    if targets:
        listed = folder / TARGETS_FILE
        write_atomically(listed, json.dumps([{"labels": {"job": "ray"}, "targets": list(targets)}]))
        config["scrape_configs"] = [{"job_name": "ray", "file_sd_configs": [{"files": [str(listed)]}]}]
    write_atomically(path, yaml.safe_dump(config, sort_keys=False))
