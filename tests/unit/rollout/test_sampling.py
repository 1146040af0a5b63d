from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from codedance_verl.rollout.sampling import kept_tokens
from tests.unit.rollout.harness import tokenizer

STOPS = ("</code>", "</answer>", "\n```\n")


def encode(text: str) -> list[int]:
    return list(tokenizer().encode(text, add_special_tokens=False))


def letters(text: str) -> list[int]:
    """The text letter by letter, as after an interruption in the midst of a stop string."""
    return [token for letter in text for token in encode(letter)]


def test_a_turn_that_stopped_where_it_should_is_kept_whole() -> None:
    ids = encode("<code>\n```python\nx\n```\n</code>")
    assert kept_tokens(tokenizer(), ids, STOPS[:2]) == ids


def test_what_follows_a_stop_string_is_cut_even_if_it_came_in_pieces() -> None:
    ids = letters("so </code> and <answer>7</answer>")
    assert tokenizer().decode(kept_tokens(tokenizer(), ids, STOPS)) == "so </code>"


@given(st.text("ab </code>\n`", max_size=60))
def test_the_shortest_part_with_a_whole_stop_string_is_kept(text: str) -> None:
    ids = letters(text)
    kept = kept_tokens(tokenizer(), ids, STOPS)
    assert ids[: len(kept)] == kept
    stopped = [any(stop in tokenizer().decode(ids[:length]) for stop in STOPS) for length in range(len(ids) + 1)]
    assert len(kept) == (stopped.index(True) if True in stopped else len(ids))
