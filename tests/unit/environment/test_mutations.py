"""Every rule of a trajectory is broken on purpose: the program's checks end it, and without them the tests see it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from codedance_verl.environment import loop as interaction
from codedance_verl.environment import observations
from codedance_verl.environment.loop import MultiTurnLoop
from codedance_verl.environment.observations import ObservationLimits
from codedance_verl.environment.tokens import TokenStream
from codedance_verl.formats import get_format
from codedance_verl.rollout.agent_loop import CodeDanceAgentLoop
from codedance_verl.types import Execution, ExecutionStatus, FinishReason
from tests.unit.environment.harness import FAMILIES, Say, Script, picture, play, tokenizer
from tests.unit.environment.test_trajectory_properties import HOSTILE, assert_holds

CALL = get_format("code").render_call("print(1)")
SEEN = Execution(ExecutionStatus.OK, stdout=HOSTILE, images=(picture(60, 40), picture(90, 90, 1)))
LONG = Execution(ExecutionStatus.OK, stdout="word " * 400, images=(picture(120, 120),))

SCRIPTS = (
    ([Say(f"<think>a</think>{CALL}", ("<|im_end|>",)), Say(CALL), Say("<answer>7</answer>")], [SEEN, SEEN], 2_000),
    ([Say("so " + CALL + " and more <answer>7</answer>"), Say("<answer>7</answer>")], [SEEN], 2_000),
    ([Say(CALL), Say("a", ("<|image_pad|>",))], [SEEN], 2_000),
    ([Say(CALL), Say(CALL)], [LONG, LONG], 200),
)
ENVIRONMENT = {"max_turns": 3, "max_images": 4, "max_image_pixels": 112 * 112, "min_answer_tokens": 8}


def scripts(family: str) -> list[Script]:
    return [
        Script(says, executions, family=family, response_length=length, environment=dict(ENVIRONMENT))
        for says, executions, length in SCRIPTS
    ]


Patch = Callable[[pytest.MonkeyPatch], None]


def _replace(owner: Any, name: str, new: Callable[..., Any]) -> Patch:
    """Replace a function by one that gets the old one first."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        old = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *args, **kwargs: new(old, *args, **kwargs))

    return patch


def _train_on_feedback(old: Any, self: TokenStream, ids: Sequence[int], features: Sequence[int] = ()) -> None:
    old(self, ids, features)
    self.mask[len(self.mask) - len(ids) :] = [1] * len(ids)


def _shift_logprobs(old: Any, self: TokenStream, ids: Sequence[int], logprobs: Sequence[float]) -> Any:
    return old(self, ids, [*list(logprobs)[1:], 0.0][: len(ids)])


def _tokenize_again(old: Any, self: TokenStream, ids: Sequence[int], logprobs: Sequence[float]) -> Any:
    again = [token for letter in tokenizer().decode(list(ids)) for token in tokenizer().encode(letter)]
    return old(self, again, [-0.5] * len(again))


def _lose_a_picture(old: Any, self: Any, rollout: Any, finish: Any, record: Any) -> Any:
    rollout.images = rollout.images[:-1]
    return old(self, rollout, finish, record)


def _say_no_last_turn(old: Any, execution: Execution, largest: ObservationLimits, *rest: Any) -> Any:
    return old(execution, ObservationLimits(largest.chars, largest.pixels, largest.images), *rest)


def _ignore_the_budget(old: Any, self: Any, rollout: Any, execution: Any, limits: Any, room: int) -> Any:
    return old(self, rollout, execution, ObservationLimits(images=10), 10**9)


BY_THE_TESTS: dict[str, Patch] = {
    "feedback is trained": _replace(TokenStream, "append_context", _train_on_feedback),
    "log-probs of other tokens": _replace(TokenStream, "append_sampled", _shift_logprobs),
    "text tokenised again": _replace(TokenStream, "append_sampled", _tokenize_again),
    "half a feedback turn": _replace(TokenStream, "append_context", lambda old, self, ids, *f: old(self, ids[:-3], *f)),
    "half a picture": _replace(
        TokenStream, "append_context", lambda old, self, ids, *f: old(self, _without_one_pad(ids), *f)
    ),
    "a picture lost": _replace(CodeDanceAgentLoop, "_output", _lose_a_picture),
    "feedback not escaped": _replace(observations, "escape_markup", lambda old, text: text),
    "reserved tokens kept": _replace(TokenStream, "sampled_prefix", lambda old, self, ids: len(ids)),
    "turns not cut at their stop": _replace(interaction, "kept_tokens", lambda old, _, ids, stops: list(ids)),
    "last turn not announced": _replace(interaction, "fit", _say_no_last_turn),
    "budget ignored": _replace(MultiTurnLoop, "_append_observation", _ignore_the_budget),
}
BY_THE_PROGRAM = (
    "feedback is trained",
    "half a picture",
    "feedback not escaped",
    "reserved tokens kept",
)


def _without_one_pad(ids: Sequence[int]) -> list[int]:
    pad = tokenizer().convert_tokens_to_ids("<|image_pad|>")
    return [token for index, token in enumerate(ids) if token != pad or index != list(ids).index(pad)]


def _hold_all(family: str) -> None:
    for script in scripts(family):
        assert_holds(script, play(script))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_scripts_hold_as_they_are(family: str) -> None:
    for script in scripts(family):
        played = play(script)
        assert_holds(script, played)
        assert played.output.extra_fields["trajectory"].finish is not FinishReason.INFRASTRUCTURE


@pytest.mark.parametrize("broken", BY_THE_TESTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_tests_see_a_broken_rule(family: str, broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TokenStream, "check", lambda self: None)
    BY_THE_TESTS[broken](monkeypatch)
    with pytest.raises((AssertionError, IndexError, ValueError, StopIteration)):
        _hold_all(family)


@pytest.mark.parametrize("broken", BY_THE_PROGRAM)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_program_sees_a_broken_rule(family: str, broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    BY_THE_TESTS[broken](monkeypatch)
    finishes = [play(script).output.extra_fields["trajectory"].finish for script in scripts(family)]
    assert FinishReason.INFRASTRUCTURE in finishes
