"""Draws docs/pictures/dashboard_*.png: what Prometheus answers to the dashboards' panels over a real run of the demo.

python docs/draw_dashboards.py --demo outputs/demo --out docs/pictures

The panels' queries, titles and units are those of Grafana's JSON; matplotlib takes Grafana's place, so that the
pictures can be made where there is no Grafana. The run starts from the demo's SFT model, needs `prometheus` on the
PATH and a container engine, and takes about ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from benchmarks.prometheus import Points, Prometheus, metrics_address, prometheus  # noqa: E402
from codedance_verl.metrics.dashboards import DASHBOARDS, Dashboard, Panel, runnable  # noqa: E402

COLUMNS = 3
PICTURE_STEP_S = 2.0
UNITS = {"none": "", "s": "s", "bytes": "B", "percentunit": "share"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, required=True, help="folder of a finished `make demo`")
    parser.add_argument("--out", type=Path, required=True, help="folder of the pictures")
    parser.add_argument("--steps", type=int, default=6, help="steps of the run")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)  # before the minutes that a run takes
    with tempfile.TemporaryDirectory(prefix="cdd-") as folder:
        _watch(given.demo, given.steps, Path(folder), given.out)


def _watch(demo: Path, steps: int, folder: Path, out: Path) -> None:
    """Run the training, and draw the pages before Prometheus ends with it."""
    run_dir, ray_dir = folder / "demo", folder / "ray"
    command = [
        *(sys.executable, "-m", "codedance_verl.train", "recipe=cpu_demo", "hardware=cpu"),
        f"run_dir={run_dir}",
        f"data.train_files={demo / 'data' / 'rl_train.parquet'}",
        f"data.val_files={demo / 'data' / 'rl_val.parquet'}",
        f"actor_rollout_ref.model.path={demo / 'sft' / 'model'}",
        f"trainer.total_training_steps={steps}",
        f"trainer.test_freq={max(1, steps // 2)}",
        "monitors.window=32",
        f"+ray_kwargs.ray_init._temp_dir={ray_dir}",
    ]
    started = time.time()
    run = subprocess.Popen(command, cwd=REPOSITORY)
    try:
        with prometheus(folder / "metrics", _target(ray_dir, run)) as server:
            if run.wait() != 0:
                raise SystemExit("the run has failed")
            for page in DASHBOARDS:
                draw(page, server, started, time.time(), out / f"{page.uid.replace('codedance-', 'dashboard_')}.png")
    finally:
        run.kill()
        run.wait()


def _target(ray_dir: Path, run: subprocess.Popen[bytes]) -> str:
    """Where the run's own Ray shows its metrics."""
    while run.poll() is None:
        if address := metrics_address(ray_dir):
            return address
        time.sleep(0.5)
    raise SystemExit("the run has failed before it had a port for metrics")


def draw(page: Dashboard, server: Prometheus, start: float, end: float, path: Path) -> None:
    """One picture of a page's panels, three in a row, over a span of Unix time."""
    rows = math.ceil(len(page.panels) / COLUMNS)
    figure, grid = plt.subplots(
        rows, COLUMNS, figsize=(5 * COLUMNS, 2.9 * rows), dpi=80, layout="constrained", squeeze=False
    )
    figure.suptitle(page.title, fontsize=15)
    for axes, panel in zip(grid.flat, page.panels, strict=False):
        _draw_panel(axes, panel, _series(panel, server, start, end), start)
    for axes in list(grid.flat)[len(page.panels) :]:
        axes.axis("off")
    figure.savefig(path)
    plt.close(figure)
    print(path)


def _series(panel: Panel, server: Prometheus, start: float, end: float) -> Sequence[tuple[str, Points]]:
    found: list[tuple[str, Points]] = []
    for query, legend in panel.queries:
        for labels, points in server.ranges(runnable(query, "60s"), start, end, PICTURE_STEP_S):
            found.append((_named(legend, labels), [point for point in points if math.isfinite(point[1])]))
    return found


def _named(legend: str, labels: Mapping[str, str]) -> str:
    """The legend with the series' labels in place of Grafana's {{label}}."""
    for name, value in labels.items():
        legend = legend.replace("{{" + name + "}}", value)
    return legend


def _draw_panel(axes: Any, panel: Panel, series: Sequence[tuple[str, Points]], start: float) -> None:
    for label, points in series:
        axes.plot([(at - start) / 60 for at, _ in points], [value for _, value in points], label=label, lw=1.4)
    axes.set_title(panel.title, fontsize=11, loc="left")
    axes.set_ylabel(UNITS.get(panel.unit, panel.unit), fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.3)
    if any(points for _, points in series):
        axes.legend(fontsize=7, ncols=2, loc="upper left")
    else:
        axes.text(0.5, 0.5, "no data in this run", ha="center", transform=axes.transAxes, color="#888888")
    axes.set_xlabel("minutes", fontsize=8)


if __name__ == "__main__":
    main()
