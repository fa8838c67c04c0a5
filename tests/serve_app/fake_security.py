"""Fakes at the surface's own boundaries: who credentials belong to, and what is put on record."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from deployments.ai.client import LanguageService
from deployments.data.audit.entry import AuditEntry
from deployments.data.errors import DataError, Unauthenticated
from deployments.data.interactions.interaction import Answered, Asked
from deployments.data.principal import Caller, Principal
from deployments.data.scopes import ROLE_SCOPES
from models.generation import Priority
from serve_app.services import Services

TOKEN = "a-good-token"
PHYSICIAN = Principal(
    id="a9f0c1d2-0000-4000-8000-000000000001",
    kind="account",
    role="physician",
    organization="hospital",
    scopes=ROLE_SCOPES["physician"],
    practitioner="p-1",
)


def caller_of_tests(principal: Principal = PHYSICIAN) -> Caller:
    """A request of `principal`, made now."""
    return Caller(principal, "r", "192.0.2.7", time.monotonic() + 30.0)


class FakeAuthority:
    """Knows `TOKEN`, which belongs to `principal`."""

    def __init__(self, principal: Principal = PHYSICIAN) -> None:
        self.principal = principal

    async def verify(self, token: str) -> Principal:
        if token != TOKEN:
            raise Unauthenticated("These credentials are not known.")
        return self.principal


@dataclass
class FakeRecord:
    """An audit and the duties of chats, in memory: what was put on record, in order.

    `refusals` are raised by the step of their name; `hooks` are called first.
    """

    entries: list[AuditEntry] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    answered: list[Answered] = field(default_factory=list)
    callers: list[Caller] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    refusals: dict[str, DataError] = field(default_factory=dict)
    hooks: dict[str, Callable[[], None]] = field(default_factory=dict)

    async def journal(self, entry: AuditEntry) -> None:
        self.entries.append(entry)

    def permit(self, caller: Caller, priority: Priority) -> None:
        self.callers.append(caller)
        self._step("permit")

    def check_switch(self, caller: Caller) -> None:
        self._step("switch", note=False)

    async def begin(self, caller: Caller, asked: Asked) -> None:
        self._step("begin")
        self.asked.append(asked)

    async def end(self, caller: Caller, asked: Asked, answered: Answered) -> None:
        self._step("end")
        self.answered.append(answered)

    def _step(
        self, name: Literal["permit", "switch", "begin", "end"], *, note: bool = True
    ) -> None:
        if note:
            self.steps.append(name)
        if name in self.hooks:
            self.hooks[name]()
        if name in self.refusals:
            raise self.refusals[name]


def services_of(
    language: LanguageService,
    record: FakeRecord | None = None,
    principal: Principal = PHYSICIAN,
) -> Services:
    """The services of a replica whose records are `record`."""
    kept = record or FakeRecord()
    return Services(language=language, authority=FakeAuthority(principal), audit=kept, duties=kept)
