"""Single writes inside a transaction: repeated requests, conditions, the write, its audit entry."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol
from uuid import UUID

import psycopg

from deployments.data.errors import PreconditionFailed
from deployments.data.principal import Caller
from deployments.data.records import idempotency
from deployments.data.records.reading import Reader, Seen
from deployments.data.records.search import SearchPage, SearchQuery
from deployments.data.records.shapes import Stored, Written
from deployments.data.records.trail import Trail
from deployments.data.records.writing import Change, Draft, Writer, new_id
from deployments.data.seal.sealer import Sealer

Connection = psycopg.AsyncConnection[tuple[Any, ...]]
Beside = Callable[[Connection, Stored], Awaitable[None]]

_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))"


class Watch(Protocol):
    """Looks at what is written, inside its transaction; see deployments/data/alerts/watch.py."""

    async def written(self, connection: Connection, caller: Caller, stored: Stored) -> list[UUID]:
        """Add to the transaction what the version calls for; returns the audit entries staged."""


class Writes:
    """What `Records` and its transactions do inside a database transaction."""

    def __init__(
        self,
        writer: Writer,
        reader: Reader,
        trail: Trail,
        sealer: Sealer,
        watch: Watch | None = None,
    ) -> None:
        self.writer = writer
        self._watch = watch
        self._reader = reader
        self._trail = trail
        self._sealer = sealer

    def drafted(self, type: str, resource: dict[str, Any], id: str | None = None) -> Draft:
        """A valid resource under `id`, or a new one."""
        return self.writer.draft(type, id or new_id(), resource)

    def fingerprint(self, *parts: Any) -> str:
        """What tells one request from another for the same idempotency key."""
        return idempotency.fingerprint(self._sealer, *parts)

    async def create(
        self,
        connection: Connection,
        staged: list[UUID],
        caller: Caller,
        draft: Draft,
        *,
        if_none_exist: SearchQuery | None,
        fingerprint: bytes | None,
        beside: Beside | None,
        action: str,
        details: Mapping[str, Any],
    ) -> Written:
        """See `Records.create`."""
        body = {key: value for key, value in draft.resource.items() if key != "id"}
        request = self.fingerprint(
            "create",
            draft.type,
            hashlib.sha256(if_none_exist.condition()).hexdigest() if if_none_exist else None,
            body if fingerprint is None else fingerprint.hex(),
        )
        if (before := await idempotency.claim(connection, caller, request)) is not None:
            return (await self.replayed(connection, staged, caller, before))[0]
        if if_none_exist is not None:
            await self.lock_condition(connection, caller, if_none_exist)
            there = await self.match(connection, staged, caller, if_none_exist)
            if there is not None:
                written = Written(there, created=False)
                await idempotency.remember(connection, caller, [line_of(written)])
                return written
        change = await self.writer.create(connection, caller, draft, {})
        if beside is not None:
            await beside(connection, change.stored)
        await self.stage(connection, staged, caller, action, change, **details)
        written = Written(change.stored, created=True)
        await idempotency.remember(connection, caller, [line_of(written)])
        return written

    async def update(
        self,
        connection: Connection,
        staged: list[UUID],
        caller: Caller,
        draft: Draft,
        *,
        if_match: int | None,
    ) -> Written:
        """See `Records.update`."""
        request = self.fingerprint("update", draft.type, draft.id, if_match, draft.resource)
        if (before := await idempotency.claim(connection, caller, request)) is not None:
            return (await self.replayed(connection, staged, caller, before))[0]
        change = await self.writer.update(connection, caller, draft, {}, if_match=if_match)
        await self.stage(connection, staged, caller, "update", change)
        written = Written(change.stored, created=False)
        await idempotency.remember(connection, caller, [line_of(written)])
        return written

    async def delete(
        self, connection: Connection, staged: list[UUID], caller: Caller, type: str, id: str
    ) -> Written:
        """See `Records.delete`."""
        request = self.fingerprint("delete", type, id)
        if (before := await idempotency.claim(connection, caller, request)) is not None:
            return (await self.replayed(connection, staged, caller, before))[0]
        written = await self.deleted(connection, staged, caller, type, id)
        await idempotency.remember(connection, caller, [line_of(written)])
        return written

    async def deleted(
        self, connection: Connection, staged: list[UUID], caller: Caller, type: str, id: str
    ) -> Written:
        """Deleted now, or before."""
        change = await self.writer.delete(connection, caller, type, id)
        if change is None:
            stored, broke_glass = await self._reader.current(connection, caller, type, id)
            change = Change(stored, "", broke_glass)
        await self.stage(connection, staged, caller, "delete", change)
        return Written(change.stored, created=False)

    async def lock_condition(
        self, connection: Connection, caller: Caller, condition: SearchQuery
    ) -> None:
        """Let conditional creations with the same condition go one after the other."""
        name = hashlib.sha256(condition.condition()).hexdigest()
        text = f"medrec.condition/{caller.principal.organization}/{name}"
        await connection.execute(_LOCK, (text,))

    async def match(
        self,
        connection: Connection,
        staged: list[UUID],
        caller: Caller,
        condition: SearchQuery,
    ) -> Stored | None:
        """What a condition matches already, on record as read; raises if it is several."""
        found = await self._reader.matches(connection, caller, condition)
        if len(found) > 1:
            message = "The condition matches several resources."
            raise PreconditionFailed(message, param="If-None-Exist", code="several_matches")
        if not found:
            return None
        stored, broke_glass = found[0]
        await self.stage_read(
            connection, staged, caller, stored, broke_glass=broke_glass, conditional=True
        )
        return stored

    async def replayed(
        self,
        connection: Connection,
        staged: list[UUID],
        caller: Caller,
        lines: list[idempotency.Line],
    ) -> list[Written]:
        """What an earlier request with the same key wrote, as it was then."""
        found = []
        for line in lines:
            stored, broke_glass = await self._reader.version(
                connection, caller, line["type"], line["id"], line["version"]
            )
            await self.stage_read(
                connection, staged, caller, stored, broke_glass=broke_glass, replayed=True
            )
            found.append(Written(stored, created=line["created"], replayed=True))
        return found

    async def stage(
        self,
        connection: Connection,
        staged: list[UUID],
        caller: Caller,
        action: str,
        change: Change,
        **details: Any,
    ) -> None:
        """The audit entry of a change, in its own transaction, and what it calls for."""
        stored = change.stored
        staged += await self._trail.stage(
            connection,
            caller,
            action,
            resource=stored.reference,
            patients=[stored.patient] if stored.patient else [],
            broke_glass=change.broke_glass,
            version=stored.version,
            sha256=change.sha256,
            **details,
        )
        if self._watch is not None:
            staged += await self._watch.written(connection, caller, stored)

    async def stage_read(
        self,
        connection: Connection,
        staged: list[UUID],
        caller: Caller,
        stored: Stored,
        *,
        broke_glass: bool = False,
        **details: Any,
    ) -> None:
        """The audit entry of something that a write's answer shows."""
        staged += await self._trail.stage(
            connection,
            caller,
            "read",
            resource=stored.reference,
            patients=[stored.patient] if stored.patient else [],
            broke_glass=broke_glass,
            version=stored.version,
            **details,
        )

    async def stage_search(
        self,
        connection: Connection,
        staged: list[UUID],
        caller: Caller,
        query: SearchQuery,
        seen: Seen,
    ) -> None:
        """The audit entry of a search that a transaction makes."""
        staged += await self._trail.stage(
            connection,
            caller,
            "search",
            resource=query.type,
            patients=seen.patients,
            broke_glass=seen.broke_glass,
            parameters=list(query.names),
            count=len(seen.page.entries),
            included=len(seen.page.includes),
        )


def line_of(result: Written | SearchPage) -> idempotency.Line:
    """What an idempotency key remembers of a result; nothing of a search."""
    if isinstance(result, SearchPage):
        return {}
    stored = result.stored
    return {
        "type": stored.type,
        "id": stored.id,
        "version": stored.version,
        "created": result.created,
    }
