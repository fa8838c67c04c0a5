"""`/openapi.json`: what FastAPI knows of the routes, with the schemas of bodies read by hand."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from serve_app.chat.schema import ChatBody
from serve_app.shapes import (
    ChatCompletion,
    ChatCompletionChunk,
    ErrorBody,
)

REF = "#/components/schemas/{model}"

_MEANINGS = {
    400: "The request cannot be honoured; `param` names what is wrong.",
    401: "No credentials, or ones that are not valid.",
    403: "Known, but without the right; `consent_refused`: the patient refuses AI.",
    404: "No such model or patient, or nothing at this path.",
    405: "The path does not take this method.",
    408: "The body did not arrive in time.",
    413: "The body is larger than `limits.max_body_mb`.",
    415: "The body is not `application/json` in UTF-8, unencoded.",
    429: "Too much work at once; repeat after `retry-after` seconds.",
    431: "Too many or too long headers.",
    500: "The server's own failure; the message holds the request's id.",
    503: "Not available now; repeat after `retry-after` seconds.",
    504: "The time limit of the request has passed.",
}
_EVERYWHERE = (405, 431, 500)
_REQUEST_ID = {"x-request-id": {"schema": {"type": "string"}, "description": "The request's id."}}
_RETRY_AFTER = {"retry-after": {"schema": {"type": "integer"}, "description": "Seconds to wait."}}

_STAMPS = {
    name: {"schema": {"type": "string"}, "description": meaning}
    for name, meaning in (
        ("x-model", "The model that answers."),
        ("x-weights-sha256", "SHA-256 of its weights."),
        ("x-prompt-version", "12 digits of the SHA-256 of its prompt template."),
        ("x-interaction-id", "The answer's `id`, for `POST /v1/ai/decisions`."),
    )
}

_REQUEST_ID_IN = {
    "name": "x-request-id",
    "in": "header",
    "required": False,
    "description": "An id of the caller's own; without a well-formed one the server makes one.",
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$"},
}
_PRIORITY = {
    "name": "x-priority",
    "in": "header",
    "required": False,
    "description": "Who goes first when there is not enough for all.",
    "schema": {
        "type": "string",
        "enum": ["emergency", "interactive", "batch"],
        "default": "interactive",
    },
}


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """FastAPI's `responses` for the errors of a route, those of every route included."""
    return {
        status: {
            "model": ErrorBody,
            "description": _MEANINGS[status],
            "headers": _REQUEST_ID | (_RETRY_AFTER if status in (429, 503) else {}),
        }
        for status in sorted({*statuses, *_EVERYWHERE})
    }


def chat_responses() -> dict[int | str, dict[str, Any]]:
    """The responses of a chat: a whole answer or a stream, and every error."""
    stream = {
        "schema": {
            "type": "string",
            "description": (
                "Server-sent events. Each `data:` line is a ChatCompletionChunk; the last is "
                "`[DONE]`. A stream that fails ends with an ErrorBody instead, without `[DONE]`."
            ),
            "contentMediaType": "text/event-stream",
        },
        # OpenAPI 3.2's word for the schema of one event; older readers skip it.
        "x-itemSchema": {
            "oneOf": [
                {"$ref": REF.format(model="ChatCompletionChunk")},
                {"$ref": REF.format(model="ErrorBody")},
            ]
        },
    }
    errors = error_responses(400, 401, 403, 404, 408, 413, 415, 429, 503, 504)
    answer = {
        "description": "The answer; a stream of chunks with `stream: true`.",
        "headers": _REQUEST_ID | _STAMPS,
        "content": {
            "application/json": {"schema": {"$ref": REF.format(model="ChatCompletion")}},
            "text/event-stream": stream,
        },
    }
    return {200: answer, **errors}


def chat_extra() -> dict[str, Any]:
    """The request of a chat: its body and its headers."""
    schema = {"$ref": REF.format(model="ChatBody")}
    return {
        "parameters": [_REQUEST_ID_IN, _PRIORITY],
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
    }


def model_extra() -> dict[str, Any]:
    """The request for one model."""
    name = {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}
    return {"parameters": [name]}


def install(app: FastAPI) -> None:
    """Make `app` describe itself, once, on the first request."""

    def describe() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
            )
            _, definitions = models_json_schema(
                [
                    (ChatBody, "validation"),
                    (ChatCompletion, "serialization"),
                    (ChatCompletionChunk, "serialization"),
                    (ErrorBody, "serialization"),
                ],
                by_alias=True,
                ref_template=REF,
            )
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            for name, schema in definitions["$defs"].items():
                schemas.setdefault(name, schema)
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = describe  # type: ignore[method-assign]
