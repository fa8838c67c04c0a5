"""Reading inside a transaction that others begin: rows under row-level security, opened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from deployments.data import scopes
from deployments.data.errors import Invalid
from deployments.data.principal import Caller
from deployments.data.records.consent import refuses_ai
from deployments.data.records.missing import Deleted, Missing, look_for
from deployments.data.records.rows import COLUMNS, WIDTH, Rows
from deployments.data.records.search import (
    SearchPage,
    SearchQuery,
    decode_cursor,
    encode_cursor,
)
from deployments.data.records.shapes import SHARED_TYPES, TYPES, Stored
from deployments.data.records.statements import (
    BROKE_GLASS,
    COMPARTMENT,
    CONSENTS,
    EVERYTHING,
    INCLUDED,
    ONE,
    OWN,
)
from deployments.data.seal.sealer import Sealer

Connection = psycopg.AsyncConnection[tuple[Any, ...]]

MAX_INCLUDES = 1000


@dataclass(frozen=True, slots=True)
class Seen:
    """What was read, whose it is, and whether break-glass alone opened any of it."""

    page: SearchPage
    patients: list[str]
    broke_glass: bool


class Reader:
    """Reads with one sealer."""

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer
        self._rows = Rows(sealer)

    async def current(
        self, connection: Connection, caller: Caller, type: str, id: str
    ) -> tuple[Stored, bool]:
        """The newest version, deleted or not, and whether break-glass alone opens it."""
        look_for(type, id)
        statement = ONE.format(
            columns=COLUMNS, table=sql.SQL("resource"), type=sql.Literal(type), own=OWN
        )
        row = await (await connection.execute(statement, (id,))).fetchone()
        if row is None:
            raise Missing(type, id)
        return self._rows.stored(caller.principal.organization, row), bool(row[WIDTH])

    async def living_patient(self, connection: Connection, caller: Caller, id: str) -> None:
        """Raise `Missing` for a patient that the caller may not know of, `Deleted` for one gone."""
        stored, _ = await self.current(connection, caller, "Patient", id)
        if stored.resource is None:
            raise Deleted("Patient", id)

    async def version(
        self, connection: Connection, caller: Caller, type: str, id: str, version: int
    ) -> tuple[Stored, bool]:
        """One version, and whether break-glass alone opens it."""
        look_for(type, id)
        statement = ONE.format(
            columns=COLUMNS, table=sql.SQL("history"), type=sql.Literal(type), own=OWN
        ) + sql.SQL(" AND r.version = %s")
        row = await (await connection.execute(statement, (id, version))).fetchone()
        if row is None:
            raise Missing(type, id)
        return self._rows.stored(caller.principal.organization, row), bool(row[WIDTH])

    async def versions(
        self,
        connection: Connection,
        caller: Caller,
        type: str,
        id: str,
        *,
        count: int,
        before: int | None,
    ) -> tuple[list[Stored], bool]:
        """The newest `count` versions (before one, if given), newest first."""
        look_for(type, id)
        statement = ONE.format(
            columns=COLUMNS, table=sql.SQL("history"), type=sql.Literal(type), own=OWN
        ) + sql.SQL(" AND r.version < %s ORDER BY r.version DESC LIMIT %s")
        # The type of the column bounds what a page can begin at.
        bound = min(before, 2**31 - 1) if before is not None else 2**31 - 1
        found = await connection.execute(statement, (id, bound, count))
        rows = await found.fetchall()
        if not rows and before is None:
            raise Missing(type, id)
        organization = caller.principal.organization
        stored = [self._rows.stored(organization, row) for row in rows]
        return stored, any(row[WIDTH] for row in rows)

    async def search(self, connection: Connection, caller: Caller, query: SearchQuery) -> Seen:
        """One page, what it includes, and the total if it is wanted."""
        total = await self._total(connection, query) if query.total else None
        if query.count == 0:
            return Seen(SearchPage([], [], None, total), [], False)
        columns = sql.SQL("{}, r.refs").format(COLUMNS)
        statement, values = query.page(columns, self._sealer)
        rows = await (await connection.execute(_whole(statement), values)).fetchall()
        kept, more = rows[: query.count], len(rows) > query.count
        cursor = query.cursor(kept[-1][WIDTH + 1 :]) if more else None
        return await self._page(connection, caller, kept, _wanted(kept, query), cursor, total)

    async def everything(
        self,
        connection: Connection,
        caller: Caller,
        patient: str,
        *,
        count: int,
        cursor: str | None,
    ) -> Seen:
        """One page of a patient's compartment, the patient first, with the staff that it names."""
        fingerprint = f"everything/{patient}"
        after = _place(fingerprint, cursor)
        statement = EVERYTHING.format(columns=COLUMNS, own=OWN)
        types = readable(caller)
        values = (patient, types, after[0] != "Patient", *after, count + 1)
        if cursor is None:
            values = (patient, types, False, "", "", count + 1)
        rows = await (await connection.execute(statement, values)).fetchall()
        kept = rows[:count]
        further = None
        if len(rows) > count:
            further = encode_cursor(fingerprint, [kept[-1][0], kept[-1][1]])
        wanted = {
            (type, id)
            for row in kept
            for type, _, id in (each.partition("/") for each in row[WIDTH])
            if type in SHARED_TYPES
        }
        return await self._page(connection, caller, kept, wanted, further, None)

    async def compartment(
        self,
        connection: Connection,
        caller: Caller,
        patient: str,
        *,
        after: tuple[str, str, int],
        count: int,
    ) -> list[Stored]:
        """Every version of a patient's compartment, by type, id and version."""
        statement = COMPARTMENT.format(columns=COLUMNS, own=OWN)
        found = await connection.execute(statement, (patient, *after, count))
        rows = await found.fetchall()
        return [self._rows.stored(caller.principal.organization, row) for row in rows]

    async def matches(
        self, connection: Connection, caller: Caller, query: SearchQuery
    ) -> list[tuple[Stored, bool]]:
        """The first two that a condition matches, and whether break-glass alone opens each."""
        condition, values = query.where(self._sealer)
        statement = sql.SQL(
            "SELECT {columns}, records.by_break_glass(r.patient) FROM records.resource AS r"
            " WHERE {condition} AND NOT r.deleted ORDER BY r.id LIMIT 2"
        ).format(columns=COLUMNS, condition=condition)
        rows = await (await connection.execute(statement, values)).fetchall()
        organization = caller.principal.organization
        return [(self._rows.stored(organization, row), bool(row[WIDTH])) for row in rows]

    async def refusal_of_ai(
        self, connection: Connection, caller: Caller, patient: str
    ) -> str | None:
        """The id of the first active Consent that refuses AI now."""
        statement = CONSENTS.format(columns=COLUMNS, own=OWN)
        for row in await (await connection.execute(statement, (patient,))).fetchall():
            stored = self._rows.stored(caller.principal.organization, row)
            if stored.resource is not None and refuses_ai(stored.resource):
                return stored.id
        return None

    async def _total(self, connection: Connection, query: SearchQuery) -> int:
        condition, values = query.where(self._sealer)
        statement = sql.SQL(
            "SELECT count(*) FROM records.resource AS r WHERE {condition} AND NOT r.deleted"
        ).format(condition=condition)
        row = await (await connection.execute(statement, values)).fetchone()
        return int(row[0]) if row else 0

    async def _included(
        self, connection: Connection, caller: Caller, wanted: set[tuple[str, str]]
    ) -> list[Stored]:
        permitted = set(readable(caller))
        names = sorted(name for name in wanted if name[0] in permitted)[:MAX_INCLUDES]
        if not names:
            return []
        values = ([type for type, _ in names], [id for _, id in names])
        statement = INCLUDED.format(columns=COLUMNS, own=OWN)
        rows = await (await connection.execute(statement, values)).fetchall()
        return [self._rows.stored(caller.principal.organization, row) for row in rows]

    async def _page(
        self,
        connection: Connection,
        caller: Caller,
        kept: Sequence[tuple[Any, ...]],
        wanted: set[tuple[str, str]],
        cursor: str | None,
        total: int | None,
    ) -> Seen:
        includes = await self._included(connection, caller, wanted)
        organization = caller.principal.organization
        entries = [self._rows.stored(organization, row) for row in kept]
        return await self._seen(connection, caller, SearchPage(entries, includes, cursor, total))

    async def _seen(self, connection: Connection, caller: Caller, page: SearchPage) -> Seen:
        everyone = [each.patient for each in (*page.entries, *page.includes) if each.patient]
        patients = sorted(set(everyone))
        broke_glass = False
        if patients and scopes.compartment(caller.principal) == "care":
            row = await (await connection.execute(BROKE_GLASS, (patients,))).fetchone()
            broke_glass = bool(row and row[0])
        return Seen(page, patients, broke_glass)


def readable(caller: Caller) -> list[str]:
    """The types that the caller's scopes let it read."""
    return [type for type in TYPES if scopes.permits(caller.principal, type, "r")]


def _wanted(rows: Sequence[Sequence[Any]], query: SearchQuery) -> set[tuple[str, str]]:
    """What the page's `_include`s lead to, without what the page holds already."""
    wanted: set[tuple[str, str]] = set()
    for include in query.includes:
        prefix = f"{include.name}:"
        for row in rows:
            for each in row[WIDTH]:
                if each.startswith(prefix):
                    type, _, id = each.removeprefix(prefix).partition("/")
                    if include.target in (None, type):
                        wanted.add((type, id))
    return wanted - {(row[0], row[1]) for row in rows}


def _place(fingerprint: str, cursor: str | None) -> tuple[str, str]:
    if cursor is None:
        return "Patient", ""
    values = decode_cursor(fingerprint, cursor)
    if len(values) != 2 or values[0] not in TYPES or not isinstance(values[1], str):
        raise Invalid("_cursor is not one of this request.", param="_cursor")
    look_for(values[0], values[1])
    return values[0], values[1]


def _whole(statement: sql.Composable) -> sql.Composed:
    return statement if isinstance(statement, sql.Composed) else sql.Composed([statement])
