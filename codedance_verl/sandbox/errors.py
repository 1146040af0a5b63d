"""Errors between a caller and the pool, one type for each reaction of a caller. None is caused by the model's code."""

from __future__ import annotations


class SandboxError(Exception):
    """Base of these errors: the cell was not run, or its result is lost."""


class SandboxBusy(SandboxError):
    """No free place within `sandbox.queue_timeout_s`. Trying again later, or elsewhere, may succeed."""


class SandboxUnavailable(SandboxError):
    """The pool cannot serve at all at present: interpreters do not start, or it has been shut down."""


class SandboxFull(SandboxUnavailable):
    """A container has no room for a session: its file space, memory or processes are used up.

    The message names the setting that cures it. Never the fault of the image or the code: the same call may succeed in
    another container, or a little later.
    """


class NodeLost(SandboxUnavailable):
    """The process that held the session has died, and all its sessions with it."""


class SandboxInputError(SandboxError):
    """The image given to `open` cannot be decoded."""


class UnknownSession(SandboxError):
    """The session was closed, or its lease ran out (`sandbox.lease_ttl_s`)."""
