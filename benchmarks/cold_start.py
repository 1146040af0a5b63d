"""Quality of a start for RL: `python benchmarks/cold_start.py MODEL DATA_DIR [--questions 160] [--samples 8]`.

Plain Hugging Face generation over the held-out questions, the model's code run in the process sandbox, answers compared
as text. Prints JSON: accuracy sampled and greedy, tool rate, format and execution success by kind; the share of groups
of samples that are mixed (only those teach GRPO anything); accuracy with a blank image.

It is a quick look while a cold start is tuned; `python -m codedance_verl.evaluate` measures with the real environment.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from codedance_verl.data.schema import Record, read_records
from codedance_verl.environment.config import EnvironmentConfig
from codedance_verl.environment.observations import ObservationLimits, observation_text
from codedance_verl.environment.resized_images import resize_image
from codedance_verl.formats import get_format
from codedance_verl.images import decode
from codedance_verl.sandbox.pool import SandboxPool
from codedance_verl.types import IMAGE_PLACEHOLDER, Execution
from recipes.cpu_demo.demo_sizes import DEFAULT_SIZE

_WELL_FORMED = re.compile(
    r"<think>[^<]*</think>\n(<code>\n```python\n.*\n```\n</code>|<answer>[^<]*</answer>)", re.DOTALL
)
_BATCH = 200
TURN_TOKENS = 160
"""Tokens of a turn, at most."""

LIMITS = EnvironmentConfig()
"""Of observations, as in training by default."""

IMAGE_TOKENS = "<|vision_start|><|image_pad|><|vision_end|>"


@dataclass
class Attempt:
    """One trajectory in the making: `tokens` of the prompt and everything since, `vision` of all images in them."""

    record: Record
    tokens: list[int]
    vision: dict[str, torch.Tensor]
    cells: list[str] = field(default_factory=list)
    succeeded: list[bool] = field(default_factory=list)
    well_formed: bool = True
    answer: str | None = None

    @property
    def correct(self) -> bool:
        return self.answer == self.record.ground_truth


class Player:
    """Plays questions with a model, all of a list side by side."""

    def __init__(self, folder: str, pool: SandboxPool, max_turns: int, pixels: int) -> None:
        self.processor = AutoProcessor.from_pretrained(folder)  # type: ignore[no-untyped-call]
        self.tokenizer = self.processor.tokenizer
        self.model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()  # type: ignore[no-untyped-call]
        self.pool = pool
        self.max_turns, self.pixels = max_turns, pixels
        self.image_token = self.model.config.image_token_id
        self.stops = [
            self.tokenizer.convert_tokens_to_ids(token) for token in (*get_format("code").stop_strings, "<|im_end|>")
        ]

    async def play(self, records: Sequence[Record], sample: bool) -> list[Attempt]:
        attempts = [self._start(record) for record in records]
        live = attempts
        for _ in range(self.max_turns):
            for attempt, generated in zip(live, self._generate(live, sample), strict=True):
                self._read(attempt, generated)
            live = [attempt for attempt in live if attempt.answer is None and attempt.cells]
            await asyncio.gather(*(self._execute(attempt) for attempt in live))
        return attempts

    def _start(self, record: Record) -> Attempt:
        content = [{"type": "image"}, {"type": "text", "text": record.question}]
        text = self.processor.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        views = [resize_image(image, self.pixels) for image in record.load_images()]
        inputs = self.processor(text=[text], images=views, return_tensors="pt")
        vision = {key: inputs[key] for key in ("pixel_values", "image_grid_thw")}
        return Attempt(record, inputs["input_ids"][0].tolist(), vision)

    @torch.no_grad()
    def _generate(self, attempts: Sequence[Attempt], sample: bool) -> list[list[int]]:
        """New tokens of each attempt, up to its first stop, in the order given."""
        order = sorted(range(len(attempts)), key=lambda index: len(attempts[index].tokens))
        new: dict[int, list[int]] = {}
        for start in range(0, len(order), _BATCH):
            chosen = order[start : start + _BATCH]
            length = max(len(attempts[index].tokens) for index in chosen)
            ids = torch.full((len(chosen), length), self.tokenizer.pad_token_id)
            mask = torch.zeros_like(ids)
            for row, index in enumerate(chosen):
                tokens = attempts[index].tokens
                ids[row, length - len(tokens) :] = torch.tensor(tokens)
                mask[row, length - len(tokens) :] = 1
            vision = {key: torch.cat([attempts[index].vision[key] for index in chosen]) for key in attempts[0].vision}
            how: dict[str, Any] = {"do_sample": False}
            if sample:
                how = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
            output = self.model.generate(
                input_ids=ids,
                attention_mask=mask,
                mm_token_type_ids=(ids == self.image_token).long(),
                eos_token_id=self.stops,
                pad_token_id=self.tokenizer.pad_token_id,
                max_new_tokens=TURN_TOKENS,
                **vision,
                **how,
            )
            for row, index in enumerate(chosen):
                new[index] = self._until_stop(output[row, length:].tolist())
        return [new[index] for index in range(len(attempts))]

    def _until_stop(self, tokens: list[int]) -> list[int]:
        end = next((position for position, token in enumerate(tokens) if token in self.stops), len(tokens))
        keep_stop = end < len(tokens) and tokens[end] != self.stops[-1]
        return tokens[: end + keep_stop]

    def _read(self, attempt: Attempt, generated: list[int]) -> None:
        attempt.tokens += generated
        text = self.tokenizer.decode(generated)
        attempt.well_formed &= _WELL_FORMED.fullmatch(text) is not None
        turn = get_format("code").parse(text)
        if turn.code is None:
            attempt.answer = turn.answer or ""
        else:
            attempt.cells.append(turn.code)

    async def _execute(self, attempt: Attempt) -> None:
        """Runs the attempt's cells in a fresh session and appends what the last one printed and showed."""
        async with self.pool.session(*attempt.record.images) as session:
            for cell in attempt.cells:
                result = await session.run(cell, timeout_s=5)
        attempt.succeeded.append(result.succeeded)
        self._observe(attempt, result)

    def _observe(self, attempt: Attempt, result: Execution) -> None:
        """Appends an observation: tokens, and the patches of its images behind those that are there."""
        left = max(LIMITS.max_images - len(attempt.vision["image_grid_thw"]), 0)
        sizes = ObservationLimits(LIMITS.max_observation_chars, self.pixels, left)
        views = [resize_image(decode(image.png), sizes.pixels) for image in result.images[:left]]
        text = observation_text(result, sizes).replace(IMAGE_PLACEHOLDER, IMAGE_TOKENS)
        inputs = self.processor(
            text=[f"<|im_end|>\n<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"],
            images=views or None,
            return_tensors="pt",
        )
        attempt.tokens += inputs["input_ids"][0].tolist()
        if views:
            attempt.vision = {key: torch.cat([known, inputs[key]]) for key, known in attempt.vision.items()}


def summarise(attempts: Sequence[Attempt]) -> dict[str, dict[str, float | None]]:
    """Rates over all questions and by kind."""
    kinds = sorted({attempt.record.ability for attempt in attempts})
    groups = {"overall": list(attempts)}
    groups |= {kind: [attempt for attempt in attempts if attempt.record.ability == kind] for kind in kinds}
    return {name: _rates(group) for name, group in groups.items()}


def _rates(group: Sequence[Attempt]) -> dict[str, float | None]:
    return {
        "accuracy": _mean([attempt.correct for attempt in group]),
        "tool_rate": _mean([bool(attempt.cells) for attempt in group]),
        "format": _mean([attempt.well_formed and bool(attempt.answer) for attempt in group]),
        "execution_success": _mean([success for attempt in group for success in attempt.succeeded]),
    }


def _mixed(groups: Sequence[Sequence[Attempt]]) -> dict[str, float | None]:
    """Shares of the groups of samples of one question that are mixed, all right and all wrong."""
    right = [sum(attempt.correct for attempt in group) / len(group) for group in groups]
    return {
        "mixed": _mean([0 < share < 1 for share in right]),
        "all_right": _mean([share == 1 for share in right]),
        "all_wrong": _mean([share == 0 for share in right]),
    }


def _mean(values: Sequence[bool]) -> float | None:
    return round(sum(values) / len(values), 3) if values else None


async def measure(
    folder: str, data_dir: Path, questions: int, samples: int, max_turns: int, pixels: int
) -> dict[str, Any]:
    torch.manual_seed(0)
    records = read_records(data_dir / "test.parquet").records
    of = {
        variant: [record for record in records if record.extra_info["variant"] == variant][:questions]
        for variant in ("sampled", "greedy", "blank")
    }
    started = time.monotonic()
    async with SandboxPool.local({"backend": "process", "queue_timeout_s": 600}) as pool:
        player = Player(folder, pool, max_turns, pixels)
        greedy = await player.play(of["greedy"], sample=False)
        sampled = await player.play([record for record in of["sampled"] for _ in range(samples)], sample=True)
        blank = await player.play(of["blank"], sample=True)
    groups = [sampled[start : start + samples] for start in range(0, len(sampled), samples)]
    return {
        "model": folder,
        "questions": len(of["greedy"]),
        "samples_per_question": samples,
        "greedy": summarise(greedy),
        "sampled": summarise(sampled),
        "blank": summarise(blank),
        "groups": {
            kind: _mixed([group for group in groups if kind in ("overall", group[0].record.ability)])
            for kind in summarise(sampled)
        },
        "seconds": round(time.monotonic() - started, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("--questions", type=int, default=160)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--max-turns", type=int, default=3)
    parser.add_argument("--pixels", type=int, default=DEFAULT_SIZE**2, help="of an image, at most")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    found = measure(given.model, given.data_dir, given.questions, given.samples, given.max_turns, given.pixels)
    print(json.dumps(asyncio.run(found), indent=1))


if __name__ == "__main__":
    main()
