"""From a validated body to the engine's request."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from typing import Any, TypeVar

from deployments.data.principal import Principal
from models.generation import ChatRequest, Priority, Sampling
from serve_app.chat.schema import (
    ChatBody,
    Content,
    JsonSchemaFormat,
    Message,
    ResponseFormat,
    TextFormat,
)
from serve_app.errors import Header, InvalidParameter

Number = TypeVar("Number", int, float)

_PATIENT = re.compile(r"Patient/([A-Za-z0-9.-]{1,64})")

PRIORITIES = {
    b"emergency": Priority.EMERGENCY,
    b"interactive": Priority.INTERACTIVE,
    b"batch": Priority.BATCH,
}


def priority_from(headers: list[Header]) -> Priority:
    """The header `x-priority`, interactive when it is absent."""
    for name, value in headers:
        if name == b"x-priority":
            priority = PRIORITIES.get(value.strip().lower())
            if priority is None:
                message = "The header x-priority should be emergency, interactive or batch."
                raise InvalidParameter(message, param="x-priority")
            return priority
    return Priority.INTERACTIVE


def patient_from(metadata: Mapping[str, str] | None) -> str | None:
    """The id in `metadata.patient`, which is a reference, `Patient/<id>`; None without one."""
    given = (metadata or {}).get("patient")
    if given is None:
        return None
    found = _PATIENT.fullmatch(given)
    if found is None:
        message = "metadata.patient should be a reference of the form Patient/<id>."
        raise InvalidParameter(message, param="metadata.patient")
    return found[1]


def fairness_key(caller: Principal, user: str | None) -> str:
    """Among whom the engine is fair: a person is one user, whatever names the request gives.

    A machine's key stands for many people, so the users that it names count each for themselves.
    """
    if caller.kind == "account" or not user:
        return caller.id
    return f"{caller.id}/{user}"


def engine_request(
    body: ChatBody, *, request_id: str, priority: Priority, timeout_s: float, user: str
) -> ChatRequest:
    """The engine's view of `body`; `user` is the fairness key.

    A caller may send one `x-request-id` twice, so the engine's id is that id with a unique ending.
    """
    max_tokens = body.max_completion_tokens
    return ChatRequest(
        id=f"{request_id}.{uuid.uuid4().hex[:12]}",
        messages=[_message(message) for message in body.messages],
        sampling=_sampling(body),
        max_tokens=max_tokens if max_tokens is not None else body.max_tokens,
        stop=_stop(body.stop),
        n=body.n or 1,
        response_format=_response_format(body.response_format),
        priority=priority,
        user=user,
        timeout_s=timeout_s,
    )


def _message(message: Message) -> dict[str, str]:
    role = "system" if message.role == "developer" else message.role
    return {"role": role, "content": _text(message.content)}


def _text(content: Content) -> str:
    if isinstance(content, str):
        return content
    return "".join(part.text for part in content)


def _sampling(body: ChatBody) -> Sampling:
    default = Sampling()
    bias = body.logit_bias or {}
    return Sampling(
        temperature=_given(body.temperature, default.temperature),
        top_p=_given(body.top_p, default.top_p),
        top_k=_given(body.top_k, default.top_k),
        min_p=_given(body.min_p, default.min_p),
        seed=body.seed,
        presence_penalty=_given(body.presence_penalty, default.presence_penalty),
        frequency_penalty=_given(body.frequency_penalty, default.frequency_penalty),
        logit_bias={int(token): value for token, value in bias.items()},
        logprobs=bool(body.logprobs),
        top_logprobs=body.top_logprobs or 0,
    )


def _given(value: Number | None, default: Number) -> Number:
    return default if value is None else value


def _stop(stop: str | list[str] | None) -> tuple[str, ...]:
    if stop is None:
        return ()
    return (stop,) if isinstance(stop, str) else tuple(stop)


def _response_format(wanted: ResponseFormat | None) -> dict[str, Any] | None:
    if wanted is None or isinstance(wanted, TextFormat):
        return None
    if isinstance(wanted, JsonSchemaFormat):
        return {"type": "json_schema", "schema": wanted.json_schema.schema_}
    return {"type": "json_object"}
