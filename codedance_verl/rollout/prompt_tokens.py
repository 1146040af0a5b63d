"""Counts of the tokens of a prompt as the rollout will make them, without decoding an image.

Images are counted by the processor's own arithmetic of patches, at their resized size. Text is tokenised only where
its bytes leave it open whether it is too long: a byte-level token has at least one byte.
"""

from __future__ import annotations

from typing import Any

from codedance_verl.data.fields import Message
from codedance_verl.data.schema import Prompt
from codedance_verl.environment.resized_images import patch_count, resized_size
from codedance_verl.environment.system_prompt import with_instructions
from codedance_verl.formats import get_format
from codedance_verl.types import IMAGE_PLACEHOLDER

MARKS_OF_A_MESSAGE = 16
"""Most tokens that a chat template puts around a message."""


class PromptTokens:
    """Counter of the tokens of prompts.

    `max_pixels`: of a resized image, None for no limit. `instructions`: the format whose instructions lead a prompt
    without a system message, empty for none. `answer_follows`: end with the mark of the assistant's turn.
    """

    def __init__(
        self, processor: Any, max_pixels: int | None, instructions: str = "", answer_follows: bool = True
    ) -> None:
        self._processor, self._max_pixels, self._answer_follows = processor, max_pixels, answer_follows
        self._format = get_format(instructions) if instructions else None
        self._patches = patch_count(processor)
        self._frame = self._tokens_of([{"role": "user", "content": []}])

    def image(self, width: int, height: int) -> int:
        """Returns the tokens of an image of this size, without the marks around it."""
        return self._patches(*resized_size(width, height, self._max_pixels))

    def at_most(self, prompt: Prompt) -> int:
        """Returns an upper bound of `exactly`, without tokenising anything."""
        text = sum(len(message.content.encode()) + MARKS_OF_A_MESSAGE for message in prompt.messages)
        return self._frame + text + self.images(prompt)

    def exactly(self, prompt: Prompt) -> int:
        """Returns the tokens of the prompt."""
        # the template writes one placeholder token per image, which the image's own tokens take the place of
        messages = [{"role": message.role, "content": _parts(message)} for message in prompt.messages]
        return self._tokens_of(messages) + self.images(prompt) - len(prompt.sizes)

    def is_within(self, prompt: Prompt, limit: int) -> bool:
        """Returns whether a prompt has at most so many tokens."""
        return self.at_most(prompt) <= limit or self.exactly(prompt) <= limit

    def images(self, prompt: Prompt) -> int:
        return sum(self.image(*size) for size in prompt.sizes)

    def _tokens_of(self, messages: list[dict[str, Any]]) -> int:
        """Returns the tokens of the rendered messages; an image is one."""
        if self._format is not None:
            messages = with_instructions(messages, self._format)
        text = self._processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=self._answer_follows)
        return len(self._processor.tokenizer(text, add_special_tokens=False)["input_ids"])


def _parts(message: Message) -> list[dict[str, str]]:
    """Returns a message's content as chat templates take it, an image in the place of each placeholder."""
    parts: list[dict[str, str]] = []
    for position, piece in enumerate(message.content.split(IMAGE_PLACEHOLDER)):
        if position > 0:
            parts.append({"type": "image"})
        if piece:
            parts.append({"type": "text", "text": piece})
    return parts
