"""Renamed configuration keys."""

from __future__ import annotations

RENAMED: dict[str, str] = {
    "environment.answer_tokens": "environment.min_answer_tokens",
    "environment.instructions": "environment.add_system_prompt",
    "environment.max_seconds": "environment.trajectory_limit_s",
    "environment.stall_seconds": "environment.stall_limit_s",
    "sandbox.spares": "sandbox.standby_containers",
}
"""Old dotted key -> new dotted key. An old one is refused with the new name, on the command line and in files."""


def renamed_line(key: str) -> str | None:
    """Line for an old key; None for any other."""
    return f"{key}: is now {RENAMED[key]}" if key in RENAMED else None
