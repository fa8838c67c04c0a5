"""What one API replica works with: made once when it starts, and given to the routes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol

from fastapi import FastAPI
from starlette.middleware import Middleware

from configs.args import EmergencyArgs
from deployments.ai.client import LanguageService
from deployments.data.accounts.origin import Journal
from deployments.data.emergency.standing import Standing
from serve_app.auth.guard import DEADLINE_S, Authority
from serve_app.chat.duties import ChatDuties


class Part(Protocol):
    """Something that runs as long as the replica does."""

    async def start(self) -> None:
        """Begin. Waits for no other process: a replica must come up while the database is away."""

    async def close(self) -> None:
        """End, within a few seconds."""


@dataclass(frozen=True, slots=True)
class Services:
    """The parts of one API replica.

    `routes` add the paths of the data node's surfaces, in this order; `parts` are started in order
    and closed in reverse. `callers` are the hosts that may call `/internal/`. `behind_guard` stands
    between the credentials and the routes; `basic_chat` are the limits of chats on an emergency cell.
    """

    language: LanguageService
    authority: Authority
    audit: Journal
    duties: ChatDuties
    routes: Sequence[Callable[[FastAPI], None]] = ()
    parts: Sequence[Part] = ()
    deadline_s: float = DEADLINE_S
    callers: frozenset[str] = frozenset()
    standing: Standing = field(default_factory=lambda: Standing(None))
    estimate_s: float = EmergencyArgs().estimate_s
    behind_guard: Sequence[Middleware] = ()
    basic_chat: EmergencyArgs | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start every part; whatever happens, close those that were started."""
        started: list[Part] = []
        try:
            for part in self.parts:
                await part.start()
                started.append(part)
            yield
        finally:
            for part in reversed(started):
                await part.close()
