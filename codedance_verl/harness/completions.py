"""Turns of a chat endpoint: one assistant message a request, whole up to the end of its call or answer.

A server that takes stop strings may keep the string in the text, or cut it off, as OpenAI's API does. It is then put
back where the turn is complete with it. A stop string within a thought or a string of the code ends no turn: such a
turn is asked for again without stop strings, and cut at its end by the format. Of a server that refuses stop strings
every turn is cut so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from codedance_verl.formats import TurnFormat
from codedance_verl.harness.http import Refusal, Transport
from codedance_verl.harness.reply import Unanswered
from codedance_verl.records.record import Status

_REFUSED_FIELDS = (400, 422)  # FastAPI's servers answer 422 to fields that they do not take
# servers have no error code in common for it
_TOO_LONG = ("context length", "context_length", "maximum context", "max_model_len", "too long", "too many tokens")
_NEWER_NAME = "max_completion_tokens"

MOST_TOKENS = 1_000_000_000
"""Tokens that a reply may report, so that sums stay finite."""


class ContextFull(Exception):
    """The conversation is longer than the model takes."""


@dataclass(frozen=True)
class Completion:
    """Message of the model.

    Attributes:
        text: content, as the endpoint gave it, or up to the end of the turn.
        reasoning: thoughts that the endpoint gave apart from the content; empty for none.
        cut: the endpoint has stopped at its limit of tokens.
        prompt_tokens, completion_tokens: counts; None where the endpoint gives none.
        model: name as the endpoint states it.
        stop: stop string that the endpoint names; None where it names none.
        natural: the endpoint says that the model itself ended its turn.
    """

    text: str
    reasoning: str = ""
    cut: bool = False
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    model: str = ""
    stop: str | None = None
    natural: bool = False


class Completions:
    """Source of completions of one model at one endpoint; it remembers which fields the endpoint refuses."""

    def __init__(self, transport: Transport, model: str) -> None:
        self._transport = transport
        self._model = model
        self._form = 0
        self._tokens_field = "max_tokens"

    async def once(self, messages: Sequence[Mapping[str, Any]], fields: Mapping[str, Any]) -> Completion:
        """Completion without stop strings.

        Args:
            messages: of the conversation, in OpenAI's format.
            fields: sampling, and `max_tokens`; that one goes by its newer name where the endpoint asks for it.

        Raises:
            ContextFull: the messages do not fit into the model.
            Overloaded, Unanswered, Refusal: as `Transport.post`.
        """
        # another request may learn the newer name while this one is under way
        sent = self._tokens_field
        try:
            return await self._asked(messages, fields, sent)
        except Refusal as refusal:
            if "max_tokens" not in fields or _NEWER_NAME not in refusal.message or sent == _NEWER_NAME:
                raise
        self._tokens_field = _NEWER_NAME
        return await self._asked(messages, fields, _NEWER_NAME)

    async def turn(
        self, messages: Sequence[Mapping[str, Any]], fields: Mapping[str, Any], format: TurnFormat
    ) -> Completion:
        """Completion that ends with its first complete call or answer. Raises what `once` does."""
        stops = list(format.stop_strings)
        # the second field is vLLM's own, which stricter servers refuse
        forms: tuple[dict[str, Any], ...] = ({"stop": stops, "include_stop_str_in_output": True}, {"stop": stops}, {})
        for number in range(self._form, len(forms)):
            try:
                found = await self.once(messages, {**fields, **forms[number]})
            except Refusal as refusal:
                if refusal.status not in _REFUSED_FIELDS or number + 1 == len(forms):
                    raise
                continue
            # another request may have come further meanwhile
            self._form = max(self._form, number)  # with fewer fields it works
            break
        whole = _completed(found, stops, format) if forms[number] else _at_end(found, format)
        return whole or _at_end(await self.once(messages, fields), format)

    async def _asked(
        self, messages: Sequence[Mapping[str, Any]], fields: Mapping[str, Any], tokens_field: str
    ) -> Completion:
        named = {tokens_field if name == "max_tokens" else name: value for name, value in fields.items()}
        body = {"model": self._model, "messages": list(messages), **named}
        try:
            # escaped to ASCII: no text fails to encode, even with half a surrogate pair
            reply = await self._transport.post("chat/completions", lambda: json.dumps(body).encode())
        except Refusal as refusal:
            if refusal.status == 400 and _is_too_long(refusal):
                raise ContextFull(str(refusal)) from None
            raise
        return _read(reply)


def _completed(found: Completion, stops: Sequence[str], format: TurnFormat) -> Completion | None:
    """Completion up to the end of its turn, a stop string that was cut off put back; None where the turn goes on."""
    if format.end(found.text) is not None or found.cut or found.natural:
        return _at_end(found, format)
    if any(found.text.endswith(stop) for stop in stops):
        return None  # it was kept, and the turn is not over
    for stop in stops if found.stop is None else [found.stop]:
        # a closing tag that closes nothing also ends a turn, so that the end alone does not say which tag it was
        whole = found.text + stop
        parsed = format.parse(whole)
        asks = parsed.code is not None or parsed.fault is not None or parsed.answer is not None
        if asks and format.end(whole) is not None:
            return _with_text(found, whole)
    # without the name of the string, the model has most likely ended a turn that asks for nothing
    return None if found.stop is not None else found


def _at_end(found: Completion, format: TurnFormat) -> Completion:
    end = format.end(found.text)
    return found if end is None else _with_text(found, found.text[:end])


def _with_text(found: Completion, text: str) -> Completion:
    return Completion(**{**vars(found), "text": text})


def _read(body: Mapping[str, Any]) -> Completion:
    """Completion of a body. Raises Unanswered: it is none."""
    try:
        choice, usage = body["choices"][0], body.get("usage") or {}
        message = choice["message"]
        named = choice.get("stop_reason")
        return Completion(
            text=_text(message.get("content")),
            # both names are in use
            reasoning=_text(message.get("reasoning_content") or message.get("reasoning")),
            cut=choice.get("finish_reason") == "length",
            prompt_tokens=_tokens(usage.get("prompt_tokens")),
            completion_tokens=_tokens(usage.get("completion_tokens")),
            model=str(body.get("model") or "")[:200],  # goes on record, so it is bounded
            stop=named if isinstance(named, str) else None,
            # vLLM has null where the end token came, and a server that never names a string has no such field
            natural="stop_reason" in choice and not isinstance(named, str),
        )
    except (KeyError, IndexError, TypeError, AttributeError, ValueError):
        raise Unanswered(Status.ENDPOINT_FAILURE, "the reply is no chat completion") from None


def _text(content: Any) -> str:
    """Text of a content: itself, or its parts that are text. Half a surrogate pair becomes `?`."""
    if isinstance(content, list):
        content = "".join(str(part["text"]) for part in content if part.get("type") == "text")
    if content is not None and not isinstance(content, str):
        raise TypeError("no text")
    return (content or "").encode("utf-8", "replace").decode()


def _tokens(reported: Any) -> int | None:
    if reported is None:
        return None
    # JSON's `true` would pass for the int 1
    if isinstance(reported, bool) or not isinstance(reported, int) or not 0 <= reported <= MOST_TOKENS:
        raise ValueError("no count of tokens")
    return reported


def _is_too_long(refusal: Refusal) -> bool:
    said = f"{refusal.code} {refusal.message}".lower()
    return any(sign in said for sign in _TOO_LONG)
