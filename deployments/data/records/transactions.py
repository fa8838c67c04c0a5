"""A transaction of many entries, run: all or nothing, safe to repeat, every entry on record."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import psycopg

from deployments.data.errors import Unprocessable
from deployments.data.principal import Caller
from deployments.data.records import bundle, idempotency
from deployments.data.records.missing import Deleted
from deployments.data.records.reading import Reader
from deployments.data.records.search import SearchPage
from deployments.data.records.shapes import BundleEntry, Written
from deployments.data.records.writes import Writes, line_of
from deployments.data.records.writing import Draft, Names, check_id, new_id

Connection = psycopg.AsyncConnection[tuple[Any, ...]]
Result = Written | SearchPage


class Transaction:
    """One FHIR transaction. `prepare` refuses what it can before the database is asked."""

    def __init__(
        self, caller: Caller, entries: Sequence[BundleEntry], writes: Writes, reader: Reader
    ) -> None:
        self._caller = caller
        self._entries = entries
        self._writes = writes
        self._reader = reader
        self._ids: dict[int, str] = {}
        self._drafts: dict[int, Draft] = {}
        self._request = ""

    async def prepare(self) -> None:
        """Check rights and shape, give ids, resolve links and validate.

        Where a creation is conditional its links are known only inside: then `run` validates.
        """
        bundle.check(self._caller.principal, self._entries)
        for position, entry in enumerate(self._entries):
            if entry.method == "PUT":
                check_id(entry.resource or {}, entry.id or "")
            self._ids[position] = entry.id or new_id()
        self._request = self._writes.fingerprint("transaction", *map(_parts, self._entries))
        if not any(entry.if_none_exist for entry in self._entries):
            self._drafts = await self._drafted(self._ids)

    async def run(self, connection: Connection, staged: list[UUID]) -> list[Result]:
        """The entries in FHIR's order. Runs again from the start where others came in between."""
        before = await idempotency.claim(connection, self._caller, self._request)
        if before is not None:
            return await self._replayed(connection, staged, before)
        results: dict[int, Result] = {}
        order = bundle.ordered(self._entries)
        await self._delete(connection, staged, order, results)
        ids = {**self._ids, **await self._matched(connection, staged, results)}
        drafts = self._drafts or await self._drafted(ids, but=results)
        pending = _pending(drafts, self._entries)
        for position in order:
            if position in results:
                continue
            entry = self._entries[position]
            if entry.method == "GET":
                results[position] = await self._read(connection, staged, entry)
            else:
                draft = drafts[position]
                results[position] = await self._write(connection, staged, entry, draft, pending)
        ordered = [results[position] for position in range(len(self._entries))]
        await idempotency.remember(connection, self._caller, [line_of(each) for each in ordered])
        return ordered

    async def _delete(
        self,
        connection: Connection,
        staged: list[UUID],
        order: list[int],
        results: dict[int, Result],
    ) -> None:
        for position in order:
            entry = self._entries[position]
            if entry.method == "DELETE" and entry.id is not None:
                results[position] = await self._writes.deleted(
                    connection, staged, self._caller, entry.type, entry.id
                )

    async def _matched(
        self, connection: Connection, staged: list[UUID], results: dict[int, Result]
    ) -> dict[int, str]:
        """Conditional creations whose condition matches: nothing to write, but something to name."""
        conditions = [
            (entry.if_none_exist.condition(), position, entry.if_none_exist)
            for position, entry in enumerate(self._entries)
            if entry.method == "POST" and entry.if_none_exist is not None
        ]
        there: dict[int, str] = {}
        # Locks in one order for everybody: nobody waits in a ring.
        ordered = sorted(conditions, key=lambda each: each[:2])
        for number, (condition, position, query) in enumerate(ordered):
            if number and ordered[number - 1][0] == condition:
                message = "Two entries of the transaction have the same condition."
                raise Unprocessable(message, param="Bundle.entry", code="duplicate_entry")
            await self._writes.lock_condition(connection, self._caller, query)
            found = await self._writes.match(connection, staged, self._caller, query)
            if found is not None:
                there[position] = found.id
                results[position] = Written(found, created=False)
        return there

    async def _drafted(
        self, ids: Mapping[int, str], but: Mapping[int, Result] | None = None
    ) -> dict[int, Draft]:
        names = {
            entry.full_url: f"{entry.type}/{ids[position]}"
            for position, entry in enumerate(self._entries)
            if entry.full_url is not None and entry.method in ("POST", "PUT")
        }
        drafts = {}
        for position, entry in enumerate(self._entries):
            if entry.resource is None or entry.method not in ("POST", "PUT"):
                continue
            if but is not None and position in but:
                continue
            resource = bundle.linked(entry.resource, names)
            drafts[position] = self._writes.drafted(entry.type, resource, id=ids[position])
            # Two hundred of them would keep everybody else waiting.
            await asyncio.sleep(0)
        return drafts

    async def _write(
        self,
        connection: Connection,
        staged: list[UUID],
        entry: BundleEntry,
        draft: Draft,
        pending: Names,
    ) -> Written:
        writer, caller = self._writes.writer, self._caller
        if entry.method == "POST":
            change = await writer.create(connection, caller, draft, pending)
            await self._writes.stage(connection, staged, caller, "create", change, bundle=True)
            return Written(change.stored, created=True)
        change = await writer.update(connection, caller, draft, pending, if_match=entry.if_match)
        await self._writes.stage(connection, staged, caller, "update", change, bundle=True)
        return Written(change.stored, created=False)

    async def _read(self, connection: Connection, staged: list[UUID], entry: BundleEntry) -> Result:
        if entry.query is not None:
            seen = await self._reader.search(connection, self._caller, entry.query)
            await self._writes.stage_search(connection, staged, self._caller, entry.query, seen)
            return seen.page
        if entry.id is None:
            raise Unprocessable("This entry reads nothing.", param="Bundle.entry.request.url")
        stored, broke_glass = await self._reader.current(
            connection, self._caller, entry.type, entry.id
        )
        if stored.resource is None:
            raise Deleted(entry.type, entry.id)
        await self._writes.stage_read(
            connection, staged, self._caller, stored, broke_glass=broke_glass, bundle=True
        )
        return Written(stored, created=False)

    async def _replayed(
        self, connection: Connection, staged: list[UUID], lines: list[idempotency.Line]
    ) -> list[Result]:
        """What the first request wrote; its searches are made again."""
        results: list[Result] = []
        for entry, line in zip(self._entries, lines, strict=True):
            if line:
                written = await self._writes.replayed(connection, staged, self._caller, [line])
                results += written
            else:
                results.append(await self._read(connection, staged, entry))
        return results


def _parts(entry: BundleEntry) -> list[Any]:
    conditions = [
        hashlib.sha256(query.condition()).hexdigest() if query else None
        for query in (entry.if_none_exist, entry.query)
    ]
    head = (entry.method, entry.type, entry.id, entry.full_url, entry.if_match)
    return [*head, entry.resource, *conditions]


def _pending(drafts: Mapping[int, Draft], entries: Sequence[BundleEntry]) -> Names:
    """The patients of what is going to be created, for references that come before it."""
    return {
        (draft.type, draft.id): draft.index.patient
        for position, draft in drafts.items()
        if entries[position].method == "POST"
    }
