"""Statuses of refusals by `codedance serve`, the same whether it answers in this process or over HTTP."""

from __future__ import annotations

from codedance_verl.records.record import Status
from codedance_verl.serving.errors import Fault

IMAGE_FAULTS = frozenset(("invalid_image", "image_too_large", "too_many_images"))
"""Codes of refused requests whose images are at fault."""


def status_of(code: str | None, fault: str | None = None) -> Status:
    """Status of a question that the service has refused.

    Args:
        code: of the error object (`RequestError.code`); None or empty for none.
        fault: part that failed (`serving.errors.Fault`), as the error object states it; None or empty for none.
    """
    if code in IMAGE_FAULTS:
        return Status.IMAGE_UNREADABLE
    return Status.SANDBOX_FAULT if fault == Fault.SANDBOX else Status.ENDPOINT_FAILURE
