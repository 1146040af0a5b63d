from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codedance_verl.rollout.tokens import TokenStream

PIECES = st.lists(st.tuples(st.booleans(), st.lists(st.integers(0, 99), max_size=5)), max_size=12)


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


def test_log_probs_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="2 sampled tokens came with 1 log-probs"):
        TokenStream.from_prompt([1]).append_sampled([2, 3], [-0.5])
