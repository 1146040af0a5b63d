"""Counts the tokens of every question as the rollout will make them, and holds lengths against each other.

Pictures are counted by the processor's own arithmetic of patches, after the two scalings they go through: that of
verl's dataset (`qwen_vl_utils.smart_resize`) and that of the environment (`environment.max_image_pixels`). Text is
tokenised only where its bytes leave it open whether it is too long: a byte-level token has at least one byte.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from codedance_verl.data.schema import Message, Prompt, read_prompts
from codedance_verl.errors import UserError
from codedance_verl.preflight.files import data_paths, readable
from codedance_verl.preflight.model_shape import ModelShape
from codedance_verl.preflight.report import Report, Rule, ToldAlready, apply_rules, at
from codedance_verl.preflight.settings import ACTOR, ROLLOUT, number
from codedance_verl.rollout.config import EnvironmentConfig
from codedance_verl.rollout.formats import get_format
from codedance_verl.rollout.instructions import with_instructions
from codedance_verl.rollout.observations import IMAGE_PLACEHOLDER
from codedance_verl.rollout.views import padded_size, patch_count, view_size

MARKS_OF_A_MESSAGE = 16
"""Tokens that a chat template puts around a message, at most."""

TURN_TOKENS = 16
"""As the rollout reserves for the marks of a feedback turn (`rollout.interaction.TURN_MARKS`)."""


class PromptTokens:
    """Counts tokens of prompts.

    `max_pixels`: of the view of a picture, None for no limit. `instructions`: the format whose instructions lead a
    prompt without a system message, empty for none. `answer_follows`: end with the mark of the assistant's turn.
    """

    def __init__(
        self, processor: Any, max_pixels: int | None, instructions: str = "", answer_follows: bool = True
    ) -> None:
        self._processor, self._max_pixels, self._answer_follows = processor, max_pixels, answer_follows
        self._format = get_format(instructions) if instructions else None
        self._patches = patch_count(processor)
        self._factor = int(processor.image_processor.patch_size) * int(processor.image_processor.merge_size)
        self._frame = self._tokens_of([{"role": "user", "content": []}])

    def picture(self, width: int, height: int) -> int:
        """Tokens of a picture of this size, without the marks around it. Raises `UserError` where it is too narrow."""
        from qwen_vl_utils.vision_process import smart_resize

        try:
            height, width = smart_resize(height, width, self._factor)
        except ValueError as error:
            raise UserError(f"a picture of {width} x {height} pixels: {error}") from error
        width, height = padded_size(width, height)
        if self._max_pixels is not None:
            width, height = view_size(width, height, self._max_pixels)
        return self._patches(width, height)

    def at_most(self, prompt: Prompt) -> int:
        """No less than `exactly`, without tokenising anything."""
        text = sum(len(message.content.encode()) + MARKS_OF_A_MESSAGE for message in prompt.messages)
        return self._frame + text + self.pictures(prompt)

    def exactly(self, prompt: Prompt) -> int:
        """Tokens of the prompt."""
        messages = [{"role": message.role, "content": _parts(message)} for message in prompt.messages]
        return self._tokens_of(messages) + self.pictures(prompt) - len(prompt.sizes)

    def pictures(self, prompt: Prompt) -> int:
        return sum(self.picture(*size) for size in prompt.sizes)

    def _tokens_of(self, messages: list[dict[str, Any]]) -> int:
        """Tokens of the rendered messages; a picture is one."""
        if self._format is not None:
            messages = with_instructions(messages, self._format)
        text = self._processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=self._answer_follows)
        return len(self._processor.tokenizer(text, add_special_tokens=False)["input_ids"])


@dataclass(frozen=True)
class Longest:
    """Of a file: how many prompts there are, how many are too long, and the longest, with its tokens of pictures."""

    prompts: int
    too_long: int
    row: int
    tokens: int
    pictures: int


def longest_prompt(prompts: Iterator[Prompt], tokens: PromptTokens, limit: int) -> Longest:
    """Find the longest prompt and count those beyond the limit."""
    total = too_long = longest = row = pictures = 0
    for prompt in prompts:
        total += 1
        if tokens.at_most(prompt) <= min(limit, longest):
            continue
        count = tokens.exactly(prompt)
        too_long += count > limit
        if count > longest:
            longest, row, pictures = count, prompt.row, tokens.pictures(prompt)
    return Longest(total, too_long, row, longest, pictures)


def check_prompts(config: DictConfig, report: Report, processor: Any) -> None:
    """Hold every question against `data.max_prompt_length`."""
    with report.collecting():
        limit, environment = number(config, "data.max_prompt_length"), _environment(config)
        tokens = PromptTokens(
            processor, environment.max_image_pixels, environment.format if environment.instructions else ""
        )
        side = int(environment.max_image_pixels**0.5)
        report.say("tokens", "a picture of the largest view", tokens.picture(side, side))
        for key in ("train_files", "val_files"):
            with report.collecting():
                for path in readable(data_paths(config, key)):
                    _check_file(path, key, tokens, limit, bool(at(config, "data.filter_overlong_prompts")), report)


def _check_file(path: Path, key: str, tokens: PromptTokens, limit: int, filtered: bool, report: Report) -> None:
    try:
        found = longest_prompt(read_prompts(path), tokens, limit)
    except UserError as error:
        raise UserError(f"data.{key}: {path}: {error}") from error
    report.say("tokens", f"longest of {key}", f"{found.tokens} of {limit}, {found.pictures} of them pictures")
    if found.too_long and not filtered:
        report.find(
            f"data.max_prompt_length={limit}: must be at least {found.tokens}: {found.too_long} of {found.prompts} "
            f"questions of data.{key} are longer, the longest is row {found.row} of {path.name}, {found.pictures} of "
            "its tokens are pictures; or lower environment.max_image_pixels, or set data.filter_overlong_prompts=true"
        )


def check_lengths(config: DictConfig, report: Report, shape: ModelShape | None) -> None:
    """Hold the lengths against each other, and against what the model can read."""
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
        if environment.answer_tokens + TURN_TOKENS >= response:
            yield (
                f"environment.answer_tokens={environment.answer_tokens}: must be less than {response - TURN_TOKENS}, "
                f"data.max_response_length={response} less the marks of a turn, or no feedback ever fits"
            )

    def heads(config: DictConfig) -> Iterator[str]:
        key = f"{ROLLOUT}.tensor_model_parallel_size"
        parallel = number(config, key)
        if shape is not None and shape.heads % parallel:
            yield f"{key}={parallel}: must divide the {shape.heads} attention heads of the model"
        key = f"{ACTOR}.ulysses_sequence_parallel_size"
        parallel = number(config, key)
        if shape is not None and shape.heads % parallel:
            yield f"{key}={parallel}: must divide the {shape.heads} attention heads of the model"

    return (context, feedback, heads)


def _environment(config: DictConfig) -> EnvironmentConfig:
    try:
        return EnvironmentConfig.from_mapping(config.environment)
    except UserError:
        raise ToldAlready("environment") from None


def _parts(message: Message) -> list[dict[str, str]]:
    """A message's content as chat templates take it, a picture in the place of each placeholder."""
    parts: list[dict[str, str]] = []
    for position, piece in enumerate(message.content.split(IMAGE_PLACEHOLDER)):
        if position > 0:
            parts.append({"type": "image"})
        if piece:
            parts.append({"type": "text", "text": piece})
    return parts
