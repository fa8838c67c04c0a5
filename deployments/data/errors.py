"""The whole error tree of the data virtual node; each class says who is at fault.

`status` is the HTTP status a surface answers with, `code` its own word for programs, `issue` FHIR's
(IssueType, http://hl7.org/fhir/R4/valueset-issue-type.html). No message holds a name, an identifier
or the content of a record: these texts reach clients and logs.
"""

from __future__ import annotations


class DataError(Exception):
    """Any refusal or failure of the data node. The server's fault unless a subclass differs."""

    status = 500
    code = "internal_error"
    issue = "exception"

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        """`param` names the parameter, header or FHIRPath at fault, never its value."""
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code or type(self).code
        self.retry_after_s = retry_after_s


class Invalid(DataError):
    """The caller's fault: something that cannot be read or honoured; `param` names it."""

    status = 400
    code = "invalid_value"
    issue = "invalid"


class Unsupported(Invalid):
    """The caller's fault: a parameter or interaction that is not offered here."""

    code = "unsupported_parameter"
    issue = "not-supported"


class Unprocessable(DataError):
    """The caller's fault: well-formed, but against the rules of the resource."""

    status = 422
    code = "unprocessable"
    issue = "invariant"


class Unauthenticated(DataError):
    """The caller's fault: no credentials, or ones that are not (or no longer) valid."""

    status = 401
    code = "invalid_credentials"
    issue = "login"


class Forbidden(DataError):
    """The caller's fault: known, but without the right to do this."""

    status = 403
    code = "forbidden"
    issue = "forbidden"


class NotFound(DataError):
    """The caller's fault: nothing of this name, or nothing that the caller may know of."""

    status = 404
    code = "not_found"
    issue = "not-found"


class Gone(DataError):
    """The caller's fault: it was deleted; its history remains."""

    status = 410
    code = "deleted"
    issue = "deleted"


class Conflict(DataError):
    """The caller's fault: what is there does not go together with this request."""

    status = 409
    code = "conflict"
    issue = "conflict"


class PreconditionFailed(DataError):
    """The caller's fault: `If-Match` names another version, or a condition matches several."""

    status = 412
    code = "precondition_failed"
    issue = "conflict"


class TooLarge(DataError):
    """The caller's fault: more bytes or entries than are taken here."""

    status = 413
    code = "request_too_large"
    issue = "too-long"


class TooMany(DataError):
    """The caller's fault, or a crowd's: too many attempts; again after `retry_after_s` seconds."""

    status = 429
    code = "rate_limit_exceeded"
    issue = "throttled"


class StoreUnavailable(DataError):
    """Nobody's fault: the database cannot be reached now; nothing was written."""

    status = 503
    code = "store_unavailable"
    issue = "transient"


class Interrupted(StoreUnavailable):
    """Nobody's fault: the database went away before the commit; it may be done again as a whole."""


class DeadlineExceeded(DataError):
    """Nobody's fault: the time limit passed; nothing was written."""

    status = 504
    code = "deadline_exceeded"
    issue = "timeout"


class CommitUnknown(DataError):
    """Nobody's fault: the connection broke while a write was being committed.

    It may be there or not; repeated with the same `Idempotency-Key` it happens exactly once.
    """

    status = 503
    code = "commit_unknown"
    issue = "transient"


class DiskFull(DataError):
    """The operator's concern: too little room is left for another upload."""

    status = 507
    code = "disk_full"
    issue = "no-store"
