"""A temperature of its own for the tokens of a call: what the engine is asked for, and what is made of it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError

from codedance_verl.environment.generation import MOST_PARTS, Sampled, TurnSampler
from codedance_verl.errors import UserError
from codedance_verl.formats import get_format
from codedance_verl.rollout.sampling_config import Keep, SamplingConfig
from codedance_verl.types import Execution, ExecutionStatus, FinishReason
from tests.unit.environment.harness import Say, Script, loop_of, play, tokenizer

TEMPERATURE = {"temperature": 1.0, "top_p": 0.9}


class Engine:
    """Says its turns, one a request, and remembers what it was asked."""

    def __init__(self, *says: str | Say, aborted: bool = False) -> None:
        self._says, self._aborted = [Say(said) if isinstance(said, str) else said for said in says], aborted
        self.asked: list[dict[str, Any]] = []

    async def generate(self, **request: Any) -> Any:
        self.asked.append(request)
        ids = self._says.pop(0).token_ids[: request["sampling_params"]["max_tokens"]]
        return SimpleNamespace(
            token_ids=ids,
            log_probs=[-0.1 * len(self.asked)] * len(ids),
            stop_reason="aborted" if self._aborted else "completed",
            extra_fields={"global_steps": len(self.asked)},
        )


def sample(
    engine: Engine, code_temperature: float | None, budget: int = 500, format: str = "code", **params: Any
) -> Sampled:
    sampler = TurnSampler(engine, tokenizer(), get_format(format), frozenset({0}), code_temperature)
    return asyncio.run(sampler.sample("id", [7, 8], {**TEMPERATURE, **params}, None, budget))


def text(sampled: Sampled) -> str:
    return str(tokenizer().decode(sampled.token_ids))


def test_a_turn_is_one_request_without_such_a_temperature() -> None:
    engine = Engine("<think>so</think><code>")
    sample(engine, None)
    (asked,) = engine.asked
    assert asked["sampling_params"]["temperature"] == 1.0
    assert asked["sampling_params"]["stop"] == ["</code>", "</answer>"]


def test_a_call_goes_on_at_its_own_temperature_where_the_text_left_off() -> None:
    engine = Engine("<think>so</think><code>", "\nprint(1)\n</code>")
    sampled = sample(engine, 0.0)
    first, second = engine.asked
    assert first["sampling_params"]["stop"] == ["</code>", "</answer>", "<code>"]
    assert (first["sampling_params"]["temperature"], second["sampling_params"]["temperature"]) == (1.0, 0.0)
    assert second["sampling_params"]["top_p"] == 0.9
    assert second["prompt_ids"] == [7, 8, *Say("<think>so</think><code>").token_ids]
    assert second["sampling_params"]["stop"] == ["</code>", "</answer>"]
    spent = len(Say("<think>so</think><code>").token_ids)
    assert second["sampling_params"]["max_tokens"] == 500 - spent
    assert text(sampled) == "<think>so</think><code>\nprint(1)\n</code>"
    assert sampled.log_probs == [-0.1] * spent + [-0.2] * (len(sampled.token_ids) - spent)
    assert (sampled.versions, sampled.aborted) == ((1, 2), False)


@pytest.mark.parametrize("said", ["<answer>3</answer>", "<code>\nprint(1)\n</code>", "nothing at all"])
def test_a_turn_without_an_open_call_is_done(said: str) -> None:
    engine = Engine(said)
    assert text(sample(engine, 0.5)) == said
    assert len(engine.asked) == 1


def test_greedy_turns_and_spent_budgets_ask_once() -> None:
    for params, budget in (({"temperature": 0}, 500), ({}, len(Say("<code>").token_ids))):
        engine = Engine("<code>")
        sample(engine, 0.5, budget, **params)
        assert len(engine.asked) == 1


def test_an_aborted_turn_ends_there() -> None:
    engine = Engine("<code>", aborted=True)
    assert sample(engine, 0.5).aborted and len(engine.asked) == 1


OPEN = "<code>\n```python\nprint('<answer>3</answer>"
REST = "')\n```\n</code>"
SEEN = "I see\n```json\n[1]\n```\n"
PARTS = {
    "an answer in a call": ("code", [OPEN, REST]),
    "a closing tag in a comment": ("code", ["<code>\n```python\nx = 1  # </code>", "\n```\n</code>"]),
    "tags in a thought": ("code", ["<think>in <code> and </code>", " tags</think><answer>3</answer>"]),
    "another language": ("fence", [SEEN, "```python\nprint(1)\n```\n"]),
    "a fence without a label": ("fence", ["so\n```\n", "print(1)\n```\n"]),
    "an answer in JSON": ("tool_call", ['<tool_call>{"code": "</answer>', '"}</tool_call>']),
}


@pytest.mark.parametrize("case", PARTS)
def test_a_turn_goes_on_behind_a_stop_string_that_does_not_end_it(case: str) -> None:
    name, parts = PARTS[case]
    engine = Engine(*parts, "never asked for")
    sampled = sample(engine, None, format=name)
    assert text(sampled) == "".join(parts)
    first, second = engine.asked
    assert second["prompt_ids"] == [7, 8, *Say(parts[0]).token_ids]
    spent = len(Say(parts[0]).token_ids)
    assert second["sampling_params"] == {**first["sampling_params"], "max_tokens": 500 - spent}
    assert sampled.log_probs == [-0.1] * spent + [-0.2] * (len(sampled.token_ids) - spent)


def test_a_turn_that_the_model_ended_itself_does_not_go_on() -> None:
    engine = Engine(Say(OPEN, ("<|im_end|>",)))
    assert sample(engine, None).token_ids == Say(OPEN, ("<|im_end|>",)).token_ids
    assert len(engine.asked) == 1


def test_a_turn_goes_on_within_its_budget_and_a_bound() -> None:
    spent = len(Say(OPEN).token_ids)
    assert len(sample(Engine(OPEN, REST), None, budget=spent).token_ids) == spent
    engine = Engine(OPEN, *["</answer>"] * MOST_PARTS)
    sample(engine, None, budget=100_000)
    assert len(engine.asked) == MOST_PARTS


def test_a_call_at_its_own_temperature_stays_at_it() -> None:
    engine = Engine("<code>", "\n```python\nprint('</answer>", REST)
    sample(engine, 0.25)
    assert [asked["sampling_params"]["temperature"] for asked in engine.asked] == [1.0, 0.25, 0.25]
    assert [asked["sampling_params"]["stop"][-1] for asked in engine.asked] == ["<code>", "</answer>", "</answer>"]


def test_what_was_sampled_in_parts_is_trained_as_it_came() -> None:
    done = [Execution(ExecutionStatus.OK, "1\n")]
    played = play(Script([Say(OPEN), Say(REST), Say("<answer>1</answer>")], done))
    assert played.codes == ["print('<answer>3</answer>')"]
    assert played.prompts[1] == played.prompts[0] + played.sampled[0]
    trajectory = played.output.extra_fields["trajectory"]
    assert trajectory.finish is FinishReason.ANSWER and trajectory.answer == "1"
    first = trajectory.turns[0]
    assert played.output.response_ids[: first.token_end] == [*played.sampled[0], *played.sampled[1]]
    assert played.output.response_logprobs[: first.token_end] == [*played.logprobs[0], *played.logprobs[1]]
    assert sum(played.output.response_mask) == sum(map(len, played.sampled))


def test_a_whole_trajectory_is_the_same_tokens_in_two_parts() -> None:
    """Each call of the script is said in two requests; code runs once, and turns and masks are as ever."""
    says = [Say("<think>so</think><code>"), Say("\n```python\nprint(1)\n```\n</code>"), Say("<answer>1</answer>")]
    done = [Execution(ExecutionStatus.OK, "1\n")]
    whole = play(Script([Say(says[0].text + says[1].text), says[2]], done))
    parts = play(Script(says, done, sampling={"code_temperature": 0.0}))
    assert parts.codes == whole.codes == ["print(1)"]
    turns = parts.output.extra_fields["trajectory"].turns
    assert [turn.text for turn in turns] == [turn.text for turn in whole.output.extra_fields["trajectory"].turns]
    assert parts.prompts[1] == parts.prompts[0] + parts.sampled[0]
    assert sum(parts.output.response_mask) == sum(map(len, parts.sampled))


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"oversample": 0.5}, r"sampling\.oversample=0\.5: must be a number from 1 to 8"),
        ({"oversample": 2}, r"sampling\.oversample=2: needs sampling\.keep=on_correct"),
        ({"keep": "best"}, r"sampling\.keep=best: must be one of all, on_correct"),
        ({"code_temperature": -1}, r"sampling\.code_temperature=-1: must be a number from 0 to 2"),
        ({"temperature": 1}, r"sampling\.temperature: unknown key; known are oversample"),
    ],
)
def test_bad_values_are_named(values: dict[str, object], told: str) -> None:
    with pytest.raises(UserError, match=told):
        SamplingConfig.from_mapping(values)


def test_how_many_are_drawn() -> None:
    config = SamplingConfig.from_mapping({"oversample": 1.5, "keep": "on_correct", "code_temperature": 0})
    assert config == SamplingConfig(oversample=1.5, keep=Keep.ON_CORRECT, code_temperature=0.0)
    assert (config.drawn(8), config.drawn(5), SamplingConfig().drawn(8)) == (12, 8, 8)


def test_a_deterministic_rollout_asks_for_each_part_of_each_turn_with_a_seed_of_its_own() -> None:
    says = [Say("<code>"), Say("\n```python\nprint(1)\n```\n</code>"), Say("<answer>1</answer>")]
    script = Script(says, [Execution(ExecutionStatus.OK, "1\n")], sampling={"code_temperature": 0.5})
    first, again, other = (play(script, seed=seed).seeds for seed in (1, 1, 2))
    assert len(set(first)) == 3
    assert first == again
    assert not set(first) & set(other)
    assert play(script).seeds == [None] * 3


@pytest.mark.parametrize(
    ("fields", "versions"),
    [
        ({"min_global_steps": 3, "global_steps": 4, "max_global_steps": 4}, (3, 4)),
        ({"global_steps": 4}, (4,)),
        ({"min_global_steps": None, "global_steps": None, "max_global_steps": None}, ()),
        ({}, ()),
    ],
    ids=["begun under older weights", "one version", "versions unknown", "no versions"],
)
def test_a_turn_has_the_oldest_and_the_newest_version_that_sampled_it(
    fields: dict[str, Any], versions: tuple[int, ...]
) -> None:
    engine = Engine("<answer>3</answer>")
    generate = engine.generate

    async def resumed(**request: Any) -> Any:
        output = await generate(**request)
        output.extra_fields = fields
        return output

    engine.generate = resumed  # type: ignore[method-assign]
    assert sample(engine, None).versions == versions


class Unreachable:
    """An engine that answers no request."""

    async def generate(self, **_: Any) -> Any:
        raise RuntimeError("the server is gone")


@pytest.mark.parametrize(("step", "version"), [(7, 6), (1, 0)])
def test_a_rollout_whose_first_request_fails_has_the_version_that_its_step_began_with(step: int, version: int) -> None:
    record = {
        "raw_prompt": [{"role": "user", "content": "How many?"}],
        "reward_model": {"ground_truth": "1"},
        "global_steps": step,
    }

    async def roll_out() -> Any:
        return await loop_of(Script([]), Unreachable()).run({}, **record)

    output = asyncio.run(roll_out())
    assert output.extra_fields["trajectory"].finish is FinishReason.INFRASTRUCTURE
    assert output.extra_fields["min_global_steps"] == output.extra_fields["max_global_steps"] == version


def test_an_engine_that_is_lost_ends_its_trajectory_as_infrastructure(caplog: pytest.LogCaptureFixture) -> None:
    class Lost:
        async def generate(self, **_: Any) -> Any:
            raise ActorDiedError

    record: dict[str, Any] = {
        "raw_prompt": [{"role": "user", "content": "How many?"}],
        "reward_model": {"ground_truth": "1"},
        "data_source": "test",
        "extra_info": {"record_id": "test-0"},
    }

    async def run() -> Any:
        return await loop_of(Script([]), Lost()).run({}, **record)

    output = asyncio.run(run())
    assert output.trajectory.finish is FinishReason.INFRASTRUCTURE
    assert "record test-0: the rollout is masked: EngineError: ActorDiedError" in caplog.text
    assert "please report" not in caplog.text
