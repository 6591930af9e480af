"""Errors as OpenAI's clients expect them: {"error": {"message", "type", "param", "code"}}."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

TYPES = {401: "authentication_error", 429: "rate_limit_error", 500: "server_error"}
ROUTING = {
    404: ("not_found", "There is nothing at this address; /openapi.json lists what there is."),
    405: ("method_not_allowed", "This address has other methods; see the header Allow."),
}
LINGER_SECONDS, LINGER_BYTES = 1.0, 20_000_000  # that the rest of a refused body is read
HEADERS = {
    "X-Content-Type-Options": "nosniff",  # a browser shall take no answer for a page
    "Connection": "close",  # the rest of a body that was refused is not waited for long
}


class ApiError(Exception):
    """An answer that is an error.

    Args:
      status: of HTTP.
      code: a word for programs, and for the metrics.
      message: one line for people: what is wrong, and what to do.
      param: the field of the form that is wrong.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ):
        super().__init__(message)
        self.status, self.code, self.param = status, code, param
        self.headers = {**HEADERS, **(headers or {})}

    def to_dict(self) -> dict:
        """The body of the answer."""
        kind = TYPES.get(self.status, "invalid_request_error")
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}


def gone() -> ApiError:
    """For a client that has gone, which reads no answer; the number is nginx's."""
    return ApiError(499, "client_gone", "The client has gone.")


def as_api_error(error: Exception) -> ApiError:
    """The answer to whatever was raised; to what nobody raised on purpose one of status 500."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, HTTPException):
        code, message = ROUTING.get(error.status_code, ("broken_form", error.detail))
        return ApiError(error.status_code, code, message, headers=error.headers)
    if isinstance(error, RequestValidationError):
        return ApiError(400, "invalid_value", "The request has a value that is not possible.")
    return ApiError(500, "internal_error", "Something went wrong; the log of this server says where.")


async def answer(request: Request, error: Exception) -> JSONResponse:
    """For FastAPI: what a request gets that ended in an error."""
    found = as_api_error(error)
    request.state.error = found
    if not getattr(request.state, "is_read", False):
        await discard_body(request)
    return JSONResponse(found.to_dict(), found.status, found.headers)


async def discard_body(request: Request) -> None:
    """Reads what is still sent, within limits: where much is left unread, closing resets the connection, and
    the client sees that in place of the answer.
    """
    discarded = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(LINGER_SECONDS):
            while discarded < LINGER_BYTES:
                message = await request.receive()
                discarded += len(message.get("body", b""))
                if not message.get("more_body", False):  # the end, or the client has gone
                    return
