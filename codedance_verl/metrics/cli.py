"""`codedance dashboards`: Grafana's pages and Prometheus's alerts for the Ray cluster of this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from codedance_verl.metrics.provision import metrics_folder, provision

TempDir = Annotated[Path, typer.Option("--temp-dir", help="as of `ray start --temp-dir`")]
Target = Annotated[
    list[str] | None,
    typer.Option("--target", help="host:port of a node's metrics, where the cluster runs without Ray's dashboard"),
]


def dashboards(temp_dir: TempDir = Path("/tmp/ray"), target: Target = None) -> None:
    """Puts dashboards and alerts into the set-up of Grafana and Prometheus that Ray made on this machine."""
    written = provision(metrics_folder(temp_dir), target or ())
    print(f"dashboards: {written.dashboards}")
    print(f"prometheus --config.file={written.prometheus} --web.listen-address=127.0.0.1:9090 --web.enable-lifecycle")
    if written.grafana.is_file():
        print(f"grafana server --config {written.grafana} web")
