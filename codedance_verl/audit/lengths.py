"""Lengths of training prompts against the budgets of a recipe: histograms of tokens and of image tokens."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from codedance_verl.config.compose import compose_config
from codedance_verl.data.rows import Kind
from codedance_verl.data.schema import read_prompts
from codedance_verl.environment.config import EnvironmentConfig
from codedance_verl.errors import UserError
from codedance_verl.preflight.files import load_processor
from codedance_verl.preflight.report import Report as PreflightReport
from codedance_verl.rollout.prompt_tokens import PromptTokens

_BINS = 16


@dataclass(frozen=True)
class Histogram:
    """Counts of records by a number of tokens. `edges` has one more number than `counts`; a count holds its lower
    edge and not its upper one."""

    edges: tuple[int, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Lengths:
    """Lengths of prompts.

    Attributes:
        recipe: name of the recipe whose budgets these are.
        limit: tokens that a prompt may have (`data.max_prompt_length`).
        prompts, too_long: prompts, and those above the limit.
        most_images: images of the prompt with the most; `max_images` of them are allowed.
        tokens, image_tokens: histograms of all tokens of a prompt, and of those of its images.
    """

    recipe: str
    limit: int
    prompts: int
    too_long: int
    most_images: int
    max_images: int
    tokens: Histogram
    image_tokens: Histogram


def measure_lengths(paths: Iterable[Path], recipe: str, model: Path) -> Lengths:
    """Lengths of the prompts of files, counted as a run of the recipe counts them, with the model's tokenizer.

    Raises UserError: no such recipe, the model's processor cannot be loaded, or a file cannot be read.
    """
    config = compose_config("train", [f"recipe={recipe}"], complete=False)
    environment, limit = EnvironmentConfig.from_mapping(config.environment), int(config.data.max_prompt_length)
    report = PreflightReport()
    processor = load_processor(model, report, "--model")
    if processor is None:
        raise UserError(f"--model={model}: its processor cannot be loaded; copy the model's folder whole")
    counter = PromptTokens(
        processor, environment.max_image_pixels, environment.format if environment.add_system_prompt else ""
    )
    tokens, of_images = Counter[int](), Counter[int]()
    most_images = 0
    for path in paths:
        for prompt in read_prompts(path, Kind.QUESTIONS):
            tokens[counter.exactly(prompt)] += 1
            of_images[counter.images(prompt)] += 1
            most_images = max(most_images, len(prompt.sizes))
    too_long = sum(count for length, count in tokens.items() if length > limit)
    return Lengths(
        *(recipe, limit, tokens.total(), too_long, most_images, environment.max_images),
        histogram(tokens),
        histogram(of_images),
    )


def histogram(counts: Counter[int]) -> Histogram:
    """At most `_BINS` equal bins of whole numbers from 0 to the largest."""
    width = max(1, math.ceil((max(counts, default=0) + 1) / _BINS))
    bins = Counter(dict.fromkeys(range(math.ceil((max(counts, default=0) + 1) / width)), 0))
    for length, count in counts.items():
        bins[length // width] += count
    return Histogram(
        tuple(place * width for place in range(len(bins) + 1)), tuple(bins[place] for place in sorted(bins))
    )
