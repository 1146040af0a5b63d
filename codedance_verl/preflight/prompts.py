"""Token counts of every question, as the rollout makes its prompt, and checks of lengths against each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from codedance_verl.data.rows import Kind
from codedance_verl.data.schema import Prompt, read_prompts
from codedance_verl.environment.config import EnvironmentConfig
from codedance_verl.environment.loop import TURN_MARKS
from codedance_verl.errors import UserError
from codedance_verl.preflight.files import data_keys, data_paths, readable
from codedance_verl.preflight.model_shape import ModelShape
from codedance_verl.preflight.report import AlreadyReported, Report, Rule, apply_rules, at
from codedance_verl.preflight.settings import ROLLOUT, number
from codedance_verl.rollout.prompt_tokens import PromptTokens


@dataclass(frozen=True)
class PromptLengths:
    """Lengths of the prompts of a file.

    Attributes:
        prompts: number of them.
        too_long: number of those above the limit.
        row, tokens, image_tokens: of the longest prompt; its tokens include those of images.
        most_images, most_images_row: images of the prompt with the most of them, and its row.
    """

    prompts: int
    too_long: int
    row: int
    tokens: int
    image_tokens: int
    most_images: int = 0
    most_images_row: int = 0


def longest_prompt(prompts: Iterator[Prompt], tokens: PromptTokens, limit: int) -> PromptLengths:
    """Finds the longest prompt, and counts the prompts above the limit."""
    total = too_long = longest = row = image_tokens = most = most_row = 0
    for prompt in prompts:
        total += 1
        if len(prompt.sizes) > most:
            most, most_row = len(prompt.sizes), prompt.row
        # an upper bound costs no tokenizing, and clears most prompts of being the longest or too long
        if tokens.at_most(prompt) <= min(limit, longest):
            continue
        count = tokens.exactly(prompt)
        too_long += count > limit
        if count > longest:
            longest, row, image_tokens = count, prompt.row, tokens.images(prompt)
    return PromptLengths(total, too_long, row, longest, image_tokens, most, most_row)


def check_prompts(config: DictConfig, report: Report, processor: Any) -> None:
    """Checks every question against `data.max_prompt_length` and `environment.max_images`."""
    with report.collecting():
        limit, environment = number(config, "data.max_prompt_length"), _environment(config)
        tokens = PromptTokens(
            processor, environment.max_image_pixels, environment.format if environment.add_system_prompt else ""
        )
        side = int(environment.max_image_pixels**0.5)  # of a square image of as many pixels
        report.add_row("tokens", "an image of the largest size", tokens.image(side, side))
        for key in ("train_files", "val_files"):
            with report.collecting():
                for path in readable(data_paths(config, key)):
                    _check_file(path, key, tokens, limit, config, report)


def _check_file(path: Path, key: str, tokens: PromptTokens, limit: int, config: DictConfig, report: Report) -> None:
    filtered = bool(at(config, "data.filter_overlong_prompts"))
    try:
        found = longest_prompt(read_prompts(path, Kind.QUESTIONS, data_keys(config)), tokens, limit)
    except UserError as error:
        raise UserError(f"data.{key}: {path}: {error}") from error
    if found.most_images > (allowed := _environment(config).max_images):
        report.add_error(
            f"environment.max_images={allowed}: must be at least {found.most_images}, the images of row "
            f"{found.most_images_row} of {path.name}: vLLM is started with this limit, and would refuse the prompt"
        )
    report.add_row("tokens", f"longest of {key}", f"{found.tokens} of {limit}, {found.image_tokens} of them of images")
    if found.too_long and not filtered:
        report.add_error(
            f"data.max_prompt_length={limit}: must be at least {found.tokens}: {found.too_long} of {found.prompts} "
            f"questions of data.{key} are longer, the longest is row {found.row} of {path.name}, "
            f"{found.image_tokens} of its tokens are of images; or lower environment.max_image_pixels, or set "
            "data.filter_overlong_prompts=true"
        )


def check_lengths(config: DictConfig, report: Report, shape: ModelShape | None) -> None:
    """Checks the lengths against each other, and against the positions of the model."""
    apply_rules(_rules(shape), config, report)


def _rules(shape: ModelShape | None) -> Sequence[Rule]:
    def context(config: DictConfig) -> Iterator[str]:
        key = f"{ROLLOUT}.max_model_len"
        room = number(config, key)
        prompt, response = number(config, "data.max_prompt_length"), number(config, "data.max_response_length")
        if room is not None and room < prompt + response:
            yield (
                f"{key}={room}: must be at least {prompt + response}, data.max_prompt_length={prompt} + "
                f"data.max_response_length={response}"
            )
        if shape is None:
            return
        if room is not None and room > shape.positions:
            yield f"{key}={room}: must be at most {shape.positions}, the max_position_embeddings of the model"
        if room is None and prompt + response > shape.positions:
            yield (
                f"data.max_response_length={response}: with data.max_prompt_length={prompt} must be at most "
                f"{shape.positions}, the max_position_embeddings of the model"
            )

    def feedback(config: DictConfig) -> Iterator[str]:
        response, environment = number(config, "data.max_response_length"), _environment(config)
        if environment.min_answer_tokens + TURN_MARKS >= response:
            yield (
                f"environment.min_answer_tokens={environment.min_answer_tokens}: must be less than "
                f"{response - TURN_MARKS}, data.max_response_length={response} less the marks of a turn, or no "
                "feedback ever fits"
            )

    return (context, feedback)


def _environment(config: DictConfig) -> EnvironmentConfig:
    try:
        return EnvironmentConfig.from_mapping(config.environment)
    except UserError:
        raise AlreadyReported("environment") from None
