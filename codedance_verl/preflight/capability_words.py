"""Names that the rows of `capability_table` share."""

from __future__ import annotations

from codedance_verl.preflight.capabilities import Status

WORKS, REFUSED, NO_EFFECT = Status.WORKS, Status.REFUSED, Status.NO_EFFECT
ROOT = "actor_rollout_ref"
ACTOR, ROLLOUT, MODEL, REFERENCE = f"{ROOT}.actor", f"{ROOT}.rollout", f"{ROOT}.model", f"{ROOT}.ref"
FSDP = (f"{ACTOR}.fsdp_config", f"{REFERENCE}.fsdp_config", "critic.fsdp")
OPTIM = (f"{ACTOR}.optim", "critic.optim")
MODELS = (MODEL, "critic.model")
NOT_RUN = "verl's own path, which no test here runs"


def under(nodes: tuple[str, ...], *names: str) -> tuple[str, ...]:
    """Returns every name below every node, as dotted keys."""
    return tuple(f"{node}.{name}" for node in nodes for name in names)
