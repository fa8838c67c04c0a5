"""OAuth 2.0's own contract at the token endpoint: forms in, its answers and errors out (RFC 6749).

Clients of OAuth read `error` and `error_description`, so these two paths answer so and not as
problem+json.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import parse_qsl

import orjson
from fastapi import Request, Response
from starlette.types import Receive, Scope

from deployments.data import scopes
from deployments.data.accounts.sessions import Grant
from deployments.data.errors import DataError, Invalid, Unsupported
from serve_app.body import read_bytes, read_json
from serve_app.errors import InvalidBody
from serve_app.trace import trace_of

FORM = "application/x-www-form-urlencoded"
MAX_BODY = 16 * 1024
_MAX_FIELDS = 16
NO_STORE = {"cache-control": "no-store", "pragma": "no-cache"}
# Section 5.2 knows no word for a crowd or an absent database; section 4.1.2.1 has one.
# The emergency's own words (section 8.5) say by which rule somebody is not let in.
_ERRORS = {
    "bad_scope": "invalid_scope",
    **{
        word: word
        for word in (
            *("invalid_grant", "unsupported_grant_type"),
            *("device_required", "wrong_device", "not_enrolled", "emergency_full"),
        )
    },
}


async def read_form(scope: Scope, receive: Receive) -> dict[str, str]:
    """The fields of a form, each at most once. Raises `Invalid` and `HttpError`."""
    return parsed(await read_bytes(scope, receive, MAX_BODY, (FORM,)))


def parsed(body: bytes) -> dict[str, str]:
    """The fields of a form's body. Raises `Invalid`, quoting nothing."""
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=bool(body),
            errors="strict",
            max_num_fields=_MAX_FIELDS,
        )
    except ValueError:  # UnicodeDecodeError too
        raise _unreadable("The body is not a form of few fields in UTF-8.") from None
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise _unreadable("A field of the form is given twice.")
    if any("\0" in value for value in fields.values()):
        raise _unreadable("A field of the form holds a NUL.")
    return fields


async def read_form_or_json(scope: Scope, receive: Receive) -> dict[str, str]:
    """The same from a form or a JSON object of strings, whichever the content type says."""
    if dict(scope["headers"]).get(b"content-type", b"").lower().startswith(b"application/json"):
        try:
            values = await read_json(scope, receive, MAX_BODY)
        except InvalidBody as error:
            raise _unreadable(error.message) from None
        if not isinstance(values, dict) or not all(isinstance(v, str) for v in values.values()):
            raise _unreadable("The body is not an object of strings.")
        if any("\0" in value for value in values.values()):
            raise _unreadable("A field of the body holds a NUL.")
        return values
    return await read_form(scope, receive)


def asked_scopes(fields: Mapping[str, str]) -> frozenset[str] | None:
    """The scopes that a request narrows itself to; None where it does not say."""
    text = fields.get("scope", "").strip()
    return scopes.parse(text) if text else None


def needed(fields: Mapping[str, str], name: str) -> str:
    """A field that must be there. Raises `Invalid`."""
    value = fields.get(name)
    if not value:
        raise _unreadable(f"The field {name} is missing.")
    return value


def unsupported_grant() -> Unsupported:
    """A `grant_type` that is not offered here."""
    message = "grant_type must be password or refresh_token."
    return Unsupported(message, code="unsupported_grant_type")


async def answered(request: Request, work: Callable[[], Awaitable[Grant]]) -> Response:
    """The grant that `work` makes, or its refusal as OAuth shapes it."""
    try:
        return granted(await work())
    except DataError as error:
        trace_of(request.scope).code = error.code
        return refusal(error)


def granted(grant: Grant) -> Response:
    """A successful answer (section 5.1)."""
    values: dict[str, object] = {
        "access_token": grant.access_token,
        "token_type": "Bearer",
        "expires_in": grant.expires_in,
        "scope": grant.scope,
    }
    if grant.refresh_token is not None:
        values["refresh_token"] = grant.refresh_token
    return Response(orjson.dumps(values), media_type="application/json", headers=NO_STORE)


def refusal(error: DataError) -> Response:
    """An error answer (section 5.2); `retry-after` with 429 and 503."""
    other = "temporarily_unavailable" if error.status >= 429 else "invalid_request"
    word = _ERRORS.get(error.code, other)
    headers = dict(NO_STORE)
    if error.status in (429, 503):
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after_s or 1.0)))
    body = orjson.dumps({"error": word, "error_description": error.message})
    return Response(body, error.status, media_type="application/json", headers=headers)


def _unreadable(message: str) -> Invalid:
    return Invalid(message, code="invalid_request")
