from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codedance_verl.environment.generation import kept_tokens
from codedance_verl.formats import TurnFormat, get_format
from tests.unit.environment.harness import tokenizer

CODE, FENCE = get_format("code"), get_format("fence")


def encode(text: str) -> list[int]:
    return list(tokenizer().encode(text, add_special_tokens=False))


def letters(text: str) -> list[int]:
    """The text letter by letter, as after an interruption in the midst of a stop string."""
    return [token for letter in text for token in encode(letter)]


PIECES = st.sampled_from(
    ["</code>", "<code>\n", "```\n", "```python\n", "'''", "<answer>", "</answer>", "<think>", "</think>", "x"]
)


def test_a_turn_that_stopped_where_it_should_is_kept_whole() -> None:
    ids = encode("<code>\n```python\nx\n```\n</code>")
    assert kept_tokens(tokenizer(), ids, CODE) == ids


def test_what_follows_the_end_of_a_turn_is_cut_even_if_it_came_in_pieces() -> None:
    ids = letters("so <code>x</code> and <answer>7</answer>")
    assert tokenizer().decode(kept_tokens(tokenizer(), ids, CODE)) == "so <code>x</code>"


def test_a_stop_string_in_a_string_of_the_code_cuts_nothing() -> None:
    said = "<code>\n```python\nprint('<answer>3</answer> </code>')\n```\n</code>"
    assert tokenizer().decode(kept_tokens(tokenizer(), letters(f"{said} and more"), CODE)) == said


@pytest.mark.parametrize("written", [CODE, FENCE], ids=["code", "fence"])
@given(said=st.lists(PIECES, max_size=12))
def test_the_shortest_part_with_a_whole_turn_is_kept(written: TurnFormat, said: list[str]) -> None:
    ids = letters("".join(said))
    kept = kept_tokens(tokenizer(), ids, written)
    assert ids[: len(kept)] == kept
    ended = [written.end(tokenizer().decode(ids[:length])) is not None for length in range(len(ids) + 1)]
    assert len(kept) == (ended.index(True) if True in ended else len(ids))
