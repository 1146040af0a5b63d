"""Lift within questions."""

from __future__ import annotations

import random

import pytest

from codedance_verl.operations.lift import GroupMember, within_question_lift


def test_each_question_is_compared_with_itself() -> None:
    # easy question: always right; hard one: right where the operation is; a third one lacks a side
    members = [
        *(GroupMember("easy", has, True) for has in (True, False, False)),
        *(GroupMember("hard", has, has) for has in (True, True, False)),
        *(GroupMember("other", True, False) for _ in range(4)),
    ]
    found = within_question_lift(members)
    assert found.value == pytest.approx(0.5)
    assert (found.groups, found.left_out) == (2, 1)
    assert (found.accuracy_with, found.accuracy_without) == (1.0, 0.5)
    assert found.low is not None and found.high is not None and found.low <= 0.5 <= found.high


def test_difficulty_alone_gives_no_lift() -> None:
    """Operations are used on hard questions, which fails a comparison over all rollouts, not this one."""
    generator = random.Random(0)
    members = []
    for group in range(400):
        hard = group % 2 == 0
        for _ in range(8):
            has = generator.random() < (0.8 if hard else 0.2)
            members.append(GroupMember(str(group), has, generator.random() < (0.2 if hard else 0.9)))
    found = within_question_lift(members)
    assert found.value is not None and abs(found.value) < 0.05
    assert found.low is not None and found.high is not None and found.low < 0 < found.high


def test_nothing_to_compare() -> None:
    alone = within_question_lift([GroupMember("a", True, True), GroupMember("b", False, False)])
    assert (alone.value, alone.low, alone.groups, alone.left_out) == (None, None, 0, 2)
    one = within_question_lift([GroupMember("a", True, True), GroupMember("a", False, False)])
    assert (one.value, one.low, one.high, one.groups) == (1.0, None, None, 1)


def test_the_interval_is_the_same_each_time() -> None:
    members = [GroupMember(str(n // 4), n % 4 < 2, n % 3 == 0) for n in range(200)]
    assert within_question_lift(members) == within_question_lift(members)
