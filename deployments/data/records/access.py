"""The way that every request on records goes: its rights, its transaction, its place in the audit."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import UUID

import psycopg

from deployments.data import scopes
from deployments.data.database import Database
from deployments.data.errors import Conflict, Unsupported
from deployments.data.principal import Caller
from deployments.data.records import idempotency
from deployments.data.records.missing import Deleted, Missing, UnknownReference
from deployments.data.records.reading import Seen
from deployments.data.records.shapes import TYPES, Stored
from deployments.data.records.trail import Trail
from deployments.data.repeating import repeat

Connection = psycopg.AsyncConnection[tuple[Any, ...]]
T = TypeVar("T")

ATTEMPTS = 4
_PAUSE_S = 0.01


@dataclass(slots=True)
class Act:
    """One attempt at a write: its transaction, and the audit entries staged in it."""

    connection: Connection
    staged: list[UUID] = field(default_factory=list)


class Access:
    """What stands around the reads and writes of `Records`."""

    def __init__(self, database: Database, trail: Trail) -> None:
        self._database = database
        self.trail = trail

    def permit(self, caller: Caller, type: str, letter: scopes.Letter) -> None:
        """Raise `Forbidden` without the scope, `Unsupported` for a type that is not held."""
        if type not in TYPES:
            raise Unsupported("Resources of this type are not held here.", param="type")
        scopes.require_permitted(caller.principal, type, letter)

    def opened(self, caller: Caller, *, write: bool) -> AbstractAsyncContextManager[Connection]:
        """A transaction that sees what the caller may. Writes are made durable by the audit's."""
        who = caller.principal
        return self._database.transaction(
            deadline=caller.deadline,
            organization=who.organization,
            practitioner=who.practitioner or "",
            compartment=scopes.compartment(who),
            durable=not (write and self.trail.enabled),
            read_only=not write,
        )

    async def write(self, caller: Caller, action: str, work: Callable[[Act], Awaitable[T]]) -> T:
        """`work` in a transaction of its own, settled; over a failover of the database as well.

        With an idempotency key that also goes for a commit whose fate is unknown: the key tells.
        """
        keyed = idempotency.checked(caller) is not None
        return await repeat(
            lambda: self._written(caller, action, work),
            deadline=caller.deadline,
            even_unknown=keyed,
        )

    async def _written(self, caller: Caller, action: str, work: Callable[[Act], Awaitable[T]]) -> T:
        """`work` committed, again where others came in between, then settled."""
        async with self.noticed(caller, action):
            for attempt in range(1, ATTEMPTS + 1):
                try:
                    async with self.opened(caller, write=True) as connection:
                        act = Act(connection)
                        result = await work(act)
                    break
                except Conflict as error:
                    if error.code != "serialization" or attempt == ATTEMPTS:
                        raise
                await asyncio.sleep(random.uniform(0, _PAUSE_S * 2**attempt))
        await self.trail.settle(act.staged, caller)
        return result

    @asynccontextmanager
    async def noticed(self, caller: Caller, action: str) -> AsyncIterator[None]:
        """Put on record what was asked for and is not there, or not for this caller."""
        try:
            yield
        except (Missing, UnknownReference) as error:
            await self.trail.missed(caller, action, error.type, error.id, code="not_found")
            raise
        except Deleted as error:
            await self.trail.missed(caller, action, error.type, error.id, code="deleted")
            raise

    async def show(self, caller: Caller, action: str, stored: Stored, broke_glass: bool) -> None:
        """On record what is about to be shown."""
        await self.trail.saw(
            caller,
            action,
            resource=stored.reference,
            patients=[stored.patient] if stored.patient else [],
            broke_glass=broke_glass,
            version=stored.version,
        )

    async def show_page(
        self, caller: Caller, action: str, resource: str, seen: Seen, **details: Any
    ) -> None:
        """On record the page that is about to be shown."""
        page = seen.page
        if page.total is not None:
            details["total"] = page.total
        await self.trail.saw(
            caller,
            action,
            resource=resource,
            patients=seen.patients,
            broke_glass=seen.broke_glass,
            count=len(page.entries),
            included=len(page.includes),
            **details,
        )
