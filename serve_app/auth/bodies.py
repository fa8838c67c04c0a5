"""JSON bodies of sign-in, held to their shapes; and answers in JSON that no cache keeps."""

from __future__ import annotations

from typing import TypeVar

import orjson
from fastapi import Request, Response
from pydantic import BaseModel, ValidationError

from deployments.data.errors import Invalid
from serve_app.body import read_json

# A passkey's answer is a few kB, its attestation included.
MAX_BODY = 64 * 1024

B = TypeVar("B", bound=BaseModel)


async def read(request: Request, shape: type[B]) -> B:
    """The body as `shape`. Raises `Invalid` naming the field at fault, never its value."""
    values = await read_json(request.scope, request.receive, MAX_BODY)
    try:
        return shape.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_input=False, include_context=False, include_url=False)[0]
        known = set(shape.model_fields)
        path = [str(part) for part in first["loc"] if str(part) in known]
        message = "The body does not have the shape that is described in /openapi.json."
        raise Invalid(message, param=path[0] if path else None, code="invalid_body") from None


def answer(values: BaseModel, status: int = 200) -> Response:
    """The values as JSON."""
    body = orjson.dumps(values.model_dump(mode="json"))
    headers = {"cache-control": "no-store"}
    return Response(body, status, media_type="application/json", headers=headers)


def no_content() -> Response:
    """Done, and nothing to say."""
    return Response(status_code=204, headers={"cache-control": "no-store"})
