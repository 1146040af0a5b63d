"""Samples one turn from the engine: past stop strings that end no turn, calls at a temperature of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from codedance_verl.environment.seeds import for_part
from codedance_verl.formats import TurnFormat


@dataclass(frozen=True)
class Sampled:
    """What was sampled for a turn: `log_probs` as long as `token_ids`, or None.

    `versions` are those of the weights that sampled it, the oldest and the newest of every request among them.
    """

    token_ids: list[int]
    log_probs: list[float] | None
    versions: tuple[int, ...]
    aborted: bool


MOST_PARTS = 64
"""Requests for one turn, at most: a model that writes stop strings in a string for ever ends no turn with them."""


@dataclass(frozen=True)
class TurnSampler:
    """Asks the engine for turns.

    The engine stops at a stop string wherever it stands. In a thought, a string of the code or a block of another
    language it ends no turn (`TurnFormat.end`), and what follows is sampled as a further part: a request of its own
    whose prompt, the tokens so far, the engine has in its prefix cache.

    With `code_temperature` a turn is sampled in two parts at least (GRPO-ATS of Thyme): up to where a call begins at
    the temperature of the request, from there to its end at this one. `reserved` are tokens that the model may not
    write: what follows one is cut, so nothing is sampled behind it.
    """

    server: Any
    tokenizer: Any
    format: TurnFormat
    reserved: frozenset[int]
    code_temperature: float | None = None

    async def sample(
        self, request_id: str, prompt_ids: list[int], sampling_params: dict[str, Any], images: Any, budget: int
    ) -> Sampled:
        """One turn of at most `budget` tokens."""
        own = self.code_temperature is not None and sampling_params.get("temperature") != 0
        ends = list(self.format.stop_strings)
        stops = [*ends, self.format.call_start] if own else ends
        turn = part = await self._request(request_id, prompt_ids, sampling_params, images, budget, stops)
        in_call = False
        for number in range(1, MOST_PARTS):
            left = budget - len(turn.token_ids)
            if part.aborted or left <= 0 or not self._goes_on(turn, part, stops):
                break
            in_call = in_call or (own and self.format.call_start in self._text(part))
            params = for_part(sampling_params, "call" if number == 1 else f"part {number}")
            if in_call:
                params["temperature"], stops = self.code_temperature, ends
            part = await self._request(request_id, [*prompt_ids, *turn.token_ids], params, images, left, stops)
            turn = _joined(turn, part)
        return turn

    def _goes_on(self, turn: Sampled, part: Sampled, stops: Sequence[str]) -> bool:
        """Whether the last part of a turn was ended by a stop string that does not end the turn."""
        if not part.token_ids or not self.reserved.isdisjoint(part.token_ids):
            return False
        if not self.tokenizer.decode(part.token_ids[-1:], skip_special_tokens=True):
            return False  # a special token: the model itself ended its turn
        if not any(stop in self._text(part) for stop in stops):
            return False
        return self.format.end(self._text(turn)) is None

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
        )
        return Sampled(
            token_ids=list(output.token_ids),
            log_probs=None if output.log_probs is None else list(output.log_probs),
            versions=_versions(output.extra_fields),
            aborted=output.stop_reason == "aborted",
        )


def _versions(fields: Mapping[str, Any]) -> tuple[int, ...]:
    """Versions of the weights that served a request.

    In asynchronous modes verl resumes a request that a weight update has aborted, and names its oldest and its newest
    version; `global_steps` is the newest alone.
    """
    named = (fields.get(name) for name in ("min_global_steps", "global_steps", "max_global_steps"))
    return tuple(dict.fromkeys(version for version in named if version is not None))


def _joined(first: Sampled, second: Sampled) -> Sampled:
    known = first.log_probs is not None and second.log_probs is not None
    return Sampled(
        [*first.token_ids, *second.token_ids],
        [*(first.log_probs or ()), *(second.log_probs or ())] if known else None,
        (*first.versions, *second.versions),
        second.aborted,
    )
