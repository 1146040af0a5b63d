"""The page of metrics says what the catalogue says."""

from __future__ import annotations

import re

from codedance_verl.metrics.alerts import ALERTS
from codedance_verl.metrics.catalogue import METRICS
from codedance_verl.metrics.table import PAGE, page


def test_the_page_has_the_tables_of_the_catalogue() -> None:
    """`python -m codedance_verl.metrics.table` brings it up to date."""
    text = PAGE.read_text()
    assert page(text) == text
    assert all(f"| `{item.name}` |" in text for item in (*METRICS, *ALERTS))


def test_the_page_has_the_new_names_of_renamed_metrics() -> None:
    renamed = PAGE.read_text().split("### Renamed metrics")[1].split("## ")[0]
    names = re.findall(r"^\| `(\w+)` \| `(\w+)` \|$", renamed, re.MULTILINE)
    now = {metric.name for metric in METRICS}
    assert names and all(old not in now and new in now for old, new in names)
