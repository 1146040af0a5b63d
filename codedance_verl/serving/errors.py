"""Refusals of requests, in the terms of OpenAI's API."""

from __future__ import annotations

from enum import StrEnum
from typing import Any


class Fault(StrEnum):
    """Part outside of the model that failed."""

    SANDBOX = "sandbox"
    ENGINE = "engine"


class RequestError(Exception):
    """Refusal of a request, with the fields of OpenAI's error object and the HTTP status.

    `fault`, beside code `infrastructure`, is a field of our own.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        param: str | None = None,
        code: str | None = None,
        fault: Fault | None = None,
    ) -> None:
        super().__init__(message)
        self.message, self.status, self.param, self.code, self.fault = message, status, param, code, fault

    def body(self) -> dict[str, Any]:
        """Returns the JSON body of the reply."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": error if self.fault is None else {**error, "fault": self.fault}}
