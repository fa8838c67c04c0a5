"""The words of text generation that cross process boundaries: a request, and the events it yields.

Plain frozen records without behaviour, so that the API process can build and read them without
importing MLX.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Literal

from models.errors import EngineError

FinishReason = Literal["stop", "length"]


class Priority(IntEnum):
    """Who goes first when there is not enough for all; smaller is sooner."""

    EMERGENCY = 0
    INTERACTIVE = 1
    BATCH = 2


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen, in OpenAI's terms (top_k and min_p as vLLM names them).

    Temperature is applied first, then top_k, top_p and min_p; `top_k` 0 and `top_p` 1 are off.
    Without `seed` the engine draws one. Penalties are OpenAI's, over the tokens of the answer.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    logprobs: bool = False
    top_logprobs: int = 0


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One chat completion as an engine takes it.

    `messages` are OpenAI's, already validated: role and text. `response_format` is None for text,
    `{"type": "json_object"}`, or `{"type": "json_schema", "schema": {...}}`. `max_tokens` None means
    what the engine's configuration allows. `timeout_s` counts from the arrival at the engine.
    """

    id: str
    messages: Sequence[Mapping[str, Any]]
    sampling: Sampling = field(default_factory=Sampling)
    max_tokens: int | None = None
    stop: Sequence[str] = ()
    n: int = 1
    response_format: Mapping[str, Any] | None = None
    priority: Priority = Priority.INTERACTIVE
    user: str = ""
    timeout_s: float = 600.0


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """One token with its natural-log probability, as OpenAI's `logprobs.content` entries.

    `top` holds the most likely alternatives as (token text, token bytes, logprob), best first.
    """

    token: str
    raw: bytes
    logprob: float
    top: tuple[tuple[str, bytes, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of one request, all choices together; `cached_tokens` came from the prefix cache."""

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class Delta:
    """Text that choice `index` gained since the last event, made of `tokens` tokens."""

    index: int
    text: str
    tokens: int
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Finish:
    """Choice `index` is complete."""

    index: int
    reason: FinishReason


@dataclass(frozen=True, slots=True)
class Done:
    """Every choice is complete; the last event of a stream that went well."""

    usage: Usage


@dataclass(frozen=True, slots=True)
class Failure:
    """The last event of a stream that did not go well; the fields of an `EngineError`."""

    status: int
    type: str
    code: str
    message: str
    param: str | None = None
    retry_after_s: float | None = None


Event = Delta | Finish | Done | Failure


def failure(error: EngineError) -> Failure:
    """The event that ends a stream with `error`."""
    return Failure(
        error.status, error.type, error.code, error.message, error.param, error.retry_after_s
    )
