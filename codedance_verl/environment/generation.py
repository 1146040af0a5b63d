"""Sampling of one turn: past stop strings that end no turn, calls at a temperature of their own, seeded where asked."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from codedance_verl.environment.call_watch import CallWatch
from codedance_verl.formats import TurnFormat


class EngineError(Exception):
    """Failure of the engine, outside of the model: the trajectory whose request it was ends as `infrastructure`."""


@dataclass(frozen=True)
class Sampled:
    """Tokens sampled for a turn.

    Attributes:
        token_ids: as the engine gave them.
        log_probs: natural logarithms, as long as `token_ids`, or None.
        versions: of the weights that sampled it, the oldest and the newest of every request among them.
        aborted: the engine broke off.
    """

    token_ids: list[int]
    log_probs: list[float] | None
    versions: tuple[int, ...]
    aborted: bool


_NOTHING = Sampled([], [], (), False)

MOST_PARTS = 64
"""Most requests for one turn: a model that writes stop strings in a string for ever ends no turn with them."""


@dataclass(frozen=True)
class TurnSampler:
    """Source of turns, sampled from the engine.

    The engine stops at a stop string wherever it stands. In a thought, a string of the code or a block of another
    language it ends no turn (`TurnFormat.end`), and what follows is sampled as a further part: a request of its own
    whose prompt, the tokens so far, the engine has in its prefix cache.

    With `code_temperature` a turn is sampled in two parts at least (GRPO-ATS of Thyme): up to where a call begins at
    the temperature of the request, from there to its end at this one. `reserved` are tokens that the model may not
    write: what follows one is cut, so nothing is sampled behind it. `watch` goes to the server with every request, and
    changes none.
    """

    server: Any
    tokenizer: Any
    format: TurnFormat
    reserved: frozenset[int]
    code_temperature: float | None = None
    watch: CallWatch | None = field(default=None, kw_only=True)

    async def sample(
        self,
        request_id: str,
        prompt_ids: list[int],
        sampling_params: dict[str, Any],
        images: Any,
        budget: int,
        begun: Sampled | None = None,
    ) -> Sampled:
        """Samples one turn of at most `budget` tokens.

        Args:
            request_id: of the engine; all parts of a trajectory share it.
            prompt_ids: tokens in front of the turn.
            sampling_params: of the rollout.
            images: those of the prompt, in order.
            budget: most tokens of the turn.
            begun: tokens that the turn begins with, up to what opens its call; they are part of the turn.

        Raises:
            EngineError: the engine is lost.
        """
        own = self.code_temperature is not None and sampling_params.get("temperature") != 0
        ends = list(self.format.stop_strings)
        turn, in_call, params = begun or _NOTHING, own and begun is not None, sampling_params
        if in_call:
            params = {**sampling_params, "temperature": self.code_temperature}
        if begun is not None:
            self._call_begun()
        stops = [*ends, self.format.call_start] if own and not in_call else ends
        left = budget - len(turn.token_ids)
        part = await self._request(request_id, [*prompt_ids, *turn.token_ids], params, images, left, stops)
        turn = joined(turn, part)
        for number in range(1, MOST_PARTS):
            left = budget - len(turn.token_ids)
            if part.aborted or left <= 0 or not self._continues(turn, part, stops):
                break
            # once inside a call the turn stays there: the rest needs no stop at `call_start`, nor a search for it
            in_call = in_call or (own and self.format.call_start in self._text(part))
            params = for_part(sampling_params, "call" if number == 1 else f"part {number}")
            if in_call:
                params["temperature"], stops = self.code_temperature, ends
                self._call_begun()
            part = await self._request(request_id, [*prompt_ids, *turn.token_ids], params, images, left, stops)
            turn = joined(turn, part)
        return turn

    def _continues(self, turn: Sampled, part: Sampled, stops: Sequence[str]) -> bool:
        """Returns whether a stop string that does not end the turn has ended its last part."""
        if not part.token_ids or not self.reserved.isdisjoint(part.token_ids):
            return False
        if not self.tokenizer.decode(part.token_ids[-1:], skip_special_tokens=True):
            return False  # a special token: the model itself ended its turn
        if not any(stop in self._text(part) for stop in stops):
            return False
        return self.format.end(self._text(turn)) is None

    def _call_begun(self) -> None:
        if self.watch is not None:
            self.watch.seen()

    def _text(self, sampled: Sampled) -> str:
        return str(self.tokenizer.decode(sampled.token_ids, skip_special_tokens=True))

    async def _request(
        self,
        request_id: str,
        prompt_ids: list[int],
        sampling_params: dict[str, Any],
        images: Any,
        budget: int,
        stops: list[str],
    ) -> Sampled:
        output = await self.server.generate(
            request_id=request_id,
            prompt_ids=prompt_ids,
            sampling_params={
                **sampling_params,
                "max_tokens": budget,
                "stop": stops,
                "include_stop_str_in_output": True,
            },
            image_data=images,
            **({} if self.watch is None else {"call_watch": self.watch}),
        )
        return Sampled(
            token_ids=list(output.token_ids),
            log_probs=None if output.log_probs is None else list(output.log_probs),
            versions=_versions(output.extra_fields),
            aborted=output.stop_reason == "aborted",
        )


def _versions(fields: Mapping[str, Any]) -> tuple[int, ...]:
    """Returns the versions of the weights that served a request.

    In asynchronous modes verl resumes a request that a weight update has aborted, and names its oldest and its newest
    version; `global_steps` is the newest alone.
    """
    named = (fields.get(name) for name in ("min_global_steps", "global_steps", "max_global_steps"))
    return tuple(dict.fromkeys(version for version in named if version is not None))


def joined(first: Sampled, second: Sampled) -> Sampled:
    """Returns two parts of a turn as one."""
    # log-probs must be as long as the tokens: with those of one part alone they would stand on the wrong ones
    known = first.log_probs is not None and second.log_probs is not None
    return Sampled(
        [*first.token_ids, *second.token_ids],
        [*(first.log_probs or ()), *(second.log_probs or ())] if known else None,
        (*first.versions, *second.versions),
        second.aborted,
    )


def kept_tokens(tokenizer: Any, ids: Sequence[int], format: TurnFormat) -> list[int]:
    """Returns the tokens up to the one that completes the turn; all where none does.

    vLLM stops there by itself, except where a weight sync (asynchronous modes) has interrupted a generation in the
    midst of a stop string: after resuming it looks for stop strings in the new tokens alone.
    """
    if not _complete(tokenizer, ids[:-1], format):
        return list(ids)
    # `TurnFormat.end` never changes by what is written behind it, so completeness is monotonic and can be bisected
    low, high = 1, len(ids) - 1  # ids[:high] holds a whole turn
    while low < high:
        middle = (low + high) // 2
        if _complete(tokenizer, ids[:middle], format):
            high = middle
        else:
            low = middle + 1
    return list(ids[:high])


def _complete(tokenizer: Any, ids: Sequence[int], format: TurnFormat) -> bool:
    return format.end(tokenizer.decode(list(ids), skip_special_tokens=True)) is not None


def seed_of(*parts: object) -> int:
    """Returns a seed, 0 to 2^63 - 1, that depends on every part and on nothing else."""
    text = "/".join(map(str, parts)).encode()
    # vLLM takes signed 64-bit seeds: one bit less, so that none is negative
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


def for_part(sampling_params: Mapping[str, Any], part: object) -> dict[str, Any]:
    """Returns the sampling parameters, their seed (if any) derived for a part of the rollout.

    A deterministic run gives each request a seed of its own, so its tokens do not depend on how requests are batched.
    """
    if sampling_params.get("seed") is None:
        return dict(sampling_params)
    return {**sampling_params, "seed": seed_of(sampling_params["seed"], part)}
