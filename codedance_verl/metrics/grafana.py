"""Grafana's JSON of the dashboards.

Plain dictionaries: the builders of grafana-foundation-sdk take 83 lines for it. Tests hold the result to its types.
"""

from __future__ import annotations

from typing import Any

from codedance_verl.metrics.catalogue import EXPOSED_PREFIX
from codedance_verl.metrics.dashboards import Dashboard, Panel

_COLUMNS, _WIDTH, _HEIGHT = 3, 8, 8  # of Grafana's grid, 24 units wide
_DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
_RUNS = f'label_values({{__name__=~"{EXPOSED_PREFIX}codedance_.+"}}, run)'
_VARIABLES = [
    {"name": "datasource", "type": "datasource", "query": "prometheus", "hide": 2},
    {
        "name": "run",
        "label": "run",
        "type": "query",
        "datasource": _DATASOURCE,
        "query": {"query": _RUNS, "refId": "run"},
        "refresh": 2,  # whenever the time range changes, so that new runs appear
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    },
]
_LINK = {"type": "dashboards", "title": "CodeDance", "tags": ["codedance"], "asDropdown": True, "includeVars": True}


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
        "templating": {"list": _VARIABLES},
        "links": [_LINK],
        "panels": [_grafana_panel(index, panel) for index, panel in enumerate(dashboard.panels)],
    }


def _grafana_panel(index: int, panel: Panel) -> dict[str, Any]:
    row, column = divmod(index, _COLUMNS)
    fill, stacking = (30, "normal") if panel.stacked else (0, "none")
    custom = {"fillOpacity": fill, "showPoints": "auto", "spanNulls": True, "stacking": {"mode": stacking}}
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
