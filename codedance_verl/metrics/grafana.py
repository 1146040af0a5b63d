"""Grafana's JSON of the dashboards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from codedance_verl.metrics.catalogue import EXPOSED_PREFIX
from codedance_verl.metrics.dashboards import Dashboard, Panel

_COLUMNS, _WIDTH, _HEIGHT = 3, 8, 8  # of Grafana's grid, 24 units wide
_DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


def grafana(dashboard: Dashboard) -> dict[str, Any]:
    """Returns Grafana's JSON of a dashboard, with a choice of the data source and of the runs on top."""
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "tags": ["codedance"],
        "schemaVersion": 39,  # Grafana migrates older ones when it loads them
        "timezone": "browser",
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": _variables()},
        "links": [_links()],
        "panels": [_grafana_panel(index, panel) for index, panel in enumerate(dashboard.panels)],
    }


def _links() -> dict[str, Any]:
    return {"type": "dashboards", "title": "CodeDance", "tags": ["codedance"], "asDropdown": True, "includeVars": True}


def _variables() -> Sequence[dict[str, Any]]:
    query = f'label_values({{__name__=~"{EXPOSED_PREFIX}codedance_.+"}}, run)'
    return (
        {"name": "datasource", "type": "datasource", "query": "prometheus", "hide": 2},
        {
            "name": "run",
            "label": "run",
            "type": "query",
            "datasource": _DATASOURCE,
            "query": {"query": query, "refId": "run"},
            "refresh": 2,
            "multi": True,
            "includeAll": True,
            "allValue": ".*",
            "current": {"text": "All", "value": "$__all"},
        },
    )


def _grafana_panel(index: int, panel: Panel) -> dict[str, Any]:
    row, column = divmod(index, _COLUMNS)
    custom: dict[str, Any] = {"fillOpacity": 30 if panel.stacked else 0, "showPoints": "auto", "spanNulls": True}
    custom["stacking"] = {"mode": "normal" if panel.stacked else "none"}
    return {
        "id": index + 1,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.description,
        "datasource": _DATASOURCE,
        "gridPos": {"h": _HEIGHT, "w": _WIDTH, "x": column * _WIDTH, "y": row * _HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "custom": custom}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {"refId": chr(ord("A") + k), "datasource": _DATASOURCE, "expr": query, "legendFormat": legend}
            for k, (query, legend) in enumerate(panel.queries)
        ],
    }
