"""Requests of clients: the body of an OpenAI chat completion, read into the messages of training.

Images come within the request. Nothing is ever fetched, from the network or from this machine's files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from codedance_verl.data.conditions import Control
from codedance_verl.formats import ANSWER_END, render_answer
from codedance_verl.serving.errors import RequestError
from codedance_verl.serving.request_images import Bounds, read_image

_NEUTRAL: Mapping[str, Sequence[Any]] = {
    "n": (1,),
    "stop": ([], ""),
    "tools": ([],),
    "functions": ([],),
    "tool_choice": ("none", "auto"),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
}
"""Fields of the API that are not supported, with the values that change nothing and are allowed."""


EXTENSION = "codedance"
"""Field of a request, and of a reply's message, that is no part of OpenAI's API."""

_EXAMPLE = '{"control": "no_tools", "max_turns": 3}'


@dataclass(frozen=True)
class ChatRequest:
    """Request in the form that the loop of training takes.

    Attributes:
        messages: roles `system`, `user`, `assistant`; an image is a part with its file (`bytes`) and itself (`image`).
        images: files of the images that code gets as `input_images`: those of the last message that has any, in order.
        model: name that the client gave.
        temperature: 0 to 2; None for the server's own.
        top_p: above 0, to 1.
        seed: of the sampling; None for any.
        max_tokens: of the trajectory; None for as many as the server allows.
        stream: the reply comes in parts.
        with_usage: a stream ends with counts of tokens.
        with_token_ids: the reply has the tokens of prompt and turns.
        control: intervention of an evaluation; None for the environment as it is.
        max_turns: assistant turns, no more than the server allows; None for the server's own.
    """

    messages: tuple[dict[str, Any], ...]
    images: tuple[bytes, ...]
    model: str | None = None
    temperature: float | None = None
    top_p: float = 1.0
    seed: int | None = None
    max_tokens: int | None = None
    stream: bool = False
    with_usage: bool = False
    with_token_ids: bool = False
    control: Control | None = None
    max_turns: int | None = None


def read_request(body: bytes, special_tokens: Sequence[str], bounds: Bounds) -> ChatRequest:
    """Reads a request and decodes its images; call it in a thread.

    `special_tokens` are broken up where a text has them: only the chat template may write them.

    Raises:
        RequestError: with status 400.
    """
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):  # the latter for a body of nested brackets
        raise RequestError("the body is no valid JSON") from None
    if not isinstance(asked, dict):
        raise RequestError("the body must be a JSON object")
    _refuse_unsupported(asked)
    messages, images = _Messages(special_tokens, bounds).read(asked.get("messages"))
    options = asked.get("stream_options")
    control, max_turns = _extension(asked)
    return ChatRequest(
        messages=tuple(messages),
        images=tuple(images),
        model=_text_or_none(asked, "model"),
        temperature=_number(asked, "temperature", 0.0, 2.0),
        top_p=_number(asked, "top_p", 1e-6, 1.0) or 1.0,
        seed=_whole(asked, "seed", -(2**63), 2**63 - 1),
        # the newer name of OpenAI's API first
        max_tokens=_whole(asked, "max_completion_tokens", 1, 2**31) or _whole(asked, "max_tokens", 1, 2**31),
        stream=_flag(asked, "stream"),
        with_usage=isinstance(options, dict) and _flag(options, "include_usage"),
        with_token_ids=_flag(asked, "return_token_ids"),
        control=control,
        max_turns=max_turns,
    )


class _Messages:
    """Reader of the messages of one request, which counts its images and their pixels."""

    def __init__(self, special_tokens: Sequence[str], bounds: Bounds) -> None:
        self._special = re.compile("|".join(map(re.escape, special_tokens))) if special_tokens else None
        self._bounds = bounds
        self._count = 0
        self._pixels = 0

    def read(self, given: Any) -> tuple[list[dict[str, Any]], list[bytes]]:
        """Returns the messages, and the images of the last one that has any."""
        if not isinstance(given, list) or not given:
            raise RequestError("messages must be a list with at least one message", param="messages")
        messages: list[dict[str, Any]] = []
        latest: list[bytes] = []
        for index, message in enumerate(given):
            param = f"messages[{index}]"
            if not isinstance(message, dict):
                raise RequestError(f"{param} must be an object", param=param)
            read, images = self._message(message, param)
            messages.append(read)
            latest = images or latest
        if messages[-1]["role"] != "user":
            raise RequestError("the last message must be the user's", param="messages")
        if not latest:
            raise RequestError(
                "no image: add a part of type image_url with a data: URL to a message of the user",
                param="messages",
                code="no_image",
            )
        return messages, latest

    def _message(self, message: Mapping[str, Any], param: str) -> tuple[dict[str, Any], list[bytes]]:
        role, content = message.get("role"), message.get("content")
        if role in ("system", "developer"):  # OpenAI's newer name of the system role
            return {"role": "system", "content": self._joined(content, param)}, []
        if role == "assistant":
            text = self._joined(content or "", param)
            # clients keep the `content` alone: the model must read its own answers in their tags, as in training
            return {"role": "assistant", "content": text if ANSWER_END in text else render_answer(text)}, []
        if role != "user":
            raise RequestError(
                f"{param}.role is {role!r}; system, user and assistant are understood", param=f"{param}.role"
            )
        if isinstance(content, str):
            return {"role": "user", "content": self._plain(content)}, []
        if not isinstance(content, list) or not content:
            raise RequestError(f"{param}.content must be a text or a list of parts", param=f"{param}.content")
        parts = [self._part(part, f"{param}.content[{index}]") for index, part in enumerate(content)]
        return {"role": "user", "content": parts}, [part["bytes"] for part in parts if part["type"] == "image"]

    def _part(self, part: Any, param: str) -> dict[str, Any]:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text" and isinstance(part.get("text"), str):
            return {"type": "text", "text": self._plain(part["text"])}
        if kind != "image_url":
            raise RequestError(f"{param} must be a part of type text or image_url", param=param)
        self._count += 1
        if self._count > self._bounds.max_images:
            raise RequestError(f"more than {self._bounds.max_images} images", param=param, code="too_many_images")
        given = part.get("image_url")
        url = given.get("url") if isinstance(given, dict) else given
        data, image = read_image(url, self._bounds, param, self._pixels)
        self._pixels += image.width * image.height
        return {"type": "image", "bytes": data, "image": image}

    def _joined(self, content: Any, param: str) -> str:
        """Returns a text, or the joined text of parts."""
        if isinstance(content, str):
            return self._plain(content)
        if isinstance(content, list) and all(
            isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)
            for part in content
        ):
            return self._plain("".join(part["text"] for part in content))
        raise RequestError(f"{param}.content must be text", param=f"{param}.content")

    def _plain(self, text: str) -> str:
        """Returns a text with special tokens broken up, as in feedback, and without lone surrogates."""
        text = text.encode("utf-8", "replace").decode()
        if self._special is None:
            return text
        # a space behind the first character: the text stays readable, and the tokenizer finds no special token
        return self._special.sub(lambda found: f"{found.group()[0]} {found.group()[1:]}", text)


def _refuse_unsupported(asked: Mapping[str, Any]) -> None:
    for key, neutral in _NEUTRAL.items():
        value = asked.get(key)
        if value is not None and value not in neutral:
            allowed = " or ".join(json.dumps(item) for item in neutral) or "null"
            raise RequestError(f"{key} is not supported here; leave it out or set it to {allowed}", param=key)


def _extension(asked: Mapping[str, Any]) -> tuple[Control | None, int | None]:
    """Returns control and most turns of the field that is this server's own."""
    given = asked.get(EXTENSION)
    if given is None:
        return None, None
    if not isinstance(given, dict):
        raise RequestError(f"{EXTENSION} must be an object, such as {_EXAMPLE}", param=EXTENSION)
    if unknown := sorted(set(given) - {"control", "max_turns"}):
        names = ", ".join(f"{EXTENSION}.{name}"[:100] for name in unknown[:5])
        raise RequestError(f"unknown: {names}; control and max_turns are understood", param=names.split(", ")[0])
    return _control(given), _whole(given, "max_turns", 1, 2**31, f"{EXTENSION}.")


def _control(given: Mapping[str, Any]) -> Control | None:
    value = given.get("control")
    if value is None:
        return None
    # a list or an object among the JSON values has no hash, so that `Control(value)` alone would not do
    if not isinstance(value, str) or value not in set(Control):
        param = f"{EXTENSION}.control"
        raise RequestError(f"{param} must be one of {', '.join(Control)}, or null", param=param)
    return Control(value)


def _number(asked: Mapping[str, Any], key: str, low: float, high: float) -> float | None:
    value = asked.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RequestError(f"{key} must be a number", param=key)
    if not low <= value <= high:
        raise RequestError(f"{key} must be from {low:g} to {high:g}", param=key)
    return float(value)


def _whole(asked: Mapping[str, Any], key: str, low: int, high: int, below: str = "") -> int | None:
    value = asked.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise RequestError(f"{below}{key} must be a whole number, at least {low}", param=below + key)
    return value


def _flag(asked: Mapping[str, Any], key: str) -> bool:
    value = asked.get(key)
    if value is not None and not isinstance(value, bool):
        raise RequestError(f"{key} must be true or false", param=key)
    return bool(value)


def _text_or_none(asked: Mapping[str, Any], key: str) -> str | None:
    value = asked.get(key)
    if value is not None and not isinstance(value, str):
        raise RequestError(f"{key} must be a text", param=key)
    return value
