"""Answers of a running `codedance serve`, whose loop and sandbox are the server's: trajectories come back as data."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
from PIL import Image, UnidentifiedImageError

from codedance_verl.data.conditions import Control
from codedance_verl.errors import UserError
from codedance_verl.harness.completions import MOST_TOKENS
from codedance_verl.harness.faults import status_of
from codedance_verl.harness.http import Endpoint, Refusal, Transport
from codedance_verl.harness.image_urls import UNREADABLE, png_of, question_messages
from codedance_verl.harness.reply import ImageFolder, Overloaded, Question, Reply, Unanswered
from codedance_verl.harness.sampling import Sampling, defaults_of
from codedance_verl.records.key import Json
from codedance_verl.records.record import Status
from codedance_verl.trajectories.schema import ImageRef, Timing, TurnRecord
from codedance_verl.types import FinishReason

IDENTITY_S = 600.0
"""Wall seconds for the server's identity, for which it may read files of the model."""


class NotServed(UserError):
    """Server that answers, but is no `codedance serve`."""


@dataclass(frozen=True)
class ServedSettings:
    """Switches of the requests.

    Attributes:
        sampling: temperature None is the server's own.
        control: intervention; None for the environment as it is.
        max_turns: assistant turns, no more than the server allows; None for the server's own.
    """

    sampling: Sampling = field(default_factory=Sampling)
    control: Control | None = None
    max_turns: int | None = None


class ServedAnswerer:
    """Answerer over one server; get one from `opened`."""

    def __init__(self, transport: Transport, settings: ServedSettings, identity: Mapping[str, Any]) -> None:
        self._transport = transport
        self._settings = settings
        self._identity = identity

    @classmethod
    @asynccontextmanager
    async def opened(
        cls, endpoint: Endpoint, settings: ServedSettings, variables: Mapping[str, str] | None = None
    ) -> AsyncIterator[ServedAnswerer]:
        """Asks the server who it is; connections close with the block. `variables` hold the key, as `os.environ`.

        Raises:
            UserError: no such server there, or it allows fewer turns than are asked for.
        """
        async with Transport.opened(endpoint, variables) as transport:
            identity = await _identity(transport)
            allowed = identity["limits"]["environment"]["max_turns"]
            if settings.max_turns is not None and settings.max_turns > allowed:
                raise UserError(
                    f"max_turns={settings.max_turns}: {endpoint.url} allows {allowed}; start it with "
                    f"environment.max_turns={settings.max_turns}"
                )
            yield cls(transport, settings, identity)

    @property
    def model(self) -> str:
        """Name of the model that is served."""
        return str(self._identity["model"]["name"])

    @property
    def most_at_once(self) -> int:
        """Questions in flight: no more than the server takes."""
        return min(self._transport.endpoint.at_once, int(self._identity["capacity"]["max_requests"]))

    def describe(self) -> dict[str, Json]:
        """Parts of the key as the server states them, turns and tokens as they are asked for."""
        limits, settings = self._identity["limits"], self._settings
        environment = dict(limits["environment"])
        environment["max_turns"] = settings.max_turns or environment["max_turns"]
        tokens = min(limits["response_tokens"], settings.sampling.max_tokens or limits["response_tokens"])
        return {
            "model": self._identity["model"],
            "prompt": self._identity["prompt"],
            "limits": {
                **limits,
                "environment": environment,
                "response_tokens": tokens,
                **defaults_of(settings.sampling.temperature, self._identity),
            },
        }

    async def answer(self, question: Question, images: ImageFolder) -> Reply:
        """Reply of the server (`Answerer.answer`)."""
        try:
            reply = await self._transport.post("chat/completions", lambda: self._body(question))
        except Refusal as refusal:
            raise Unanswered(status_of(refusal.code), str(refusal), refusal.unanswered().of_item) from None
        except UNREADABLE as error:  # of an image; the transport itself raises none of them
            raise Unanswered(Status.IMAGE_UNREADABLE, f"{type(error).__name__}: {error}"[:300]) from None
        return await asyncio.to_thread(_reply, reply, images)

    def _body(self, question: Question) -> bytes:
        settings = self._settings
        body: dict[str, Any] = {
            "model": self.model,
            "messages": question_messages(question),
            **settings.sampling.fields(settings.sampling.seed_of_sample(question.sample)),
        }
        if settings.sampling.max_tokens is not None:
            body["max_tokens"] = settings.sampling.max_tokens
        extension = {"control": settings.control, "max_turns": settings.max_turns}
        if chosen := {name: value for name, value in extension.items() if value is not None}:
            body["codedance"] = chosen
        return json.dumps(body).encode()


_OTHER_LOOPS = "eval.loop=chat runs the loop here, eval.loop=plain asks once"


async def _identity(transport: Transport) -> dict[str, Any]:
    url = transport.endpoint.url
    try:
        async with asyncio.timeout(IDENTITY_S):
            identity = await transport.get("codedance")
    except Refusal as refusal:
        # a refused key says nothing about the kind of server
        kind = UserError if refusal.status in (401, 403) else NotServed
        raise kind(f"{url}/codedance: {refusal}; {_hint(refusal, transport.endpoint)}") from None
    except (Unanswered, Overloaded, TimeoutError) as error:
        # a gateway before another server may say anything to an unknown path
        reason = f"{url}/codedance: cannot be asked ({error or 'no reply in time'}); is the server running?"
        raise UserError(f"{reason} If it is no `codedance serve`: {_OTHER_LOOPS}") from None
    try:
        return _checked(identity)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        reason = f"{url}/codedance: states no model and limits ({type(error).__name__}: {error})"[:300]
        raise UserError(f"{reason}; is it `codedance serve` of this version? If not: {_OTHER_LOOPS}") from None


def _hint(refusal: Refusal, endpoint: Endpoint) -> str:
    if refusal.status in (401, 403):
        return f"set {endpoint.api_key_env or 'a variable'} to its key" if refusal.status == 401 else "it admits others"
    return f"it is no `codedance serve` of this version: {_OTHER_LOOPS}"


def _checked(identity: dict[str, Any]) -> dict[str, Any]:
    """Identity with the fields that are read here in place.

    Raises KeyError, TypeError, ValueError or OverflowError: one is missing, or not what it should be.
    """
    limits, capacity = identity["limits"], identity["capacity"]
    # for the error that it raises where the value is missing or no number
    float(identity["sampling"]["temperature"])
    wholes = (limits["environment"]["max_turns"], limits["response_tokens"], capacity["max_requests"])
    if any(int(number) < 1 for number in wholes) or not isinstance(identity["model"]["name"], str):
        raise ValueError("no limits")
    return {**identity, "prompt": identity["prompt"]}  # the lookup raises where there is no prompt


_NO_REPLY = (
    KeyError,
    IndexError,
    TypeError,
    ValueError,  # of msgspec too
    OverflowError,
    SyntaxError,  # of Pillow, for some damaged images
    UnidentifiedImageError,
    Image.DecompressionBombError,
)


def _reply(body: Mapping[str, Any], images: ImageFolder) -> Reply:
    """Reply of a body, its images kept. Raises Unanswered: it is none, or an image is not what it is said to be."""
    try:
        message = body["choices"][0]["message"]
        record, usage = message["codedance"], body["usage"]
        turns = msgspec.convert(record["turns"], tuple[TurnRecord, ...])
        timing = msgspec.convert(record["timing"], Timing)
        counts = [msgspec.convert(usage[name], int) for name in ("prompt_tokens", "completion_tokens")]
        _check_numbers(msgspec.to_builtins((turns, timing, counts)))
        _keep(turns, [png_of(part["image_url"]["url"]) for part in message["images"]], images)
        return Reply(
            text=msgspec.convert(message["content"], str),
            finish=FinishReason(record["finish"]),
            turns=turns,
            prompt_tokens=counts[0],
            completion_tokens=counts[1],
            timing=timing,
            served_by=msgspec.convert(body["model"], str),
        )
    except _NO_REPLY as error:
        reason = f"{type(error).__name__}: {error}"[:200]
        raise Unanswered(Status.ENDPOINT_FAILURE, f"the reply is none of `codedance serve` ({reason})") from None


def _check_numbers(value: Any) -> None:
    """Raises ValueError: a number in a JSON value is none that a record can hold, or that sums can take."""
    match value:
        case int() | float():
            if not 0 <= value <= MOST_TOKENS:  # NaN is not, either
                raise ValueError(f"a number is not from 0 to {MOST_TOKENS}")
        case list() | tuple():
            for item in value:
                _check_numbers(item)
        case dict():
            for item in value.values():
                _check_numbers(item)


def _keep(turns: Sequence[TurnRecord], files: Sequence[bytes], images: ImageFolder) -> None:
    """Keeps the files that turns refer to. Raises ValueError: a file is missing, or another one than was stated."""
    by_hash = {hashlib.sha256(file).hexdigest(): file for file in files}
    for reference in _references(turns):
        file = by_hash.get(reference.sha256)
        if file is None:
            raise ValueError(f"image {reference.sha256[:12]} is not in the reply")
        kept = images.keep(file)
        if (kept.width, kept.height) != (reference.width, reference.height):
            raise ValueError(f"image {reference.sha256[:12]} has another size than stated")


def _references(turns: Sequence[TurnRecord]) -> list[ImageRef]:
    return [image for turn in turns if turn.execution is not None for image in turn.execution.images]
