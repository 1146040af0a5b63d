"""Names of verl's nodes that the capability table and its conditions share."""

from __future__ import annotations

ROOT = "actor_rollout_ref"
ACTOR, ROLLOUT, MODEL, REFERENCE = f"{ROOT}.actor", f"{ROOT}.rollout", f"{ROOT}.model", f"{ROOT}.ref"
FSDP = (f"{ACTOR}.fsdp_config", f"{REFERENCE}.fsdp_config", "critic.fsdp")


def under(nodes: tuple[str, ...], *names: str) -> tuple[str, ...]:
    """Joins every name to every node."""
    return tuple(f"{node}.{name}" for node in nodes for name in names)
