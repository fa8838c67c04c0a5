"""The answer as it comes: batches of events become server-sent events, one write for each batch."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import orjson
from starlette.types import Send

from models.generation import Delta, Done, Event, Failure, Finish, TokenLogprob
from serve_app.chat.answer import (
    Identity,
    ended_early,
    logprob_entries,
    logprobs_object,
    note_usage,
    usage_object,
)
from serve_app.chat.witness import Witness
from serve_app.errors import ErrorAnswer, Header, StreamFailed, answer_for
from serve_app.trace import Trace

HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]
DONE = b"data: [DONE]\n\n"


class ChunkEncoder:
    """Turns events into the bytes of `chat.completion.chunk` events.

    All that stays the same from chunk to chunk is encoded once: at 200 streams on one core this
    is the API's innermost loop.
    """

    def __init__(
        self, identity: Identity, trace: Trace, *, n: int, logprobs: bool, include_usage: bool
    ) -> None:
        head = orjson.dumps(
            {
                "id": identity.completion_id,
                "object": "chat.completion.chunk",
                "created": identity.created,
                "model": identity.model,
                "service_tier": "default",
                "system_fingerprint": identity.fingerprint,
            }
        )[:-1]
        self._head = b"data: " + head + b',"choices":['
        self._open = [self._head + b'{"index":%d,"delta":' % index for index in range(n)]
        self._usage = b',"usage":null' if include_usage else b""
        self._end = self._usage + b"}\n\n"
        self._plain = b',"logprobs":null,"finish_reason":null}]' + self._end
        self._include_usage = include_usage
        self._logprobs = logprobs
        self._trace = trace
        self.ended = False

    def roles(self) -> bytes:
        """The first chunk of every choice."""
        delta = b'{"role":"assistant","content":"","refusal":null}'
        return b"".join(opening + delta + self._plain for opening in self._open)

    def encode(self, batch: Sequence[Event]) -> bytes:
        """The chunks of one batch; neighbouring deltas of one choice share a chunk."""
        chunks: list[bytes] = []
        position = 0
        while position < len(batch):
            event = batch[position]
            position += 1
            if isinstance(event, Delta):
                run = [event]
                while position < len(batch) and _continues(batch[position], event.index):
                    run.append(batch[position])  # type: ignore[arg-type]
                    position += 1
                chunks.append(self._delta(run))
            elif isinstance(event, Finish):
                chunks.append(self._finish(event))
            elif isinstance(event, Done):
                chunks.append(self._done(event))
                break
            else:
                chunks.append(self.failure(answer_for(event, self._trace.request_id)))
                break
        return b"".join(chunks)

    def failure(self, answer: ErrorAnswer) -> bytes:
        """The last event of a stream that went wrong; no `[DONE]` follows it."""
        self._trace.code = answer.code
        self.ended = True
        return answer.event()

    def _delta(self, run: Sequence[Delta]) -> bytes:
        self._trace.token_arrived()
        opening = self._open[run[0].index]
        text = run[0].text if len(run) == 1 else "".join(delta.text for delta in run)
        content = b'{"content":' + orjson.dumps(text) + b"}"
        if not self._logprobs:
            return opening + content + self._plain
        tokens: list[TokenLogprob] = [token for delta in run for token in delta.logprobs]
        logprobs = orjson.dumps(logprobs_object(logprob_entries(tokens)))
        end = b',"finish_reason":null}]' + self._end
        return opening + content + b',"logprobs":' + logprobs + end

    def _finish(self, event: Finish) -> bytes:
        reason = b'{},"logprobs":null,"finish_reason":"%s"}]' % event.reason.encode()
        return self._open[event.index] + reason + self._end

    def _done(self, event: Done) -> bytes:
        note_usage(self._trace, event.usage)
        self.ended = True
        if not self._include_usage:
            return DONE
        usage = orjson.dumps(usage_object(event.usage))
        return self._head + b'],"usage":' + usage + b"}\n\n" + DONE


def _continues(event: Event, index: int) -> bool:
    return isinstance(event, Delta) and event.index == index


class EventStream:
    """One streamed response; it begins with the first event, so an early failure has a status."""

    def __init__(
        self, encoder: ChunkEncoder, send: Send, witness: Witness, stamps: Sequence[Header] = ()
    ) -> None:
        """`stamps` are headers that say what answers."""
        self._encoder = encoder
        self._send = send
        self._witness = witness
        self._headers = [*HEADERS, *stamps]
        self.started = False

    async def run(self, batches: AsyncIterator[Sequence[Event]]) -> None:
        """Send everything that `batches` holds; raises whatever they raise.

        The batch that would end the answer well leaves only once the outcome is on record.
        """
        async for batch in batches:
            if not batch:
                continue
            self._witness.hear(batch)
            if any(isinstance(event, Done) for event in batch):
                await self._witness.answered()
            if self.started:
                await self._write(self._encoder.encode(batch))
            else:
                await self._begin(batch)
            if self._encoder.ended:
                return
        raise ended_early()

    async def fail(self, answer: ErrorAnswer) -> None:
        """End a stream that has begun with an error event."""
        if not self._encoder.ended:
            await self._write(self._encoder.failure(answer))

    async def _begin(self, batch: Sequence[Event]) -> None:
        first = batch[0]
        if isinstance(first, Failure):
            raise StreamFailed(first)
        self.started = True
        await self._send({"type": "http.response.start", "status": 200, "headers": self._headers})
        await self._write(self._encoder.roles() + self._encoder.encode(batch))

    async def _write(self, body: bytes) -> None:
        await self._send(
            {
                "type": "http.response.body",
                "body": body,
                "more_body": not self._encoder.ended,
            }
        )
