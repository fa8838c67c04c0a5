"""How sign-in describes itself in `/openapi.json`: bodies read by hand, errors in two shapes."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from serve_app.auth.shapes import OAuthError, Problem

_MEANINGS = {
    400: "The request cannot be honoured; `code` says why.",
    401: "No credentials, or ones that are not valid.",
    403: "Known, but without the right: `step_up_required` asks for a fresh sign-in.",
    404: "There is no such thing.",
    405: "The path does not take this method.",
    408: "The body did not arrive in time.",
    409: "It is there already, or there are too many.",
    413: "The body is too large.",
    415: "The body is of another media type.",
    429: "Too many attempts; again after `retry-after` seconds.",
    431: "Too many or too long headers.",
    500: "The server's own failure; the message holds the request's id.",
    503: "The database cannot be reached now; again after `retry-after` seconds.",
    504: "The time limit of the request has passed.",
}
_EVERYWHERE = (401, 405, 431, 500)
_BODY = (400, 408, 413, 415)
_STORE = (503, 504)
_RETRY_AFTER = {"retry-after": {"schema": {"type": "integer"}, "description": "Seconds to wait."}}

Responses = dict[int | str, dict[str, Any]]


def _content(media_type: str, *shapes: type[BaseModel]) -> dict[str, Any]:
    schemas = [_inlined(shape) for shape in shapes]
    return {media_type: {"schema": schemas[0] if len(schemas) == 1 else {"anyOf": schemas}}}


def _inlined(shape: type[BaseModel]) -> Any:
    """A shape's schema with its parts in their places: `$defs` would be sought at the root."""
    schema = shape.model_json_schema()
    parts = schema.pop("$defs", {})

    def filled(value: Any) -> Any:
        if isinstance(value, dict):
            if "$ref" in value:
                return filled(parts[value["$ref"].rpartition("/")[2]])
            return {name: filled(entry) for name, entry in value.items()}
        return [filled(entry) for entry in value] if isinstance(value, list) else value

    return filled(schema)


def _response(status: int, content: dict[str, Any]) -> dict[str, Any]:
    headers = _RETRY_AFTER if status in (429, 503) else {}
    return {"description": _MEANINGS[status], "content": content, "headers": headers}


def problems(*statuses: int, body: bool = False, store: bool = True) -> Responses:
    """Errors as problem+json: those named, and those that come with a body and the database."""
    every = {*_EVERYWHERE, *statuses, *(_BODY if body else ()), *(_STORE if store else ())}
    content = _content("application/problem+json", Problem)
    return {status: _response(status, content) for status in sorted(every)}


def oauth_errors() -> Responses:
    """Errors of the token endpoint: OAuth's, except for what is refused before it is reached."""
    found = problems(429, body=True)
    found.pop(401)
    content = _content("application/json", OAuthError)
    for status in (400, 429, 503, 504):
        found[status] = _response(status, content)
    return found


def form(shape: type[BaseModel], *, json_too: bool = False) -> dict[str, Any]:
    """FastAPI's `openapi_extra` for a form."""
    content = _content("application/x-www-form-urlencoded", shape)
    if json_too:
        content |= _content("application/json", shape)
    return {"requestBody": {"required": True, "content": content}, "security": []}


def json_body(shape: type[BaseModel], *, signed_in: bool = True) -> dict[str, Any]:
    """FastAPI's `openapi_extra` for a JSON body."""
    body = {"required": True, "content": _content("application/json", shape)}
    return {"requestBody": body} if signed_in else {"requestBody": body, "security": []}
