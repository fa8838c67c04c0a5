"""Hears one answer as it leaves, and tells how it ended exactly once."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Sequence
from contextlib import suppress

from deployments.data.errors import DataError
from deployments.data.interactions.interaction import Answered, Asked, End, canonical, output_hash
from deployments.data.principal import Caller
from models.generation import Delta, Done, Event, Failure, Finish, Usage
from serve_app.chat.duties import ChatDuties

# What cut an answer off, rather than failed at it.
CLIENT_GONE = "client_gone"
INTERRUPTIONS = frozenset((CLIENT_GONE, "deadline_exceeded", "ai_switched_off"))

_log = logging.getLogger("medrec.chat")


class Witness:
    """The hash, counts and, about a patient, the text of one answer while it grows.

    The outcome is written by a task of its own, so that a client which leaves in that moment
    cannot undo it. If it cannot be written, the custodian closes the question as interrupted.
    """

    def __init__(self, duties: ChatDuties, caller: Caller, asked: Asked) -> None:
        self._duties = duties
        self._caller = caller
        self._asked = asked
        self._digests = [hashlib.sha256() for _ in range(asked.choices)]
        self._reasons: list[str | None] = [None] * asked.choices
        self._texts: list[list[str]] | None = None
        if asked.patient is not None:
            self._texts = [[] for _ in range(asked.choices)]
        self._usage = Usage(0, 0, 0)
        self._failure = ""
        self._told: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Put the question on record; raises what `ChatDuties.begin` raises."""
        await self._duties.begin(self._caller, self._asked)

    def hear(self, batch: Sequence[Event]) -> None:
        """Take note of what is about to leave; raises `SwitchedOff` while AI is off."""
        self._duties.check_switch(self._caller)
        for event in batch:
            if isinstance(event, Delta):
                self._digests[event.index].update(event.text.encode())
                if self._texts is not None:
                    self._texts[event.index].append(event.text)
            elif isinstance(event, Finish):
                self._reasons[event.index] = event.reason
            elif isinstance(event, Done):
                self._usage = event.usage
            elif isinstance(event, Failure):
                self._failure = event.code

    async def answered(self) -> None:
        """Record that the answer is complete; raises if that cannot be recorded."""
        await self._tell("success", "")

    async def broke(self, code: str) -> None:
        """Record that it is not, unless an outcome was told before; raises no `DataError`."""
        code = self._failure or code
        with suppress(DataError):
            await self._tell("interrupted" if code in INTERRUPTIONS else "failed", code)

    async def _tell(self, outcome: End, code: str) -> None:
        if self._told is None:
            answered = self._answer(outcome, code)
            self._told = asyncio.create_task(self._end(answered))
            _unfinished.add(self._told)
            self._told.add_done_callback(_finished)
        await asyncio.shield(self._told)

    async def _end(self, answered: Answered) -> None:
        await self._duties.end(self._caller, self._asked, answered)

    def _answer(self, outcome: End, code: str) -> Answered:
        text = b""
        if self._texts is not None:
            choices = [{"content": "".join(parts)} for parts in self._texts]
            text = canonical(choices)
        return Answered(
            outcome=outcome,
            output_sha256=output_hash([digest.digest() for digest in self._digests]),
            finish_reasons=tuple(self._reasons),
            prompt_tokens=self._usage.prompt_tokens,
            cached_tokens=self._usage.cached_tokens,
            completion_tokens=self._usage.completion_tokens,
            code=code,
            text=text,
        )


# The event loop itself holds its tasks only weakly.
_unfinished: set[asyncio.Task[None]] = set()


def _finished(task: asyncio.Task[None]) -> None:
    _unfinished.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.warning('{"event":"outcome_unrecorded","error":"%s"}', type(error).__name__)
