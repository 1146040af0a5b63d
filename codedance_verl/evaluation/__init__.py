"""Figures from logged rollouts: metrics with intervals, learning curves, `report.json` and `report.html`."""
