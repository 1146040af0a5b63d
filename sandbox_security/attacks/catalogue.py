"""All attacks."""

from __future__ import annotations

from sandbox_security.attacks import (
    deception,
    escape,
    host_files,
    network,
    other_sessions,
    protocol,
    resources,
    time_limits,
)

ALL = (
    *resources.ATTACKS,
    *escape.ATTACKS,
    *network.ATTACKS,
    *other_sessions.ATTACKS,
    *host_files.ATTACKS,
    *protocol.ATTACKS,
    *time_limits.ATTACKS,
    *deception.ATTACKS,
)
