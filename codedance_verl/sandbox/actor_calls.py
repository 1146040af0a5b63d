"""Calls of node actors. An exception of a node arrives as it was raised there, without Ray's wrapping."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Any

import ray
from ray.exceptions import ActorUnschedulableError, GetTimeoutError, RayActorError, RayError, RayTaskError

from codedance_verl.errors import UserError
from codedance_verl.runtime.remote_answers import answers_within
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
    """Awaits a call; raises as `wait` does, and `SandboxError` for any other error of Ray's."""
    try:
        return await reference
    except RayTaskError as error:
        raise _cause(error) from None
    except (RayActorError, ActorUnschedulableError) as error:
        raise NodeLost(f"the sandbox node has died: {error}") from None
    except RayError as error:  # neither a lost node nor a refusal: asking again is of no use
        raise SandboxError(f"no answer of the sandbox node: {type(error).__name__}: {error}") from None


def answered(references: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
    """Returns the answers that are there within `timeout_s`, by the names of their calls.

    A call that failed is there with its exception. Blocks until all are there, or the time is over.
    """
    return answers_within(references, timeout_s, lambda reference: wait(reference, 0.0))


def _cause(error: RayTaskError) -> Exception:
    cause = error.cause
    if isinstance(cause, (SandboxError, UserError)):
        return cause
    return SandboxUnavailable(f"a sandbox node failed: {type(cause).__name__}: {cause}")
