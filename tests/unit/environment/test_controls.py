"""Interventions on a rollout: what the model is shown, what it may write, and what becomes of it all the same."""

from __future__ import annotations

import asyncio
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from codedance_verl.environment.banned_strings import NEVER
from codedance_verl.environment.controls import NO_CALLS
from codedance_verl.errors import UserError
from codedance_verl.formats import FORMATS, get_format
from codedance_verl.types import Execution, ExecutionStatus, FinishReason, Trajectory
from tests.unit.environment.harness import Played, Say, Script, picture, play, play_async, tokenizer

CODE = get_format("code")
CALL = Say(CODE.render_call("show(input_image)"))
ANSWER = Say("<answer>7</answer>")
SEEN = Execution(ExecutionStatus.OK, "two\n", images=(picture(60, 40), picture(90, 90, 1), picture(60, 40, 2)))


def under(control: str | None, *says: Say, **script: Any) -> Played:
    extra = {} if control is None else {"variant": f"{control}_variant", "control": control}
    return play(Script(says, [SEEN, SEEN], extra_info=extra, **script))


def trajectory_of(played: Played) -> Trajectory:
    found: Trajectory = played.output.extra_fields["trajectory"]
    return found


def banned(played: Played) -> list[list[str]]:
    """Per request the tokens that cannot be sampled."""
    biases = [asked.get("logit_bias", {}) for asked in played.asked]
    assert {value for bias in biases for value in bias.values()} <= {NEVER}
    return [[tokenizer().decode([token]) for token in bias] for bias in biases]


def is_grey(image: Image.Image) -> bool:
    pixels = np.asarray(image.convert("RGB"))
    return bool((pixels == 128).all())


def test_returned_images_are_grey_and_everything_else_is_as_ever() -> None:
    plain, grey = under(None, CALL, ANSWER), under("grey_observations", CALL, ANSWER)
    assert [is_grey(image) for image in plain.seen[-1]] == [False] * 4
    assert [is_grey(image) for image in grey.seen[-1]] == [False, True, True, True], "that of the question stays"
    assert [image.size for image in grey.seen[-1]] == [image.size for image in plain.seen[-1]]
    assert grey.prompts == plain.prompts and grey.asked == plain.asked
    ours, theirs = trajectory_of(grey), trajectory_of(plain)
    assert ours.turns[0].observation == theirs.turns[0].observation
    assert (ours.finish, ours.answer) == (FinishReason.ANSWER, "7")


def test_the_record_has_the_images_that_the_model_saw() -> None:
    (execution,) = trajectory_of(under("grey_observations", CALL, ANSWER)).executions
    assert execution.stdout == "two\n" and execution.status is ExecutionStatus.OK
    assert [(image.width, image.height) for image in execution.images] == [(60, 40), (90, 90), (60, 40)]
    assert all(is_grey(Image.open(io.BytesIO(image.png))) for image in execution.images)
    assert execution.images[0].sha256 == execution.images[2].sha256 != execution.images[1].sha256


def test_images_that_are_made_smaller_are_grey_too() -> None:
    settings = {"environment": {"max_image_pixels": 56 * 56}}
    plain, grey = under(None, CALL, ANSWER, **settings), under("grey_observations", CALL, ANSWER, **settings)
    assert [image.size for image in grey.seen[-1]] == [image.size for image in plain.seen[-1]]
    assert all(map(is_grey, grey.seen[-1][1:]))
    assert trajectory_of(grey).turns[0].observation == trajectory_of(plain).turns[0].observation


@pytest.mark.parametrize("name", FORMATS)
def test_no_call_can_be_sampled(name: str) -> None:
    played = under("no_tools", ANSWER, environment={"format": name})
    ban = FORMATS[name].call_prefix
    (tokens,), (asked,) = banned(played), played.asked
    assert asked["stop"] == [*FORMATS[name].stop_strings, ban]
    assert all(ban in token for token in tokens) and tokens == ([ban] if ban.startswith("<") else tokens)
    assert trajectory_of(played).answer == "7"


@pytest.mark.parametrize("call", [CALL.text, "<code>print(1)</code>"], ids=["a call", "one that cannot be read"])
def test_a_call_that_appears_all_the_same_is_cut(call: str) -> None:
    """The scripted engine says its turns whatever the parameters: the call is taken back until the redraws are used."""
    played = under("no_tools", *[Say(call)] * 200)
    assert played.codes == [] and trajectory_of(played).executions == ()
    assert trajectory_of(played).finish is FinishReason.NO_ACTION


def test_a_call_that_slips_through_is_refused_and_the_trajectory_continues(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("codedance_verl.environment.controls.banned_strings", lambda *_: ())
    played = under("no_tools", CALL, ANSWER)
    trajectory = trajectory_of(played)
    assert played.codes == []
    first = trajectory.turns[0]
    assert first.code is None and first.execution is not None and first.execution.status is ExecutionStatus.REJECTED
    assert first.observation is not None and f"The code was not run: {NO_CALLS}" in first.observation.text
    assert (trajectory.finish, trajectory.answer) == (FinishReason.ANSWER, "7")
    always = trajectory_of(under("no_tools", *[CALL] * 9, environment={"max_turns": 3}))
    assert always.finish is FinishReason.TURN_LIMIT and len(always.turns) == 3


def test_an_answer_cannot_be_sampled_before_the_first_call() -> None:
    played = under("forced_tools", CALL, ANSWER)
    assert banned(played) == [["<answer>"], []]
    assert [asked["stop"] for asked in played.asked] == [["</code>", "</answer>", "<answer>"], ["</code>", "</answer>"]]
    assert played.codes == ["show(input_image)"]
    assert (trajectory_of(played).finish, trajectory_of(played).answer) == (FinishReason.ANSWER, "7")
    assert all(not is_grey(image) for image in played.seen[-1])


def test_an_answer_that_slips_through_at_first_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("codedance_verl.environment.controls.banned_strings", lambda *_: ())
    trajectory = trajectory_of(under("forced_tools", ANSWER))
    assert (trajectory.finish, trajectory.answer, len(trajectory.turns)) == (FinishReason.NO_ACTION, None, 1)


def test_a_turn_without_call_and_answer_ends_a_forced_trajectory_as_any() -> None:
    assert trajectory_of(under("forced_tools", Say("I do not know."))).finish is FinishReason.NO_ACTION


@pytest.mark.parametrize("control", ["grey_observations", "no_tools", "forced_tools"])
def test_calls_at_a_temperature_of_their_own_go_with_controls(control: str) -> None:
    says = [Say("<code>"), Say(CALL.text.removeprefix("<code>")), ANSWER] if control != "no_tools" else [ANSWER]
    played = under(control, *says, sampling={"code_temperature": 0.5})
    assert trajectory_of(played).answer == "7"
    assert len(played.codes) == (control != "no_tools")


@pytest.mark.parametrize(
    ("extra_info", "temperature", "top_k"),
    [
        ({}, 1.0, 50),
        ({"variant": "sampled"}, 1.0, 50),
        ({"variant": "greedy"}, 0.0, -1),
        ({"variant": "off", "control": "no_tools"}, 1.0, 50),
        ({"variant": "off", "control": "no_tools", "temperature": 0.0}, 0.0, -1),
        ({"variant": "warm", "temperature": 0.7}, 0.7, 50),
    ],
)
def test_a_record_may_state_its_temperature(extra_info: dict[str, Any], temperature: float, top_k: int) -> None:
    params = {"temperature": 1.0, "top_p": 0.9, "top_k": 50}
    played = asyncio.run(play_async(Script([ANSWER], extra_info=extra_info), params))
    (asked,) = played.asked
    assert (asked["temperature"], asked["top_k"]) == (temperature, top_k)
    assert asked["top_p"] == (1.0 if temperature == 0 else 0.9)


def test_an_unknown_control_is_named_with_its_record_when_the_rollout_starts() -> None:
    with pytest.raises(UserError, match=r"record test-0: extra_info\.control is 'gray'; must be one of grey_obs"):
        play(Script([ANSWER], extra_info={"variant": "grey", "control": "gray"}))
