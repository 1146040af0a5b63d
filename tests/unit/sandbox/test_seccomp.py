"""The list of system calls: well-formed, and without what hostile code is after."""

from __future__ import annotations

import json
from typing import Any

import pytest

from codedance_verl.sandbox.docker.image import seccomp_profile
from sandbox_security.attacks.in_cell import NUMBERS

PROFILE: dict[str, Any] = json.loads(seccomp_profile())
RULES: list[dict[str, Any]] = PROFILE["syscalls"]
ALLOWED = {name for rule in RULES if rule["action"] == "SCMP_ACT_ALLOW" for name in rule["names"]}
CONDITIONAL = {
    "clone",
    "ioctl",
    "mknod",
    "mknodat",
    "prctl",
    "sched_setaffinity",
    "setpriority",
    "socket",
    "socketpair",
}
CLONE_FLAGS_OF_NAMESPACES = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000


def rules_of(name: str) -> list[dict[str, Any]]:
    return [rule for rule in RULES if name in rule["names"]]


def test_what_is_not_listed_is_refused() -> None:
    assert PROFILE["defaultAction"] == "SCMP_ACT_ERRNO"
    assert {rule["action"] for rule in RULES} == {"SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"}
    assert [item["architecture"] for item in PROFILE["archMap"]] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"]
    assert not any(item["subArchitectures"] for item in PROFILE["archMap"]), "32-bit calls take other numbers"


def test_every_call_has_one_rule_or_all_its_rules_look_at_arguments() -> None:
    for name in {name for rule in RULES for name in rule["names"]}:
        assert len(rules_of(name)) == 1 or all(rule.get("args") for rule in rules_of(name)), name


@pytest.mark.parametrize("name", sorted(set(NUMBERS) - CONDITIONAL))
def test_what_the_attacks_call_is_not_allowed(name: str) -> None:
    assert name not in ALLOWED


@pytest.mark.parametrize("name", sorted(CONDITIONAL))
def test_calls_that_can_do_harm_are_allowed_by_their_arguments_only(name: str) -> None:
    assert rules_of(name) and all(rule.get("args") for rule in rules_of(name))


def test_no_process_is_born_into_a_new_namespace() -> None:
    (rule,) = rules_of("clone")
    (argument,) = rule["args"]
    assert (argument["op"], argument["value"], argument["valueTwo"]) == (
        "SCMP_CMP_MASKED_EQ",
        CLONE_FLAGS_OF_NAMESPACES,
        0,
    )
    (hidden,) = rules_of("clone3")
    assert (hidden["action"], hidden["errnoRet"]) == ("SCMP_ACT_ERRNO", 38), "ENOSYS: the C library falls back to clone"


def test_only_unix_sockets_can_be_made() -> None:
    for name in ("socket", "socketpair"):
        by_action = {rule["action"]: rule["args"] for rule in rules_of(name)}
        assert by_action == {
            "SCMP_ACT_ALLOW": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}],
            "SCMP_ACT_ERRNO": [{"index": 0, "value": 1, "op": "SCMP_CMP_NE"}],
        }
