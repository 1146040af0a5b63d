"""Metrics of a run: their catalogue and emission, dashboards and alerts."""
