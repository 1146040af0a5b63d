"""What a run tells of itself while it goes on: the catalogue of its metrics, their emission, dashboards and alerts."""
