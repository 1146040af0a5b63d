"""Branches of a rollout: what they keep, what is drawn again, and the session that their calls find."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest
from PIL import Image

from codedance_verl.environment.branch import Kept, call_places, kept_of
from codedance_verl.formats import get_format
from codedance_verl.reward.encoding import Cut
from codedance_verl.rollout import agent_loop as module
from codedance_verl.rollout.output import KEPT
from codedance_verl.types import Branch, Execution, ExecutionError, ExecutionStatus, FinishReason
from tests.unit.environment.harness import Played, Say, Script, _Model, _Pool, loop_of, picture, tokenizer

FIRST = "<think>so</think><code>\n```python\nprint(1)\n```\n</code>"
SECOND = "<think>in <code> I count</think><code>\n```python\nprint(2)\n```\n</code>"
PRINTED = Execution(ExecutionStatus.OK, "1\n", images=(picture(30, 20),), duration_s=0.5)
FAILED = Execution(ExecutionStatus.ERROR, error=ExecutionError("NameError", "x", "line 1"))
ANSWER = "<answer>2</answer>"
CODE = get_format("code")


async def play_branch(script: Script, kept: Kept | None, params: dict[str, Any] | None = None) -> Played:
    """As `harness.play_async`, beginning with what is kept; the codes are those of all sessions."""
    model, pool = _Model(script), _Pool(script)
    content: list[dict[str, Any]] = [{"type": "image", "image": Image.new("RGB", (40, 30), "teal")}]
    messages = [{"role": "user", "content": [*content, {"type": "text", "text": script.question}]}]
    with mock.patch.object(module.SandboxPool, "connect", return_value=pool):
        output = await loop_of(script, model).run(
            params or {},
            raw_prompt=messages,
            reward_model={"ground_truth": "1"},
            data_source="test",
            extra_info={"record_id": "test-0"},
            **({} if kept is None else {KEPT: kept}),
        )
    assert pool.open_sessions == 0
    asked = model.prompts, model.sampled, model.logprobs, model.shown
    return Played(output, *asked, pool.codes, model.seeds, model.asked, model.seen)


def roll(
    *says: str | Say, executions: tuple[Execution | None, ...] = (), kept: Kept | None = None, **parts: Any
) -> Any:
    script = Script([Say(said) if isinstance(said, str) else said for said in says], executions, **parts)
    return asyncio.run(play_branch(script, kept))


def parent(**parts: Any) -> Any:
    return roll(FIRST, SECOND, ANSWER, executions=(PRINTED, FAILED), **parts).output


def kept_at(output: Any, turn: int) -> Kept:
    place = next(place for place in call_places(output.rollout, tokenizer(), CODE) if place.turn == turn)
    return kept_of(output.rollout, Branch(3, turn, place.token))


def text_of(ids: list[int]) -> str:
    return str(tokenizer().decode(ids, skip_special_tokens=True))


def test_calls_are_found_with_what_opens_them_and_how_sure_they_were() -> None:
    output = parent()
    first, second = call_places(output.rollout, tokenizer(), CODE)
    assert (first.turn, first.failed, second.turn, second.failed) == (0, False, 1, True)
    turn = output.trajectory.turns[1]
    assert text_of(output.response_ids[turn.token_start : second.token]).startswith(
        "<think>in <code> I count</think><code>"
    )
    assert "print" not in text_of(output.response_ids[turn.token_start : second.token])
    ids = output.response_ids[turn.token_start : turn.token_end]
    call = next(n for n in range(len(ids)) if len(text_of(ids[: n + 1])) > len("<think>in <code> I count</think>"))
    logprobs = output.response_logprobs[turn.token_start + call : turn.token_end]
    mean = sum(2.718281828459045**value for value in logprobs) / len(logprobs)
    assert second.probability == pytest.approx(mean)


def test_a_branch_at_the_first_call_draws_it_again_and_asks_for_nothing_else() -> None:
    output = parent()
    kept = kept_at(output, 0)
    branch = roll("\n```python\nprint(7)\n```\n</code>", ANSWER, executions=(PRINTED,), kept=kept)
    assert branch.codes == ["print(7)"]
    prompt = output.prompt_ids
    begun = output.response_ids[: kept.branch.token]
    assert branch.prompts[0] == [*prompt, *begun]
    assert branch.output.response_ids[: len(begun)] == begun
    found = branch.output.trajectory
    assert found.branch == Branch(3, 0, len(begun)) and found.finish is FinishReason.ANSWER
    assert found.turns[0].text == "<think>so</think><code>\n```python\nprint(7)\n```\n</code>"
    assert (found.turns[0].token_start, branch.output.response_mask[: len(begun)]) == (0, [1] * len(begun))
    assert branch.output.response_logprobs[: len(begun)] == output.response_logprobs[: len(begun)]
    mask = Cut(0, len(begun)).of_mask(branch.output.response_mask)
    assert not any(mask[: len(begun)]) and mask[len(begun)] == 1


def test_a_later_call_finds_the_session_and_the_images_of_its_parent() -> None:
    output = parent()
    kept = kept_at(output, 1)
    branch = roll("\n```python\nprint(8)\n```\n</code>", ANSWER, executions=(PRINTED, FAILED), kept=kept)
    assert branch.codes == ["print(1)", "print(8)"]  # the first one is run again, in a session of its own
    assert branch.shown == [2, 2]  # the question's image and the one that came back
    shown, whole = branch.output.multi_modal_data["images"], output.multi_modal_data["images"]
    assert [a is b for a, b in zip(shown, whole, strict=True)] == [True, True]
    found = branch.output.trajectory
    assert found.turns[0] == output.trajectory.turns[0]
    assert found.turns[1].code == "print(8)" and found.answer == "2"
    assert branch.prompts[0] == [*output.prompt_ids, *output.response_ids[: kept.branch.token]]
    # the feedback turn before the branch is context in both
    assert branch.output.response_mask[: kept.branch.token] == output.response_mask[: kept.branch.token]


def test_several_branches_of_one_rollout_do_not_share_what_grows() -> None:
    output = parent()
    before = list(output.response_ids), len(output.multi_modal_data["images"])
    kept = [kept_at(output, 1) for _ in range(2)]
    one = roll("\n```python\nx\n```\n</code>", ANSWER, executions=(PRINTED, PRINTED), kept=kept[0])
    other = roll("\n```python\nyy\n```\n</code>", ANSWER, executions=(PRINTED, PRINTED), kept=kept[1])
    assert one.output.trajectory.turns[1].code == "x" and other.output.trajectory.turns[1].code == "yy"
    assert len(other.output.multi_modal_data["images"]) == 3
    assert (output.response_ids, len(output.multi_modal_data["images"])) == before


@pytest.mark.parametrize(
    "found",
    [
        replace(PRINTED, stdout="2\n"),
        replace(PRINTED, images=()),
        replace(PRINTED, status=ExecutionStatus.NO_OUTPUT),
        FAILED,
    ],
)
def test_a_replay_with_another_result_is_a_whole_rollout_instead(found: Execution) -> None:
    kept = kept_at(parent(), 1)
    fresh = roll(FIRST, ANSWER, executions=(found, PRINTED), kept=kept)
    assert fresh.output.replay_differs and fresh.output.trajectory.branch is None
    assert [turn.code for turn in fresh.output.trajectory.turns] == ["print(1)", None]
    assert fresh.codes == ["print(1)", "print(1)"]  # the replay, and the call of the whole rollout
    assert fresh.prompts[0] == fresh.output.prompt_ids


def test_the_run_time_of_a_replayed_cell_may_differ() -> None:
    kept = kept_at(parent(), 1)
    slow = replace(PRINTED, duration_s=3.0, queue_s=1.0)
    branch = roll("\n```python\nx\n```\n</code>", ANSWER, executions=(slow, FAILED), kept=kept)
    assert branch.output.trajectory.branch is not None and not branch.output.replay_differs


def test_a_sandbox_that_is_lost_in_a_replay_ends_the_branch_as_infrastructure() -> None:
    kept = kept_at(parent(), 1)
    for lost in (None, Execution(ExecutionStatus.KILLED)):
        branch = roll(executions=(lost,), kept=kept).output
        assert branch.trajectory.finish is FinishReason.INFRASTRUCTURE
        assert not any(Cut(1, kept.branch.token).of_mask(branch.response_mask))


def test_a_call_that_was_refused_is_not_run_again() -> None:
    refused = "<think>so</think><code>\nno fence\n</code>"
    output = roll(refused, SECOND, ANSWER, executions=(FAILED,)).output
    kept = kept_at(output, 1)
    branch = roll("\n```python\nprint(9)\n```\n</code>", ANSWER, executions=(PRINTED,), kept=kept)
    assert branch.codes == ["print(9)"]


def test_a_branch_keeps_the_budgets_of_its_parent() -> None:
    output = parent()
    kept = kept_at(output, 1)
    room = kept.branch.token + 4
    cut = roll("\n```python\nprint(8)\n```\n</code>", executions=(PRINTED,), kept=kept, response_length=room)
    assert cut.output.trajectory.finish is FinishReason.LENGTH and len(cut.output.response_ids) == room
    limited = roll(
        "\n```python\nprint(8)\n```\n</code>",
        SECOND,
        executions=(PRINTED, PRINTED, PRINTED),
        kept=kept_at(output, 1),
        environment={"max_turns": 3},
    )
    assert limited.output.trajectory.finish is FinishReason.TURN_LIMIT
    assert len(limited.output.trajectory.turns) == 3


def test_the_call_of_a_branch_is_drawn_at_the_temperature_of_code() -> None:
    asked: list[dict[str, Any]] = []
    script = Script(
        [Say("\n```python\nprint(7)\n```\n</code>"), Say(ANSWER)], (PRINTED,), sampling={"code_temperature": 0.25}
    )
    kept = kept_at(parent(), 0)
    generate = _Model.generate

    async def spied(self: Any, **request: Any) -> Any:
        asked.append(request["sampling_params"])
        return await generate(self, **request)

    with mock.patch.object(_Model, "generate", spied):
        asyncio.run(play_branch(script, kept, {"temperature": 1.0}))
    assert [params["temperature"] for params in asked] == [0.25, 1.0]
    assert [params["stop"][-1] for params in asked] == ["</answer>", "<code>"]


@pytest.mark.parametrize("name", ["code", "tool_call", "fence"])
def test_what_opens_a_call_is_found_in_every_format(name: str) -> None:
    written = get_format(name)
    text = f"<think>look</think>{chr(10) if name == 'fence' else ''}{written.render_call('print(1)')}"
    span = written.call_opening(text)
    assert span is not None
    assert text[: span[1]].endswith(written.call_start) and "print" not in text[: span[1]]
    assert written.call_opening("<think>look</think><answer>3</answer>") is None
