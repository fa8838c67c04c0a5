"""From pydantic's account of a bad body to OpenAI's: what was wrong and where, never the value."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from serve_app.chat.schema import ChatBody
from serve_app.errors import InvalidParameter

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")

# Messages of these kinds are made of the schema's own words and numbers alone.
_SAFE = frozenset(
    (
        *("string_type", "int_type", "float_type", "bool_type", "dict_type", "list_type"),
        *("model_type", "model_attributes_type", "none_required", "literal_error"),
        *("greater_than_equal", "less_than_equal", "greater_than", "less_than"),
        *("string_too_short", "string_too_long", "too_short", "too_long"),
        *("string_pattern_mismatch", "int_from_float", "finite_number"),
        *("content_type", "stop_type", "role", "response_format", "unsupported_part"),
    )
)


def validate(values: Any) -> ChatBody:
    """The typed body, or an `InvalidParameter` that names the first thing wrong with it."""
    if not isinstance(values, dict):
        raise InvalidParameter("The body should be a JSON object.", code="invalid_type")
    try:
        body = ChatBody.model_validate(values)
    except ValidationError as invalid:
        errors = invalid.errors(include_url=False, include_context=False)
        # An unknown parameter is told first: the other errors may come from it.
        errors.sort(key=lambda error: error["type"] != "extra_forbidden")
        raise _refusal(errors[0], values) from None
    _check_together(body)
    return body


def _refusal(error: ErrorDetails, values: Any) -> InvalidParameter:
    kind = error["type"]
    param = param_path(error["loc"], values, missing=kind == "missing")
    where = f"'{param}'" if param else "A parameter"
    if kind == "extra_forbidden":
        message = f"{where} is not supported here, so it is refused rather than ignored."
        return InvalidParameter(message, param=param, code="unsupported_parameter")
    if kind == "missing":
        message = f"{where} is required."
        return InvalidParameter(message, param=param, code="missing_required_parameter")
    if kind == "unsupported_part":
        message = f"{where}: {error['msg']}"
        return InvalidParameter(message, param=param, code="unsupported_parameter")
    reason = error["msg"].rstrip(".") if kind in _SAFE else "The value cannot be read"
    code = "invalid_type" if kind.endswith("_type") else "invalid_value"
    return InvalidParameter(f"{where}: {reason}.", param=param, code=code)


def param_path(loc: Sequence[int | str], values: Any, *, missing: bool) -> str | None:
    """`("messages", 0, "user", "content")` as `messages[0].content`; None if it cannot be told.

    Pydantic's locations also hold names of union members, which no client knows: only the steps
    that lead through `values` count. Keys that are not plain names are a caller's text: the path
    ends before them.
    """
    path = ""
    node = values
    for position, step in enumerate(loc):
        last = position == len(loc) - 1
        if isinstance(step, int):
            if isinstance(node, list) and step < len(node):
                path, node = f"{path}[{step}]", node[step]
        elif isinstance(node, dict) and (step in node or (last and missing)):
            if not _NAME.fullmatch(step):
                break
            path, node = f"{path}.{step}" if path else step, node.get(step)
    return path or None


def _check_together(body: ChatBody) -> None:
    """What a single field cannot tell."""
    if (
        body.max_tokens is not None
        and body.max_completion_tokens is not None
        and body.max_tokens != body.max_completion_tokens
    ):
        raise InvalidParameter(
            "'max_tokens' and 'max_completion_tokens' differ; give one of them.",
            param="max_tokens",
        )
    if body.top_logprobs is not None and not body.logprobs:
        raise InvalidParameter("'top_logprobs' needs 'logprobs': true.", param="top_logprobs")
    if body.stream_options is not None and not body.stream:
        raise InvalidParameter("'stream_options' needs 'stream': true.", param="stream_options")
