"""Calls of node actors, and a session by such calls.

An exception of a node arrives as it was raised there, without Ray's wrapping.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import Any

import ray
from ray.exceptions import ActorUnschedulableError, GetTimeoutError, RayActorError, RayError, RayTaskError

from codedance_verl.errors import UserError
from codedance_verl.runtime.remote_answers import answers_within
from codedance_verl.sandbox.errors import NodeLost, SandboxError, SandboxUnavailable
from codedance_verl.types import Execution


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


class ActorSession:
    """A session by calls of a node actor: from any machine. Images that come back are not decoded."""

    def __init__(self, actor: Any, session_id: str) -> None:
        self._actor = actor
        self._session_id = session_id

    async def open(self, images: Sequence[bytes]) -> None:
        """Opens the session; raises what `SandboxNode.open` does, and `NodeLost`."""
        await result(self._actor.open.remote(images, self._session_id))

    async def run(self, code: str, timeout_s: float | None) -> Execution:
        """Runs one cell; raises what `SandboxNode.run` does, and `NodeLost`."""
        execution: Execution = await result(self._actor.run.remote(self._session_id, code, timeout_s))
        return execution

    async def close(self) -> None:
        """Ends the session; raises `UnknownSession` or `NodeLost` where it has ended."""
        await result(self._actor.close.remote(self._session_id))


def _cause(error: RayTaskError) -> Exception:
    cause = error.cause
    if isinstance(cause, (SandboxError, UserError)):
        return cause
    return SandboxUnavailable(f"a sandbox node failed: {type(cause).__name__}: {cause}")
