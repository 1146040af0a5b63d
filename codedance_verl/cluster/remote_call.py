"""Calls of a function on one node of the cluster, with a limit on the time of the answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from codedance_verl.errors import UserError
from codedance_verl.sandbox.placement import RayNode


def call_on(node: RayNode, function: Callable[..., Any], *arguments: Any) -> Any:
    """Starts a call that takes no CPU of the node; returns Ray's reference to its result."""
    here = NodeAffinitySchedulingStrategy(node.node_id, soft=False)
    return ray.remote(function).options(num_cpus=0, scheduling_strategy=here).remote(*arguments)


def answer(node: RayNode, reference: Any, timeout_s: float) -> Any:
    """Returns the result of a call.

    Raises:
        UserError: the one the call has raised, or that it failed or took longer than `timeout_s`; names the node.
    """
    try:
        return ray.get(reference, timeout=timeout_s)
    except GetTimeoutError:
        raise UserError(f"node {node.address}: no answer within {timeout_s:g} s") from None
    except RayError as error:
        cause = error.cause if isinstance(error, RayTaskError) else error
        kind = "" if isinstance(cause, UserError) else f"{type(cause).__name__}: "
        raise UserError(f"node {node.address}: {kind}{' '.join(str(cause).split())[:400]}") from None
