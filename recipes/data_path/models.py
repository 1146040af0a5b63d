"""Settings of the weak and of the strong model, as `codedance eval` takes them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from codedance_verl.harness import settings
from codedance_verl.harness.cli import overrides_of
from codedance_verl.harness.settings import EvalSettings
from recipes.cpu_demo.stages import Layout
from recipes.data_path.paths import run_of_rl
from recipes.data_path.teacher import NAME

TEMPERATURE = 1.0
"""Of the weak model, as in the demo's RL; the teacher has no temperature."""


def weak_model(demo: Layout, out: Path, files: Sequence[Path], backend: str) -> EvalSettings:
    """Settings of the demo's model after SFT, in this process, under those of the demo's RL."""
    return _loaded(demo, out, files, backend, str(demo.sft), None)


def teacher(demo: Layout, out: Path, files: Sequence[Path], backend: str, url: str) -> EvalSettings:
    """Settings of the teacher at its endpoint, under those of the demo's RL: form, turns, and size of images."""
    return _loaded(demo, out, files, backend, NAME, url)


def tell(line: str) -> None:
    """Prints a line of progress."""
    print(line, file=sys.stderr, flush=True)


def _loaded(demo: Layout, out: Path, files: Sequence[Path], backend: str, model: str, url: str | None) -> EvalSettings:
    keys = [
        f"serving.settings_of={run_of_rl(demo)}",
        f"sandbox.backend={backend}",
        f"eval.temperature={TEMPERATURE}",
        # the endpoint is not asked what it is: it is known to be no `codedance serve`
        *(["eval.loop=chat"] if url else []),
    ]
    return settings.load(overrides_of({"model": model, "out": out, "endpoint": url}, [*map(str, files), *keys]))
