"""Models that the demo can train, apart from what builds them: its libraries take seconds to import."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DemoModel:
    """A model of the demo.

    Attributes:
        title: what the progress line calls it.
        folder: name of the demo's output folder in `outputs/`, unless another one is given.
        overrides: of the configuration of an evaluation or a training, beside `recipe=cpu_demo`.
    """

    title: str
    folder: str
    overrides: tuple[str, ...] = ()


DEFAULT_MODEL = "tiny"

DEMO_MODELS = {
    DEFAULT_MODEL: DemoModel("tiny Qwen2.5-VL", "demo"),
    "tiny_qwen3": DemoModel("tiny Qwen3-VL", "demo_qwen3", ("model=tiny_qwen3",)),
}
"""By the name of the file in `conf/model`; `tiny_vlm.FAMILIES` has the same names."""
