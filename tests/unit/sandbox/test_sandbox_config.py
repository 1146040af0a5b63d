"""Settings of the pool: mistakes are told by their dotted key, with what is allowed."""

from __future__ import annotations

from typing import Any

import pytest

from codedance_verl.errors import UserError
from codedance_verl.sandbox.config import SandboxConfig


def test_a_mapping_sets_what_it_names_and_leaves_the_rest() -> None:
    config = SandboxConfig.from_mapping({"backend": "process", "cell_timeout_s": 2})
    assert (config.backend, config.cell_timeout_s) == ("process", 2)
    assert config.max_images == SandboxConfig().max_images


def test_an_unknown_key_is_named_with_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"sandbox\.cell_timeout: unknown key; .*cell_timeout_s"):
        SandboxConfig.from_mapping({"cell_timeout": 3})


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("backend", "podman", r"auto, docker, process"),
        ("preload", "torch", r"light, full"),
        ("image", " ", "tag of an image"),
        ("runtime", "run sc", "name of a runtime"),
        ("runtime", None, "name of a runtime"),
        ("cell_timeout_s", 0, "0.05 to 3600"),
        ("cell_timeout_s", float("nan"), "a number"),
        ("cell_timeout_s", "15", "a number"),
        ("containers", 0, "a whole number from 1 to 64"),
        ("containers", 1.5, "a whole number"),
        ("containers", True, "a whole number"),
        ("max_images", 65, "1 to 64"),
        ("memory_mb", 10, "a whole number from 512 .*or null"),
        ("memory_mb", 4096.0, "a whole number"),
        ("scratch_mb", "64", "a whole number from 16 .*or null"),
        ("session_file_mb", 0, "a whole number from 1 .*or null"),
        ("cpus", None, "a number"),
        ("cpu_weight", 1, "a whole number from 2"),
        ("pids", 16, "session_processes"),
    ],
)
def test_a_bad_value_is_told_with_its_key_and_what_is_allowed(key: str, value: Any, allowed: str) -> None:
    with pytest.raises(UserError, match=rf"sandbox\.{key}=.*: must be .*{allowed}"):
        SandboxConfig.from_mapping({key: value})


def test_the_limits_of_a_session_are_in_bytes() -> None:
    limits = SandboxConfig(session_memory_mb=64, session_file_mb=2).session_limits()
    assert (limits["memory_bytes"], limits["file_bytes"]) == (64 << 20, 2 << 20)
