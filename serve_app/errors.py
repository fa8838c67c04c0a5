"""Everything that can go wrong over HTTP, and the one table from exceptions to answers.

An answer has the shape of the surface that was asked: OpenAI's error object, FHIR's OperationOutcome
below `/fhir`, problem+json (RFC 9457) on the paths of our own.

No text of a request ever stands in a message: these reach clients, logs and traces.
"""

from __future__ import annotations

import logging
import math
import traceback
from dataclasses import dataclass, field
from typing import Literal

import orjson
from starlette.exceptions import HTTPException

from deployments.data.errors import DataError
from models.errors import EngineError
from models.generation import Failure

_log = logging.getLogger("medrec.errors")

Header = tuple[bytes, bytes]
Surface = Literal["openai", "fhir", "problem"]

_OPENAI = ("/v1/chat/", "/v1/models", "/v1/embeddings", "/v1/audio/")
_CONTENT_TYPES = {
    "openai": b"application/json",
    "fhir": b"application/fhir+json",
    "problem": b"application/problem+json",
}


def surface_of(path: str) -> Surface:
    """Whose contract a path belongs to, and so the shape of its errors."""
    if path == "/fhir" or path.startswith("/fhir/"):
        return "fhir"
    if path.startswith(("/v1/", "/internal/")) and not path.startswith(_OPENAI):
        return "problem"
    return "openai"


class HttpError(Exception):
    """A request that this process refuses itself. The caller's fault unless a subclass differs."""

    status = 400
    type = "invalid_request_error"
    code = "invalid_value"
    headers: tuple[Header, ...] = ()

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code or type(self).code
        self.retry_after_s = retry_after_s


class InvalidBody(HttpError):
    """The caller's fault: the body is not the JSON that it says it is."""

    code = "invalid_json"


class InvalidParameter(HttpError):
    """The caller's fault: `param` is unknown, or its value cannot be honoured."""


class UnsupportedMediaType(HttpError):
    """The caller's fault: a content type or encoding that is not read here."""

    status = 415
    code = "unsupported_media_type"


class BodyTooLarge(HttpError):
    """The caller's fault: more bytes than `limits.max_body_mb`."""

    status = 413
    code = "request_too_large"


class HeadersTooLarge(HttpError):
    """The caller's fault: more or longer headers than are read here."""

    status = 431
    code = "headers_too_large"


class BodyTooSlow(HttpError):
    """The caller's fault, or the network's: the body did not arrive in time."""

    status = 408
    code = "request_timeout"


class UpgradeRequired(HttpError):
    """The caller's fault: this path speaks WebSocket."""

    status = 426
    code = "upgrade_required"
    headers = ((b"upgrade", b"websocket"),)


class NotReady(HttpError):
    """The operator's concern: this replica cannot serve now; another one may."""

    status = 503
    type = "server_error"
    code = "not_ready"


class ClientGone(Exception):
    """The client closed its connection; nobody is left to answer."""


class StreamFailed(Exception):
    """A stream's first event is a failure, so that it can still become an HTTP status."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.code)
        self.failure = failure


@dataclass(frozen=True, slots=True)
class ErrorAnswer:
    """What a client is told, whatever the shape: status, words for programs, a message for people.

    `issue` is FHIR's IssueType, `param` the parameter, header or FHIRPath at fault.
    """

    status: int
    type: str
    code: str
    message: str
    param: str | None = None
    retry_after_s: float | None = None
    headers: tuple[Header, ...] = field(default=())
    issue: str = ""

    def body(self, surface: Surface = "openai") -> bytes:
        """The answer in the shape of `surface`."""
        if surface == "fhir":
            return orjson.dumps(self._operation_outcome())
        if surface == "problem":
            return orjson.dumps(self._problem())
        error = {
            "message": self.message,
            "type": self.type,
            "param": self.param,
            "code": self.code,
        }
        return orjson.dumps({"error": error})

    def event(self) -> bytes:
        """The same as a server-sent event, for streams that have begun."""
        return b"data: " + self.body() + b"\n\n"

    def response_headers(self, surface: Surface = "openai") -> list[Header]:
        """Content headers, the answer's own, and `retry-after` (whole seconds, at least 1)."""
        headers: list[Header] = [(b"content-type", _CONTENT_TYPES[surface]), *self.headers]
        retry_after_s = self.retry_after_s
        if retry_after_s is None and self.status in (429, 503):
            retry_after_s = 1.0
        if retry_after_s is not None:
            headers.append((b"retry-after", b"%d" % max(1, math.ceil(retry_after_s))))
        if self.status == 401:
            headers.append((b"www-authenticate", b'Bearer realm="medical-record"'))
        return headers

    def _operation_outcome(self) -> dict[str, object]:
        issue: dict[str, object] = {
            "severity": "fatal" if self.status >= 500 else "error",
            "code": self.issue or _ISSUES.get(self.status, "processing"),
            "details": {"coding": [{"system": ISSUE_CODES, "code": self.code}]},
            "diagnostics": self.message,
        }
        if self.param is not None:
            issue["expression"] = [self.param]
        return {"resourceType": "OperationOutcome", "issue": [issue]}

    def _problem(self) -> dict[str, object]:
        problem: dict[str, object] = {
            "type": f"urn:medical-record:problem:{self.code}",
            "title": self.code.replace("_", " ").capitalize(),
            "status": self.status,
            "detail": self.message,
            "code": self.code,
        }
        if self.param is not None:
            problem["param"] = self.param
        return problem


ISSUE_CODES = "urn:medical-record:error-code"
_ISSUES = {
    400: "invalid",
    401: "login",
    403: "forbidden",
    404: "not-found",
    405: "not-supported",
    406: "not-supported",
    408: "timeout",
    413: "too-long",
    415: "not-supported",
    429: "throttled",
    431: "too-long",
    500: "exception",
    503: "transient",
    504: "timeout",
}
# OpenAI's error types of the statuses that a data error can have.
_OPENAI_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
    504: "timeout_error",
}
_ROUTING = {
    404: ("not_found", "There is nothing at this path."),
    405: ("method_not_allowed", "This path does not take this method; see the `allow` header."),
}


def answer_for(error: BaseException | Failure, request_id: str) -> ErrorAnswer:
    """The one table: what a client is told about `error`."""
    if isinstance(error, StreamFailed):
        error = error.failure
    if isinstance(error, Failure | EngineError | HttpError):
        return ErrorAnswer(
            status=error.status,
            type=error.type,
            code=error.code,
            message=error.message,
            param=error.param,
            retry_after_s=error.retry_after_s,
            headers=error.headers if isinstance(error, HttpError) else (),
        )
    if isinstance(error, DataError):
        server = "server_error" if error.status >= 500 else "invalid_request_error"
        return ErrorAnswer(
            status=error.status,
            type=_OPENAI_TYPES.get(error.status, server),
            code=error.code,
            message=error.message,
            param=error.param,
            retry_after_s=error.retry_after_s,
            issue=error.issue,
        )
    if isinstance(error, HTTPException) and error.status_code in _ROUTING:
        code, message = _ROUTING[error.status_code]
        headers = tuple(
            (k.lower().encode("latin-1"), v.encode("latin-1"))
            for k, v in (error.headers or {}).items()
        )
        return ErrorAnswer(
            error.status_code, "invalid_request_error", code, message, headers=headers
        )
    if isinstance(error, TimeoutError):
        message = "The request's time limit passed before its answer was complete."
        return ErrorAnswer(504, "timeout_error", "deadline_exceeded", message)
    message = f"The server failed at this request. Its id: {request_id}"
    return ErrorAnswer(500, "server_error", "internal_error", message)


def report_unexpected(error: BaseException, request_id: str) -> None:
    """Log an error that has no place in the table, and so must be looked into.

    Its type and innermost frames are told, not its message, which could hold a user's text.
    """
    expected = HttpError | EngineError | DataError | StreamFailed | HTTPException | TimeoutError
    if isinstance(error, expected):
        return
    frames = traceback.extract_tb(error.__traceback__)[-6:]
    path = " < ".join(f"{f.filename.rsplit('/', 1)[-1]}:{f.lineno}" for f in reversed(frames))
    _log.error("request %s: %s at %s", request_id, type(error).__name__, path)
