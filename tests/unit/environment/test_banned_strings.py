"""A turn without given strings: single tokens are never sampled, strings of several tokens are taken back."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codedance_verl.environment.banned_strings import MOST_REDRAWS, NEVER, BanningSampler
from codedance_verl.environment.generation import Sampled
from codedance_verl.formats import FORMATS, get_format
from recipes.cpu_demo import tiny_tokenizer
from tests.unit.environment.harness import tokenizer

TEXT = "so><so\nso>\nso.<so\nso</so\nso```\nso``\nso <so\nthink\nanswer\ncode\npython\n" * 20


def _split_tags() -> Any:
    """A tokenizer in which, as in those of the Qwen family, a tag is several tokens that melt into their neighbours."""
    with mock.patch.object(tiny_tokenizer, "MARKUP_TOKENS", ()):
        return tiny_tokenizer.train_tokenizer([TEXT], vocabulary=400)


SPLIT = _split_tags()
PROMPT = [1, 2, 3]
STOPS = ["</code>", "</answer>"]


class Writer:
    """An engine that writes the first of its texts that goes on from what it has written, tokens with a bias left out.

    Where none does it writes a full stop. It stops at stop strings and at the end of a text.
    """

    def __init__(self, tokens: Any, *texts: str, fixed: bool = False) -> None:
        self._tokens = tokens
        self._plans = [tokens.encode(text, add_special_tokens=False) for text in texts]
        self._filler = tokens.encode(".", add_special_tokens=False)[0]
        self._fixed = fixed
        self.asked: list[dict[str, Any]] = []

    async def generate(
        self, request_id: str, prompt_ids: list[int], sampling_params: dict[str, Any], image_data: Any
    ) -> Any:
        self.asked.append(sampling_params)
        bias = {} if self._fixed else sampling_params.get("logit_bias") or {}
        before, written = prompt_ids[len(PROMPT) :], list[int]()
        while len(written) < sampling_params["max_tokens"]:
            whole = [*before, *written]
            plans = [plan for plan in self._plans if plan[: len(whole)] == whole]
            if whole in plans:
                break
            choices = [plan[len(whole)] for plan in plans]
            written.append(next((token for token in choices if bias.get(token, 0) > NEVER), self._filler))
            if any(stop in self._tokens.decode(written) for stop in sampling_params["stop"]):
                break
        return SimpleNamespace(
            token_ids=written,
            log_probs=[-float(len(self.asked))] * len(written),
            stop_reason="completed",
            extra_fields={"global_steps": 1},
        )


def sample(
    writer: Writer, banned: str, tokens: Any = SPLIT, budget: int = 200, format: str = "code", **params: Any
) -> Sampled:
    sampler = BanningSampler(writer, tokens, get_format(format), frozenset(), None, (banned,) if banned else ())
    return asyncio.run(sampler.sample("id", list(PROMPT), {"temperature": 1.0, **params}, None, budget))


CALL = "<think>so</think>{}<code>\n```python\nx\n```\n</code>"


def test_the_tokenizer_splits_a_tag_by_what_stands_around_it() -> None:
    pieces = [[SPLIT.decode([token]) for token in SPLIT.encode(text)] for text in ("></code>\n", ".<code>\n", "<code>")]
    assert pieces[0][-1] == pieces[1][-1] == ">\n" and pieces[1][0] == ".<" and len(pieces[2]) == 3


@pytest.mark.parametrize("between", ["", "\n", " ", "."])
def test_a_tag_of_several_tokens_is_taken_back_to_where_it_differs_from_an_answer(between: str) -> None:
    call, answer = CALL.format(between), f"<think>so</think>{between}<answer>7</answer>"
    writer = Writer(SPLIT, call, answer)
    drawn = sample(writer, "<code>")
    assert SPLIT.decode(drawn.token_ids) == answer
    whole, once, rest = writer.asked
    assert whole["stop"] == [*STOPS, "<code>"] and "logit_bias" not in whole and "logit_bias" not in rest
    (refused,) = once["logit_bias"]
    assert SPLIT.decode([refused]) == "code" and once["max_tokens"] == 1
    shared = SPLIT.encode(answer).index(SPLIT.encode("answer")[0])
    assert drawn.log_probs == [-1.0] * shared + [-2.0] + [-3.0] * (len(drawn.token_ids) - shared - 1)
    assert rest["max_tokens"] == 200 - shared - 1


def test_a_tag_of_one_token_is_never_sampled() -> None:
    tokens = tokenizer()
    writer = Writer(tokens, CALL.format(""), "<think>so</think><answer>7</answer>")
    assert tokens.decode(sample(writer, "<code>", tokens).token_ids) == "<think>so</think><answer>7</answer>"
    (asked,) = writer.asked
    assert asked["logit_bias"] == {tokens.convert_tokens_to_ids("<code>"): NEVER}


def test_an_answer_is_banned_for_a_call() -> None:
    call = CALL.format("")
    writer = Writer(SPLIT, "<think>so</think><answer>7</answer>", call)
    assert SPLIT.decode(sample(writer, "<answer>").token_ids) == call


def test_a_fence_is_banned_whatever_follows_it() -> None:
    ban = FORMATS["fence"].call_prefix
    for call in ("see\n```python\nx\n```\n", "see\n```\nx\n```\n", "see `x`, ```py\nx\n```\n"):
        said = SPLIT.decode(sample(Writer(SPLIT, call, "see <answer>7</answer>"), ban, format="fence").token_ids)
        assert "```" not in said and said.startswith("see")


def test_nothing_else_changes_without_a_banned_string() -> None:
    writer = Writer(SPLIT, CALL.format(""))
    assert SPLIT.decode(sample(writer, "").token_ids) == CALL.format("")
    (asked,) = writer.asked
    assert asked == {"temperature": 1.0, "max_tokens": 200, "stop": STOPS, "include_stop_str_in_output": True}
    assert SPLIT.decode(sample(Writer(SPLIT, CALL.format("")), "<answer>").token_ids) == CALL.format("")


def test_a_bias_of_the_request_stays() -> None:
    writer = Writer(SPLIT, CALL.format(""), "<think>so</think><answer>7</answer>")
    sample(writer, "<code>", logit_bias={5: 3.0})
    assert [asked["logit_bias"].get(5) for asked in writer.asked] == [3.0] * 3
    assert [len(asked["logit_bias"]) for asked in writer.asked] == [1, 2, 1]


def test_an_engine_that_writes_it_for_ever_is_cut_in_front_of_it() -> None:
    writer = Writer(SPLIT, CALL.format(""), fixed=True)
    drawn = sample(writer, "<code>")
    assert SPLIT.decode(drawn.token_ids) == "<think>so</think><"
    assert len(writer.asked) <= 2 * MOST_REDRAWS + 1
    assert drawn.log_probs is not None and len(drawn.log_probs) == len(drawn.token_ids)


def test_a_deterministic_turn_draws_every_part_with_a_seed_of_its_own() -> None:
    writer = Writer(SPLIT, CALL.format(""), "<think>so</think><answer>7</answer>")
    sample(writer, "<code>", seed=7)
    assert len({asked["seed"] for asked in writer.asked}) == 3


PIECES = st.sampled_from(
    ["<", "code", ">", "\n", "<code>", "<code", "answer", "<answer>", "</code>", ".", " ", "```", "`", "☃", "so"]
)
TEXTS = st.lists(PIECES, min_size=1, max_size=10).map("".join)


@settings(max_examples=300, deadline=None)
@given(
    texts=st.lists(TEXTS, min_size=1, max_size=5),
    banned=st.sampled_from(["<code>", "<answer>", "```"]),
    budget=st.integers(1, 40),
)
def test_no_turn_holds_a_banned_string_or_is_longer_than_its_budget(texts: list[str], banned: str, budget: int) -> None:
    drawn = sample(Writer(SPLIT, *texts), banned, budget=budget)
    assert banned not in SPLIT.decode(drawn.token_ids)
    assert len(drawn.token_ids) <= budget
    assert drawn.log_probs is not None and len(drawn.log_probs) == len(drawn.token_ids)


@pytest.mark.parametrize("name", FORMATS)
def test_every_call_begins_with_the_prefix_of_its_format(name: str) -> None:
    kind = FORMATS[name]
    assert kind.render_call("x = 1").startswith(kind.call_prefix)
    assert kind.parse(kind.render_call("x = 1").replace(kind.call_prefix, "")).code is None
