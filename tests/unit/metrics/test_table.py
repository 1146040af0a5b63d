"""The page of metrics says what the catalogue says."""

from __future__ import annotations

from codedance_verl.metrics.alerts import ALERTS
from codedance_verl.metrics.catalogue import METRICS
from codedance_verl.metrics.table import PAGE, page


def test_the_page_has_the_tables_of_the_catalogue() -> None:
    """`python -m codedance_verl.metrics.table` brings it up to date."""
    text = PAGE.read_text()
    assert page(text) == text
    assert all(f"| `{item.name}` |" in text for item in (*METRICS, *ALERTS))
