from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import orjson
import pytest

from models.generation import Delta, Done, Event, Failure, Finish, TokenLogprob, Usage
from serve_app.chat.answer import Identity
from serve_app.chat.stream import ChunkEncoder
from serve_app.shapes import ChatCompletionChunk
from serve_app.trace import Trace

IDENTITY = Identity("chatcmpl-1", 1_700_000_000, 'gem"ma', "fp_1")


def encoder(*, n: int = 1, logprobs: bool = False, include_usage: bool = False) -> ChunkEncoder:
    return ChunkEncoder(IDENTITY, Trace("r"), n=n, logprobs=logprobs, include_usage=include_usage)


def events_of(body: bytes) -> list[Any]:
    assert body.endswith(b"\n\n")
    lines = body.decode().split("\n\n")[:-1]
    assert all(line.startswith("data: ") and "\n" not in line for line in lines)
    return [line if line == "data: [DONE]" else orjson.loads(line[6:]) for line in lines]


def chunks_of(body: bytes) -> list[ChatCompletionChunk]:
    return [ChatCompletionChunk.model_validate(event) for event in events_of(body)]


def test_roles_come_first_for_every_choice() -> None:
    chunks = chunks_of(encoder(n=3).roles())
    assert [chunk.choices[0].index for chunk in chunks] == [0, 1, 2]
    assert all(chunk.choices[0].delta.role == "assistant" for chunk in chunks)
    assert {(chunk.id, chunk.model, chunk.system_fingerprint) for chunk in chunks} == {
        ("chatcmpl-1", 'gem"ma', "fp_1")
    }


@pytest.mark.parametrize("text", ["a", 'q"\\\n\r\u2028', "é", "🩺", "\x00", "data: [DONE]\n\n"])
def test_any_text_survives_in_one_line(text: str) -> None:
    chunks = chunks_of(encoder().encode([Delta(0, text, 1)]))
    assert [chunk.choices[0].delta.content for chunk in chunks] == [text]


def test_neighbouring_deltas_of_a_choice_share_a_chunk_and_others_do_not() -> None:
    batch = [Delta(0, "a", 1), Delta(0, "b", 1), Delta(1, "c", 1), Delta(0, "d", 1)]
    chunks = chunks_of(encoder(n=2).encode(batch))
    told = [(chunk.choices[0].index, chunk.choices[0].delta.content) for chunk in chunks]
    assert told == [(0, "ab"), (1, "c"), (0, "d")]


def test_the_end_is_the_finish_reason_then_usage_when_asked_then_done() -> None:
    batch: Sequence[Event] = [Finish(0, "length"), Done(Usage(5, 2, 3))]
    encoding = encoder(include_usage=True)
    *chunks, done = events_of(encoding.encode(batch))
    finish, usage = (ChatCompletionChunk.model_validate(chunk) for chunk in chunks)
    assert done == "data: [DONE]"
    assert finish.choices[0].finish_reason == "length"
    assert chunks[0]["usage"] is None
    assert usage.choices == []
    assert usage.usage is not None
    assert usage.usage.total_tokens == 8
    assert usage.usage.prompt_tokens_details.cached_tokens == 2
    assert encoding.ended


def test_usage_is_null_in_earlier_chunks_only_when_asked() -> None:
    asked = events_of(encoder(include_usage=True).encode([Delta(0, "a", 1)]))
    not_asked = events_of(encoder().encode([Delta(0, "a", 1)]))
    assert asked[0]["usage"] is None
    assert "usage" not in not_asked[0]
    assert events_of(encoder().encode([Done(Usage(1, 0, 1))])) == ["data: [DONE]"]


def test_a_failure_is_an_error_event_without_done() -> None:
    encoding = encoder()
    failure = Failure(503, "server_error", "engine_unavailable", "gone")
    events = events_of(encoding.encode([Delta(0, "a", 1), failure]))
    assert events[-1]["error"]["code"] == "engine_unavailable"
    assert encoding.ended


def test_log_probabilities_are_openais_entries() -> None:
    token = TokenLogprob("é", "é".encode(), -0.5, (("é", "é".encode(), -0.5), ("x", b"x", -1.0)))
    unlikely = TokenLogprob("z", b"z", -math.inf)
    batch = [Delta(0, "é", 1, (token,)), Delta(0, "z", 1, (unlikely,))]
    (chunk,) = chunks_of(encoder(logprobs=True).encode(batch))
    logprobs = chunk.choices[0].logprobs
    assert logprobs is not None
    first, second = logprobs.content
    assert (first.token, first.bytes, first.logprob) == ("é", [195, 169], -0.5)
    assert [other.token for other in first.top_logprobs] == ["é", "x"]
    assert second.logprob == -9999.0
