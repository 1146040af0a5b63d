"""Tables of docs/metrics.md, made from the catalogue: `python -m codedance_verl.metrics.table` renews the page."""

from __future__ import annotations

import re
import sys
from itertools import groupby
from pathlib import Path

from codedance_verl.metrics.alerts import ALERTS
from codedance_verl.metrics.catalogue import METRICS, Metric

PAGE = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"


def metrics_table() -> str:
    """Returns a table for each part of the system."""
    parts = []
    for part, metrics in groupby(METRICS, key=lambda metric: metric.part):
        rows = [_row(metric) for metric in metrics]
        head = f"### {part}\n\n| metric | kind | labels | unit | meaning |\n|---|---|---|---|---|\n"
        parts.append(head + "\n".join(rows) + "\n")
    return "\n".join(parts)


def alerts_table() -> str:
    """Returns the table of the alerts, with the cure of each."""
    rows = []
    for alert in ALERTS:
        # A page shows the label's name where Prometheus puts its value.
        what = re.sub(r"\{\{ \$(?:labels\.)?(\w+)[^}]*\}\}", lambda found: f"*{found[1]}*", alert.what)
        rows.append(f"| `{alert.name}` | {alert.severity}, after {alert.lasting} | {what} | {alert.cure} |")
    return "| alert | severity | message | cure |\n|---|---|---|---|\n" + "\n".join(rows) + "\n"


def page(text: str) -> str:
    """Returns the page with its tables renewed."""
    for name, table in (("metrics", metrics_table()), ("alerts", alerts_table())):
        before, after = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        head, rest = text.split(before)
        text = head + before + table + after + rest.split(after)[1]
    return text


def _row(metric: Metric) -> str:
    labels = ", ".join(metric.labels) or "-"
    return f"| `{metric.name}` | {metric.kind} | {labels} | {metric.unit} | {metric.description} |"


if __name__ == "__main__":
    if not PAGE.is_file():
        sys.exit(f"error: no page {PAGE}: the tables are renewed in a checkout")
    PAGE.write_text(page(PAGE.read_text()))
