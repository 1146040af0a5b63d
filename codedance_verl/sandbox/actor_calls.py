"""Calls of node actors. An exception of a node arrives as it was raised there, without Ray's wrapping."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Any

import ray
from ray.exceptions import ActorUnschedulableError, GetTimeoutError, RayActorError, RayError, RayTaskError

from codedance_verl.errors import UserError
from codedance_verl.sandbox.errors import NodeLost, SandboxError, SandboxUnavailable


def wait(references: Any, timeout_s: float) -> Any:
    """Returns what the calls return; blocks.

    Raises:
        SandboxUnavailable: one has not answered in time, or failed by a fault of the node.
        NodeLost: an actor has died.
        SandboxError, UserError: what the node raised.
    """
    try:
        return ray.get(references, timeout=timeout_s)
    except GetTimeoutError:
        raise SandboxUnavailable(f"a sandbox node did not answer within {timeout_s:g} s") from None
    except RayTaskError as error:
        raise _cause(error) from None
    except (RayActorError, ActorUnschedulableError) as error:
        raise NodeLost(f"a sandbox node has died: {error}") from None


async def result(reference: Awaitable[Any]) -> Any:
    """Awaits a call; raises as `wait` does."""
    try:
        return await reference
    except RayTaskError as error:
        raise _cause(error) from None
    except (RayActorError, ActorUnschedulableError) as error:
        raise NodeLost(f"the sandbox node has died: {error}") from None


def answered(references: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
    """Returns the answers that are there within `timeout_s`, by the names of their calls.

    A call that failed is there with its exception. Blocks until all are there, or the time is over.
    """
    if not references:
        return {}
    names = {reference: name for name, reference in references.items()}
    done, _ = ray.wait(list(names), num_returns=len(names), timeout=timeout_s)
    return {names[reference]: _outcome(reference) for reference in done}


def _outcome(reference: Any) -> Any:
    try:
        return wait(reference, 0.0)
    except (SandboxError, UserError, RayError) as error:
        return error


def _cause(error: RayTaskError) -> Exception:
    cause = error.cause
    if isinstance(cause, (SandboxError, UserError)):
        return cause
    return SandboxUnavailable(f"a sandbox node failed: {type(cause).__name__}: {cause}")
