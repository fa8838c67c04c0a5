"""The whole answer of a chat: events gathered into OpenAI's `chat.completion` object."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from models.errors import EngineStopped
from models.generation import Delta, Done, Event, Failure, Finish, TokenLogprob, Usage
from serve_app.chat.witness import Witness
from serve_app.errors import StreamFailed
from serve_app.trace import Trace

# OpenAI writes -9999.0 where a token was all but impossible; JSON has no infinity.
LEAST_LOGPROB = -9999.0


@dataclass(frozen=True, slots=True)
class Identity:
    """What every part of one answer repeats. `created` is Unix time in seconds."""

    completion_id: str
    created: int
    model: str
    fingerprint: str


@dataclass(slots=True)
class Choice:
    """One alternative of the answer while it grows."""

    text: list[str] = field(default_factory=list)
    logprobs: list[dict[str, Any]] = field(default_factory=list)
    finish_reason: str | None = None


async def complete(
    batches: AsyncIterator[Sequence[Event]],
    identity: Identity,
    trace: Trace,
    witness: Witness,
    *,
    n: int,
    logprobs: bool,
) -> bytes:
    """The JSON of the completion, whose outcome is on record when this returns.

    Raises `StreamFailed` when the engine did not get there.
    """
    choices = [Choice() for _ in range(n)]
    async for batch in batches:
        witness.hear(batch)
        for event in batch:
            if isinstance(event, Delta):
                trace.token_arrived()
                choice = choices[event.index]
                choice.text.append(event.text)
                choice.logprobs.extend(logprob_entries(event.logprobs))
            elif isinstance(event, Finish):
                choices[event.index].finish_reason = event.reason
            elif isinstance(event, Failure):
                raise StreamFailed(event)
            else:
                note_usage(trace, event.usage)
                await witness.answered()
                return _completion(identity, choices, event, logprobs)
    raise ended_early()


def ended_early() -> EngineStopped:
    """The error of a stream of events that broke off without a word."""
    return EngineStopped("The engine's answer broke off; the request can be repeated.")


def note_usage(trace: Trace, usage: Usage) -> None:
    """Keep the counts for the access line."""
    trace.prompt_tokens = usage.prompt_tokens
    trace.cached_tokens = usage.cached_tokens
    trace.completion_tokens = usage.completion_tokens


def _completion(identity: Identity, choices: Sequence[Choice], done: Done, logprobs: bool) -> bytes:
    return orjson.dumps(
        {
            "id": identity.completion_id,
            "object": "chat.completion",
            "created": identity.created,
            "model": identity.model,
            "choices": [
                {
                    "index": index,
                    "message": {
                        "role": "assistant",
                        "content": "".join(choice.text),
                        "refusal": None,
                        "annotations": [],
                    },
                    "logprobs": logprobs_object(choice.logprobs) if logprobs else None,
                    "finish_reason": choice.finish_reason or "stop",
                }
                for index, choice in enumerate(choices)
            ],
            "usage": usage_object(done.usage),
            "service_tier": "default",
            "system_fingerprint": identity.fingerprint,
        }
    )


def usage_object(usage: Usage) -> dict[str, Any]:
    """OpenAI's `usage`, details included."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def logprobs_object(entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """OpenAI's `logprobs` of a choice."""
    return {"content": entries, "refusal": None}


def logprob_entries(tokens: Iterable[TokenLogprob]) -> list[dict[str, Any]]:
    """OpenAI's `logprobs.content` entries."""
    return [
        {
            "token": token.token,
            "bytes": list(token.raw),
            "logprob": _finite(token.logprob),
            "top_logprobs": [
                {"token": text, "bytes": list(raw), "logprob": _finite(logprob)}
                for text, raw, logprob in token.top
            ],
        }
        for token in tokens
    ]


def _finite(logprob: float) -> float:
    return logprob if math.isfinite(logprob) else LEAST_LOGPROB
