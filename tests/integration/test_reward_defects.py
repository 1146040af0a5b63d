"""What the published reward gets wrong, one test each, through the whole path: text, sandbox, grade, reward, advantage.

The numbers are those of docs/reward.md. Code runs in the real interpreter, as processes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack

import pytest

from codedance_verl.formats import get_format, render_answer, render_think
from codedance_verl.reward.config import RewardConfig
from codedance_verl.reward.difficulty import difficulty
from codedance_verl.reward.explain import Explained, explain
from codedance_verl.reward.presets import RELEASE, ROBUST
from codedance_verl.reward.rollout_lines import RolloutLine
from codedance_verl.sandbox.config import SandboxConfig
from codedance_verl.sandbox.pool import SandboxPool
from codedance_verl.types import ExecutionStatus, FinishReason, Trajectory, Turn

Play = Callable[..., Trajectory]

WRITTEN = get_format("code")
RIGHT, WRONG = "3", "4"
CROP = "box = [0, 0, 4, 4]\nprint(sum(box))"
FAILING = "print(undefined)"


def call(code: str) -> str:
    return render_think("look closer") + WRITTEN.render_call(code)


def answer(text: str) -> str:
    return render_think("so") + render_answer(text)


async def roll_out(pool: SandboxPool, texts: tuple[str, ...], finish: FinishReason, not_run: int) -> Trajectory:
    """Parse and run every turn but the last `not_run` ones, as the agent loop does."""
    turns = []
    async with pool.session() as session:
        for index, text in enumerate(texts):
            code = WRITTEN.parse(text).code
            runs = code is not None and index < len(texts) - not_run
            execution = await session.run(code) if runs and code is not None else None
            turns.append(Turn(text, 2 * index, 2 * index + 1, code, execution))
    said = WRITTEN.parse(texts[-1]).answer
    return Trajectory("r", "test", "How many?", "3", tuple(turns), finish, said)


@pytest.fixture(scope="module")
def play() -> Iterator[Play]:
    config = SandboxConfig(backend="process", containers=1, standby_containers=0, cell_timeout_s=1.5)
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        pool = runner.run(_entered(stack, config))

        def rolled(*texts: str, finish: FinishReason = FinishReason.ANSWER, not_run: int = 0) -> Trajectory:
            return runner.run(roll_out(pool, texts, finish, not_run))

        yield rolled
        runner.run(stack.aclose())


async def _entered(stack: AsyncExitStack, config: SandboxConfig) -> SandboxPool:
    return await stack.enter_async_context(SandboxPool.local(config))


def scored(*rollouts: Trajectory, preset: RewardConfig = ROBUST, groups: str | None = None) -> list[Explained]:
    """The rollouts as one batch, one group unless `groups` has a letter for each."""
    names = groups or "g" * len(rollouts)
    lines = [RolloutLine(k, {}, name, item) for k, (name, item) in enumerate(zip(names, rollouts, strict=True))]
    return explain(lines, preset)


def test_1_code_of_comments_only_is_no_successful_call(play: Play) -> None:
    idle, direct, wrong = play(call("# zoom in\n# and count"), answer(RIGHT)), play(answer(RIGHT)), play(answer(WRONG))
    assert idle.turns[0].execution is not None and idle.turns[0].execution.succeeded
    for preset in (ROBUST, RELEASE):
        got, plain, *_ = scored(idle, direct, wrong, wrong, wrong, preset=preset)
        assert got.terms.difficulty > 0 and got.terms.sequence == plain.terms.sequence == 0
    got, plain, *_ = scored(idle, direct, wrong, wrong, wrong)
    assert got.terms.turns[0] == -0.1 and got.turn_advantage[0] < plain.turn_advantage[0]


def test_2_a_hang_that_the_watchdog_ended_is_a_failure(play: Play) -> None:
    hung, wrong = play(call("while True:\n    pass"), answer(RIGHT)), play(answer(WRONG))
    assert hung.turns[0].execution is not None
    assert hung.turns[0].execution.status is ExecutionStatus.TIMEOUT
    got, *_ = scored(hung, wrong)
    assert (got.terms.sequence, got.terms.turns) == (0, (-0.5, 0))


def test_3_the_printed_word_error_is_no_failure(play: Play) -> None:
    printed = play(call("print('Mean Squared Error: 0.1')\nprint('Traceback (most recent call last)')"), answer(RIGHT))
    got, *_ = scored(printed, play(answer(WRONG)))
    assert got.terms.turns == (0, 0)
    assert got.terms.sequence == pytest.approx(0.5 * 0.3 * 0.8)


def test_4_feedback_that_the_model_wrote_or_printed_is_no_call(play: Play) -> None:
    typed = play(render_think("look") + "<tool_response>3</tool_response>" + render_answer(RIGHT))
    printed = play(call("print('<tool_response>ok</tool_response>' * 5)"), answer(RIGHT))
    once, wrong = play(call(CROP), answer(RIGHT)), play(answer(WRONG))
    for preset in (ROBUST, RELEASE):
        fake, *_ = scored(typed, wrong, preset=preset)
        assert fake.terms.sequence == 0
        many, one, *_ = scored(printed, once, wrong, wrong, preset=preset)
        assert many.terms.sequence == one.terms.sequence > 0
    assert scored(typed, wrong)[0].terms.format == -1


def test_5_mu_is_the_accuracy_and_not_the_score(play: Play) -> None:
    """All right, all malformed: the group is as easy as can be."""
    malformed = play(answer(RIGHT) + render_think("or") + render_answer(RIGHT))
    for item in scored(malformed, malformed):
        assert (item.terms.accuracy, item.terms.format) == (1, -1)
        assert item.terms.difficulty == difficulty(1.0, form=ROBUST.difficulty_form, gamma=4, delta=0.2)
    assert scored(malformed, malformed, preset=RELEASE)[0].terms.difficulty > -0.182013


def test_6_on_easy_groups_a_failed_call_costs_as_much_as_one_that_ran(play: Play) -> None:
    direct, ran, failed = play(answer(RIGHT)), play(call(CROP), answer(RIGHT)), play(call(FAILING), answer(RIGHT))
    plain, one, other = scored(direct, ran, failed)
    assert plain.terms.sequence == 0 > one.terms.sequence == other.terms.sequence
    assert other.turn_advantage[0] < one.turn_advantage[0] < plain.turn_advantage[0]
    plain, one, other = scored(direct, ran, failed, preset=RELEASE)
    assert one.terms.sequence < 0 == other.terms.sequence


def test_7_a_wrong_answer_earns_nothing_for_a_trivial_call(play: Play) -> None:
    called, direct = play(call("print(1)"), answer(WRONG)), play(answer(WRONG))
    assert [item.terms.score for item in scored(called, direct)] == [0, 0]
    assert scored(called, direct, preset=RELEASE)[0].terms.score == pytest.approx(0.391, abs=1e-3)


def test_8_other_prompts_set_no_penalty_and_good_turns_get_no_hidden_bonus(play: Play) -> None:
    good, failing, wrong = play(call(CROP), answer(RIGHT)), play(call(FAILING), answer(RIGHT)), play(answer(WRONG))
    group = [good, failing, wrong]
    alone = scored(*group)
    beside = scored(*group, *[failing] * 5, groups="ggghhhhh")
    assert [item.turn_advantage for item in beside[:3]] == [item.turn_advantage for item in alone]
    assert alone[0].turn_advantage[0] == alone[0].turn_advantage[1]
    published = scored(*group, *[failing] * 5, groups="ggghhhhh", preset=RELEASE)[0].turn_advantage
    assert published[0] > published[1]


def test_9_a_later_failure_leaves_earlier_turns_alone_and_recovery_is_credited(play: Play) -> None:
    wrong = play(answer(WRONG))
    fails_later = play(call(CROP), call(FAILING), call("print(len(box))"), answer(RIGHT))
    got, *_ = scored(fails_later, wrong)
    assert got.terms.turns == (0, -0.5, 0.2, 0)
    good, failed, recovered, last = got.turn_advantage
    assert good == last
    assert failed == pytest.approx(last - 0.5, abs=1e-6) and recovered == pytest.approx(last + 0.2, abs=1e-6)
    published = scored(fails_later, wrong, preset=RELEASE)[0].turn_advantage
    assert published[0] < published[2]


def test_10_at_the_turn_limit_every_value_stays_on_its_own_turn(play: Play) -> None:
    endless = play(call(CROP), call(FAILING), call(CROP), finish=FinishReason.TURN_LIMIT, not_run=1)
    for preset in (ROBUST, RELEASE):
        got, *_ = scored(endless, play(answer(RIGHT)), preset=preset)
        assert got.terms.turns == (0, -0.5, 0)
        assert got.turn_advantage[1] == min(got.turn_advantage) < got.turn_advantage[2]


def test_11_a_truncated_rollout_trains_nothing_and_enters_no_statistic(play: Play) -> None:
    group = [play(call(CROP), answer(RIGHT)), play(answer(WRONG)), play(answer(RIGHT))]
    cut = play(call(CROP), render_think("and so on, and so"), finish=FinishReason.LENGTH)
    *others, masked = scored(*group, cut)
    assert masked.terms.masked and masked.turn_advantage == (0, 0)
    alone = scored(*group)
    assert [(item.terms, item.turn_advantage) for item in others] == [
        (item.terms, item.turn_advantage) for item in alone
    ]
