"""The body of a chat completion request: what is honoured, with its exact types and ranges.

Anything else is refused by name. `null` means not given, as in OpenAI's API.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    model_validator,
)
from pydantic_core import PydanticCustomError

MAX_MESSAGES = 2048
MAX_PARTS = 256
MAX_LOGIT_BIAS = 1024

_FOREIGN_PARTS = ("image_url", "input_audio", "file", "refusal")


class Body(BaseModel):
    """A block of a request: exact types, no unknown keys."""

    model_config = ConfigDict(strict=True, extra="forbid", protected_namespaces=())


class TextPart(Body):
    """One part of a message's content."""

    type: Literal["text"]
    text: str

    @model_validator(mode="before")
    @classmethod
    def _refuse_other_kinds(cls, value: Any) -> Any:
        kind = value.get("type") if isinstance(value, dict) else None
        if kind in _FOREIGN_PARTS:
            raise PydanticCustomError(
                "unsupported_part", "Parts of type {kind} are not supported.", {"kind": kind}
            )
        return value


def _content_kind(value: Any) -> str | None:
    if isinstance(value, str):
        return "string"
    return "parts" if isinstance(value, list) else None


Content = Annotated[
    Annotated[str, Tag("string")]
    | Annotated[list[TextPart], Field(min_length=1, max_length=MAX_PARTS), Tag("parts")],
    Discriminator(
        _content_kind,
        custom_error_type="content_type",
        custom_error_message="Content should be a string or a list of text parts.",
    ),
]


class SystemMessage(Body):
    """Instructions that hold for the whole conversation; `developer` is the newer word for it."""

    role: Literal["system", "developer"]
    content: Content


class UserMessage(Body):
    """What the person says."""

    role: Literal["user"]
    content: Content


class AssistantMessage(Body):
    """An earlier answer. The fields that are null or empty are those OpenAI's client sends back."""

    role: Literal["assistant"]
    content: Content
    refusal: None = None
    audio: None = None
    function_call: None = None
    tool_calls: None = None
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None


def _role(value: Any) -> str | None:
    role = value.get("role") if isinstance(value, dict) else None
    known = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
    return known.get(role) if isinstance(role, str) else None


Message = Annotated[
    Annotated[SystemMessage, Tag("system")]
    | Annotated[UserMessage, Tag("user")]
    | Annotated[AssistantMessage, Tag("assistant")],
    Discriminator(
        _role,
        custom_error_type="role",
        custom_error_message=(
            "A message is an object whose role is system, developer, user or assistant."
        ),
    ),
]


class StreamOptions(Body):
    """Options of a stream."""

    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None


class TextFormat(Body):
    """Free text."""

    type: Literal["text"]


class JsonObjectFormat(Body):
    """Any JSON object."""

    type: Literal["json_object"]


class JsonSchema(Body):
    """A named JSON Schema. Decoding is always constrained by it, whatever `strict` says."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class JsonSchemaFormat(Body):
    """JSON that a schema describes."""

    type: Literal["json_schema"]
    json_schema: JsonSchema


def _format(value: Any) -> str | None:
    kind = value.get("type") if isinstance(value, dict) else None
    return kind if kind in ("text", "json_object", "json_schema") else None


ResponseFormat = Annotated[
    Annotated[TextFormat, Tag("text")]
    | Annotated[JsonObjectFormat, Tag("json_object")]
    | Annotated[JsonSchemaFormat, Tag("json_schema")],
    Discriminator(
        _format,
        custom_error_type="response_format",
        custom_error_message="Its type should be text, json_object or json_schema.",
    ),
]

Penalty = Annotated[float, Field(ge=-2, le=2)]
Share = Annotated[float, Field(ge=0, le=1)]
StopText = Annotated[str, Field(min_length=1, max_length=256)]
TokenId = Annotated[str, Field(pattern=r"^[0-9]{1,9}$")]
UserId = Annotated[str, StringConstraints(max_length=256)]


class ChatBody(Body):
    """The body of `POST /v1/chat/completions`."""

    model: Annotated[str, Field(min_length=1, max_length=256)]
    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)]
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Share | None = None
    top_k: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    min_p: Share | None = None
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] | None = None
    stop: (
        Annotated[
            Annotated[StopText, Tag("string")]
            | Annotated[list[StopText], Field(max_length=4), Tag("parts")],
            Discriminator(
                _content_kind,
                custom_error_type="stop_type",
                custom_error_message="Stop should be a string or a list of at most 4 strings.",
            ),
        ]
        | None
    ) = None
    max_tokens: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: (
        Annotated[
            dict[TokenId, Annotated[float, Field(ge=-100, le=100)]],
            Field(max_length=MAX_LOGIT_BIAS),
        ]
        | None
    ) = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    n: Annotated[int, Field(ge=1, le=8)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    response_format: ResponseFormat | None = None
    user: UserId | None = None
    metadata: (
        Annotated[
            dict[
                Annotated[str, Field(max_length=64)],
                Annotated[str, Field(max_length=512)],
            ],
            Field(max_length=16),
        ]
        | None
    ) = None
    store: Literal[False] | None = None
    service_tier: Literal["auto", "default"] | None = None
