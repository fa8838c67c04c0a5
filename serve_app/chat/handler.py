"""The life of one chat in this process: read, check, admit, ask the engine, answer, clean up."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from starlette.types import Receive, Scope, Send

from configs.args import EmergencyArgs, Limits
from deployments.ai.client import LanguageService, ModelCard
from deployments.data.principal import Caller
from models.errors import MemoryPressure, ModelNotFound, Overloaded
from models.generation import ChatRequest, Event, Priority
from serve_app.auth.guard import caller_of
from serve_app.body import read_json
from serve_app.chat.answer import Identity, complete
from serve_app.chat.basic import bounded
from serve_app.chat.duties import ChatDuties
from serve_app.chat.question import question, stamps_of
from serve_app.chat.record import log_chat
from serve_app.chat.refusals import validate
from serve_app.chat.request import engine_request, fairness_key, patient_from, priority_from
from serve_app.chat.schema import ChatBody
from serve_app.chat.session import session_key
from serve_app.chat.stream import ChunkEncoder, EventStream
from serve_app.chat.witness import CLIENT_GONE, Witness
from serve_app.disconnect import CLEANUP_S, while_connected
from serve_app.errors import Header, NotReady, answer_for, report_unexpected
from serve_app.metrics import Meters
from serve_app.trace import Trace, trace_of

# Beyond this many chats at once a replica refuses: what it would queue, it could not serve in time.
MAX_CHATS = 512
FINGERPRINT_DIGITS = 12
WRITE_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Admitted:
    """A chat that may begin: the parts from which both kinds of answer are made."""

    body: ChatBody
    request: ChatRequest
    identity: Identity
    session: str
    witness: Witness
    stamps: tuple[Header, ...]


class ChatHandler:
    """`POST /v1/chat/completions` as an ASGI application."""

    def __init__(
        self,
        service: LanguageService,
        limits: Limits,
        meters: Meters,
        duties: ChatDuties,
        *,
        basic: EmergencyArgs | None = None,
    ) -> None:
        """`basic` are the limits of an emergency cell."""
        self._service = service
        self._limits = limits
        self._meters = meters
        self._duties = duties
        self._basic = basic

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        deadline = asyncio.get_running_loop().time() + self._limits.request_timeout_s
        caller = caller_of(scope)
        priority = priority_from(scope["headers"])
        self._duties.permit(caller, priority)
        values = await read_json(scope, receive, self._limits.max_body_bytes)
        chat = self._admit(values, caller, priority, trace_of(scope), deadline)
        await while_connected(self._answer(chat, trace_of(scope), deadline, send), receive)

    def _admit(
        self, values: Any, caller: Caller, priority: Priority, trace: Trace, deadline: float
    ) -> Admitted:
        body = validate(values)
        if self._basic is not None:
            body = bounded(body, self._basic)
        patient = patient_from(body.metadata)
        card = self._card(body.model)
        trace.model, trace.streamed = card.id, bool(body.stream)
        self._refuse_if_full()
        request = engine_request(
            body,
            request_id=trace.request_id,
            priority=priority,
            timeout_s=max(0.001, deadline - asyncio.get_running_loop().time()),
            user=fairness_key(caller.principal, body.user),
        )
        identity = Identity(
            completion_id=f"chatcmpl-{uuid.uuid4().hex}",
            created=int(time.time()),
            model=card.id,
            fingerprint=f"fp_{card.weights_sha256[:FINGERPRINT_DIGITS]}",
        )
        log_chat(
            request_id=trace.request_id,
            completion_id=identity.completion_id,
            engine_id=request.id,
            model=card.id,
            priority=priority.name.lower(),
        )
        asked = question(identity.completion_id, card, request, patient, streamed=trace.streamed)
        return Admitted(
            body=body,
            request=request,
            identity=identity,
            session=session_key(card.id, request.user, request.messages),
            witness=Witness(self._duties, caller, asked),
            stamps=stamps_of(asked),
        )

    def _card(self, model: str) -> ModelCard:
        state = self._service.state()
        for card in state.models:
            if card.id == model:
                return card
        if model in state.loading or not state.models:
            raise NotReady("The model is still being loaded; try again.", retry_after_s=5.0)
        message = "No model of this name is served here; GET /v1/models lists those that are."
        raise ModelNotFound(message, param="model")

    def _refuse_if_full(self) -> None:
        for pool in ("ai", "api"):
            if pool in self._service.state().closed:
                message = f"The virtual node '{pool}' is short of memory and admits nothing now."
                raise MemoryPressure(message, retry_after_s=2.0)
        if self._meters.chats_in_progress >= MAX_CHATS:
            raise Overloaded("Too many chats are in progress; try again.", retry_after_s=1.0)

    async def _answer(self, chat: Admitted, trace: Trace, deadline: float, send: Send) -> None:
        self._meters.chat_began()
        try:
            async with asyncio.timeout_at(deadline):
                await chat.witness.begin()
            # From here on there is a question on record, which must have an outcome.
            code = CLIENT_GONE
            try:
                if chat.body.stream:
                    await self._stream(chat, trace, deadline, send)
                else:
                    await self._whole(chat, trace, deadline, send)
                code = trace.code
            except Exception as error:
                code = answer_for(error, trace.request_id).code
                raise
            finally:
                await chat.witness.broke(code)
        finally:
            self._meters.chat_ended()

    async def _whole(self, chat: Admitted, trace: Trace, deadline: float, send: Send) -> None:
        async with asyncio.timeout_at(deadline), self._events(chat) as batches:
            body = await complete(
                batches,
                chat.identity,
                trace,
                chat.witness,
                n=chat.request.n,
                logprobs=chat.request.sampling.logprobs,
            )
        headers = [
            (b"content-type", b"application/json"),
            (b"cache-control", b"no-store"),
            (b"content-length", b"%d" % len(body)),
            *chat.stamps,
        ]
        # The answer is complete; only a client that does not take it can still hold it up.
        async with asyncio.timeout(WRITE_TIMEOUT_S):
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": body})

    async def _stream(self, chat: Admitted, trace: Trace, deadline: float, send: Send) -> None:
        options = chat.body.stream_options
        encoder = ChunkEncoder(
            chat.identity,
            trace,
            n=chat.request.n,
            logprobs=chat.request.sampling.logprobs,
            include_usage=bool(options and options.include_usage),
        )
        stream = EventStream(encoder, send, chat.witness, chat.stamps)
        try:
            async with asyncio.timeout_at(deadline), self._events(chat) as batches:
                await stream.run(batches)
        except Exception as error:
            # Before the first event the error still becomes a status; later it becomes an event.
            if not stream.started:
                raise
            report_unexpected(error, trace.request_id)
            async with asyncio.timeout(CLEANUP_S):
                await stream.fail(answer_for(error, trace.request_id))

    @asynccontextmanager
    async def _events(self, chat: Admitted) -> AsyncIterator[AsyncIterator[Sequence[Event]]]:
        """The engine's events; leaving early, for whatever reason, tells the engine at once."""
        batches = self._service.chat(chat.identity.model, chat.request, chat.session)
        try:
            yield batches
        finally:
            close = getattr(batches, "aclose", None)
            if close is not None:
                with suppress(TimeoutError):
                    async with asyncio.timeout(CLEANUP_S):
                        await close()
