"""Loads files as a run does: the check, then the dataset of the trainer, then the start of a rollout of each item."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from PIL import Image

from codedance_verl.data.checking import Checked, check_file
from codedance_verl.data.rows import DEFAULT_KEYS, Keys, Kind
from codedance_verl.environment.stall_watchdog import TrackedRollout
from codedance_verl.images import decode, pixels_sha256
from codedance_verl.rollout.dataset import QuestionDataset
from codedance_verl.types import record_id_of
from tests.unit.environment.harness import Script, loop_of, processor, tokenizer


@dataclass(frozen=True)
class Loaded:
    """One record as a rollout has it: the item, what the model sees of it, and what its code gets."""

    item: dict[str, Any]
    views: list[Image.Image]
    prompt: str
    model_hashes: tuple[str, ...]
    code_images: list[Image.Image]

    @property
    def truth(self) -> str:
        return str(self.item["reward_model"]["ground_truth"])


def check(files: Sequence[Path], keys: Keys = DEFAULT_KEYS) -> list[Checked]:
    """What `codedance data check` finds."""
    return [check_file(file, needs=Kind.QUESTIONS, keys=keys) for file in files]


def dataset(files: Sequence[Path], table_dir: Path, max_samples: int = -1, **data: Any) -> QuestionDataset:
    """The dataset as verl's trainer builds it."""
    rendering = {"max_image_pixels": 1_003_520, "add_system_prompt": False, "format": "code"}
    config = OmegaConf.create({"table_dir": str(table_dir), "rendering": rendering, "shuffle": False, **data})
    config.setdefault("filter_overlong_prompts", False)
    return QuestionDataset(
        [str(file) for file in files], tokenizer(), config, processor=processor("qwen2_5_vl"), max_samples=max_samples
    )


def load(files: Sequence[Path], table_dir: Path, **data: Any) -> list[Loaded]:
    """Every record of the files, through the dataset and the agent loop's own rendering."""
    found = dataset(files, table_dir, **data)
    return [asyncio.run(_started(found[index])) for index in range(len(found))]


async def _started(item: dict[str, Any]) -> Loaded:
    loop = loop_of(Script([]), model=None)
    task = asyncio.current_task()
    assert task is not None
    rollout = await loop._start(item, TrackedRollout(record_id_of(item), task))
    files = rollout.sandbox._images() if rollout.sandbox._images else []
    prompt = str(tokenizer().decode(rollout.stream.ids))
    return Loaded(item, rollout.images, prompt, rollout.image_hashes, [decode(data) for data in files])


def same_for_both(loaded: Loaded) -> bool:
    """Whether what the model's views were made of is what code gets."""
    return list(loaded.model_hashes) == [pixels_sha256(image) for image in loaded.code_images]
