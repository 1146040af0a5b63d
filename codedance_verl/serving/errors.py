"""Refusals of requests, in the terms of OpenAI's API."""

from __future__ import annotations

from typing import Any


class RequestError(Exception):
    """Refusal of a request, with the fields of OpenAI's error object and the HTTP status."""

    def __init__(self, message: str, *, status: int = 400, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message, self.status, self.param, self.code = message, status, param, code

    def body(self) -> dict[str, Any]:
        """Returns the JSON body of the reply."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}
