from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codedance_verl.environment.tokens import InvariantError, SpecialTokens, TokenStream, VisionTokens

PIECES = st.lists(st.tuples(st.booleans(), st.lists(st.integers(0, 99), max_size=5)), max_size=12)


@settings(max_examples=2_500, deadline=None)
@given(prompt=st.lists(st.integers(0, 99), min_size=1, max_size=8), pieces=PIECES)
def test_mask_is_one_exactly_on_sampled_tokens(prompt: list[int], pieces: list[tuple[bool, list[int]]]) -> None:
    stream = TokenStream.from_prompt(prompt)
    expected_ids, expected_mask = list(prompt), []
    for sampled, ids in pieces:
        if sampled:
            start, end = stream.append_sampled(ids, [-1.0] * len(ids))
            assert stream.response_ids[start:end] == ids
        else:
            stream.append_context(ids)
        expected_ids += ids
        expected_mask += [int(sampled)] * len(ids)
    assert stream.ids == expected_ids
    assert stream.mask == expected_mask
    assert stream.logprobs == [-1.0 if bit else 0.0 for bit in expected_mask]
    assert len(stream.response_ids) == stream.response_length == len(expected_mask)


VISION = VisionTokens(pad=10, start=11, end=12)
WORDS = SpecialTokens(reserved=frozenset([10, 11, 12, 13]), vision=VISION)


@pytest.mark.parametrize(
    ("append", "told"),
    [
        (lambda stream: stream.append_sampled([2, 3], [-0.5]), "4 response tokens, 4 mask values, 3 log-probs"),
        (lambda stream: stream.append_sampled([2], [0.5]), "log-prob 0.5"),
        (lambda stream: stream.append_sampled([2, 13], [-0.5, -0.5]), "reserved 13"),
        (lambda stream: stream.append_context([11, 10, 10, 12], [3]), r"\[1, 2\] patches for images of \[1, 3\]"),
        (lambda stream: stream.append_context([11, 10, 12]), r"\[1, 1\] patches for images of \[1\]"),
        (lambda stream: stream.append_context([5], [1]), r"\[1\] patches for images of \[1, 1\]"),
        (lambda stream: stream.append_context([11, 10], [1]), "does not end"),
        (lambda stream: stream.append_context([10, 12], [1]), "outside of an image"),
        (lambda stream: stream.append_context([12], [1]), "never began"),
        (lambda stream: stream.append_context([11, 10, 11, 10, 12], [2]), "within the one that begins"),
        (lambda stream: stream.append_context([11, 10, 5, 12], [2]), "inside of an image"),
    ],
)
def test_what_breaks_a_rule_is_refused_and_leaves_no_trace(append: Callable[[TokenStream], Any], told: str) -> None:
    stream = TokenStream.from_prompt([1, 11, 10, 12], WORDS, [1])
    stream.append_sampled([2, 3], [-0.5, -0.25])
    before = copy.deepcopy(stream)
    with pytest.raises(InvariantError, match=told):
        append(stream)
    assert stream == before


def test_a_mask_that_does_not_follow_the_turns_is_found() -> None:
    stream = TokenStream.from_prompt([1])
    stream.append_sampled([2, 3], [-0.5, -0.25])
    stream.mask[1] = 0
    with pytest.raises(InvariantError, match="token 1 has mask 0"):
        stream.check()


def test_sampled_tokens_are_kept_up_to_the_first_that_is_reserved() -> None:
    stream = TokenStream.from_prompt([1], WORDS)
    assert [stream.sampled_prefix(ids) for ids in ([], [2, 3], [2, 13, 3], [10])] == [0, 2, 1, 0]
