"""Data sets of training for verl's loaders (`data.custom_cls`): canonical rows, read on demand.

Only what the environment reads reaches verl: a column of a file that has the name of one of verl's own
(`agent_name`, `session_id`, `trajectory`, ...) is never passed on.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from verl.utils.dataset.multiturn_sft_dataset import MultiTurnSFTDataset
from verl.utils.dataset.rl_dataset import RLHFDataset
from verl.utils.tokenizer.chat_template import extract_system_prompt_and_generation

from codedance_verl import images
from codedance_verl.data.fields import Message
from codedance_verl.data.rows import Keys, Kind
from codedance_verl.data.schema import Prompt
from codedance_verl.data.table import RowTable, StoredImage, StoredRow, open_table
from codedance_verl.environment.resized_images import resize_image
from codedance_verl.rollout.prompt_tokens import PromptTokens
from codedance_verl.types import IMAGE_PLACEHOLDER


class QuestionDataset(RLHFDataset):  # type: ignore[misc]  # verl ships no types
    """Questions for RL. An item has the messages with a reference in the place of each image, and the record's fields.

    Images are read and decoded by the rollout (`resized_images.load_resized`), not here.
    """

    def _download(self, use_origin_parquet: bool = False) -> None:
        """Leaves files where they are (`data.use_shm`): paths of images are relative to the folder of the file."""

    def _read_files_and_tokenize(self) -> None:
        table = open_table(
            [Path(file).expanduser() for file in self.data_files],
            Path(self.config.table_dir),
            Kind.QUESTIONS,
            Keys(self.prompt_key, self.image_key),
        )
        table = table.sample(self.max_samples, bool(self.shuffle), self.seed)
        self.dataframe = self._without_long_prompts(table) if self.filter_overlong_prompts else table
        print(f"dataset len: {len(self.dataframe)} of {len(table)}")

    def _without_long_prompts(self, table: RowTable) -> RowTable:
        rendering = self.config.rendering
        tokens = PromptTokens(
            self.processor, int(rendering.max_image_pixels), rendering.format if rendering.add_system_prompt else ""
        )
        return table.filter(lambda row: tokens.is_within(_prompt(row), self.max_prompt_length))

    def __getitem__(self, item: int) -> dict[str, Any]:
        row: StoredRow = self.dataframe[item]
        return {
            "data_source": row.data_source,
            "ability": row.ability,
            "reward_model": {"style": row.style, "ground_truth": row.ground_truth},
            "extra_info": row.extra_info,
            "raw_prompt": _with_references(row),
            "dummy_tensor": torch.tensor([0], dtype=torch.uint8),  # verl's batches hold at least one tensor
            "index": row.extra_info["record_id"],
            "tools_kwargs": {},
            "interaction_kwargs": {},
        }


class DemonstrationDataset(MultiTurnSFTDataset):  # type: ignore[misc]
    """Demonstrations for SFT; images as the rollout shows them, `resized_images.resize_image` of `images.decode`.

    They have at most `data.max_image_pixels` pixels, as in RL `environment.max_image_pixels`.
    """

    def __init__(self, parquet_files: Any, tokenizer: Any, config: Any, *args: Any, **kwargs: Any) -> None:
        self.table_dir, self.max_image_pixels = Path(config.table_dir), int(config.max_image_pixels)
        super().__init__(parquet_files, tokenizer, config, *args, **kwargs)

    def _download(self) -> None:
        """Fetches nothing: the files are on this machine."""

    def _read_files_and_process(self) -> None:
        table = open_table(
            [Path(file).expanduser() for file in self.parquet_files],
            self.table_dir,
            Kind.DEMONSTRATIONS,
            Keys(self.messages_key, self.image_key),
        ).sample(self.max_samples, bool(self.shuffle), self.seed)
        self.dataframe, self.messages = _Frame(table), table
        self.tools = self.enable_thinking = None
        self.system_prompt, self.generation_prompt = extract_system_prompt_and_generation(
            self.tokenizer, **self.apply_chat_template_kwargs
        )
        print(f"dataset len: {len(table)}")

    def __getitem__(self, item: int) -> dict[str, Any]:
        found: dict[str, Any] = super().__getitem__(item)
        if self.processor is not None:  # verl's collator takes the keys of a batch from its first item
            found.setdefault("multi_modal_inputs", {})
        return found

    def _build_messages(self, example: dict[str, StoredRow]) -> list[dict[str, Any]]:
        row = example["row"]
        if self.processor is None:
            return [{"role": message.role, "content": message.content} for message in row.messages]
        resized = [resize_image(images.decode(image.read_bytes()), self.max_image_pixels) for image in row.sources]
        return _messages(row.messages, [{"image": image} for image in resized])


class _Frame:
    """Stand-in for the pandas frame of verl's data set: `iloc[item].to_dict()`."""

    def __init__(self, table: RowTable) -> None:
        self._table = table

    @property
    def iloc(self) -> _Frame:
        return self

    def __getitem__(self, item: int) -> _FrameRow:
        return _FrameRow(self._table[item])


class _FrameRow:
    def __init__(self, row: StoredRow) -> None:
        self._row = row

    def to_dict(self) -> dict[str, StoredRow]:
        return {"row": self._row}


def _with_references(row: StoredRow) -> list[dict[str, Any]]:
    return _messages(row.messages, [{"image": _reference(image)} for image in row.sources])


def _reference(image: StoredImage | Path) -> StoredImage | str:
    return str(image) if isinstance(image, Path) else image


def _messages(messages: Sequence[Message], parts: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns messages as chat templates take them, one image part in the place of each placeholder, in order."""
    left = iter(parts)
    made = []
    for message in messages:
        content: list[dict[str, Any]] = []
        for position, piece in enumerate(message.content.split(IMAGE_PLACEHOLDER)):
            if position > 0:
                content.append({"type": "image", **next(left)})
            if piece:
                content.append({"type": "text", "text": piece})
        made.append({"role": message.role, "content": content})
    return made


def _prompt(row: StoredRow) -> Prompt:
    sizes = tuple(images.shown_size(image.read_bytes()) for image in row.sources)
    return Prompt(0, row.messages, sizes)
