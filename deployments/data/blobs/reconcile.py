"""Reconciliation: a cell compares the rows of blobs with its own folder, and mends what differs.

Every lap looks at what has changed lately, at single blobs of the other cell, at the next of all rows
and at the hashes of a few files. What is missing or damaged is fetched; a file with a row stays.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import LiteralString

from deployments.data.blobs import files
from deployments.data.blobs.copies import Copies
from deployments.data.blobs.peer import Peer, PeerAway
from deployments.data.database import Database
from deployments.data.errors import DiskFull

# How far back a lap looks beyond the lap before: rows carry the time at which their transaction began.
OVERLAP_S = 120.0
# After a start: what was written while nobody looked. The walk finds the rest.
FIRST_LOOK_S = 3600.0
CHANGED = 5000
PAGE = 500
# The first walk, after which the figures are whole, takes this much of each lap; later ones a page.
WALK_S = 10.0
# 32 MB each lap of 5 s: 550 GB a day, and two hundredths of a core.
VERIFY_BYTES = 32 * 2**20
# The hashes of a small store are not checked for ever.
ROUND_S = 600.0
FETCH_S = 20.0
FETCHES = 1000
AT_ONCE = 4
MOST_MISSING = 100_000
_QUERY_S = 10.0

_log = logging.getLogger("medrec.blobs")


@dataclass(frozen=True, slots=True)
class Row:
    """What a blob's row says of its file."""

    name: str
    stored_size: int
    erased: bool
    single_on: str | None


class Reconciler:
    """What one cell knows of its files. `lap` is called again and again, never twice at once."""

    def __init__(
        self, database: Database, copies: Copies, peer: Peer | None, host: str | None
    ) -> None:
        self._database, self._copies, self._peer, self._host = database, copies, peer, host
        # Names with the stored size that they should have.
        self.missing: dict[str, int] = {}
        self.damaged: dict[str, int] = {}
        # Those of `missing` that the other cell has not either.
        self.lost: set[str] = set()
        self.single = self.fetched = self.walks = 0
        self._looked_s: float | None = None
        self._beyond = ""
        # Names are hashes: from any of them on, so that frequent restarts still check every file.
        self._verified = secrets.token_hex(32)
        self._to_verify: deque[Row] = deque()
        self._credit = 0
        self._round_began_s: float | None = None
        self._rest_until_s = 0.0

    def figures(self) -> dict[str, int]:
        """Files missing or damaged here, or lost on both, rows that are single, and what was done."""
        return {
            "missing": len(self.missing),
            "lost": len(self.lost & self.missing.keys()),
            "single": self.single,
            "corrupt": len(self.damaged),
            "fetched": self.fetched,
            "walks": self.walks,
        }

    async def look(self) -> None:
        """Compare: the recent rows, the next of all rows, the hashes of a few files."""
        began_s = time.monotonic()
        back_s = FIRST_LOOK_S if self._looked_s is None else began_s - self._looked_s
        changed = await self._rows(
            "SELECT * FROM records.blobs_changed(%s, %s, %s)",
            (self._host, back_s + OVERLAP_S, CHANGED),
        )
        await self._compare(changed)
        await self._clear(changed)
        await self._walk()
        await self._verify()
        self.single = await self._count_single()
        self._looked_s = began_s

    async def mend(self) -> None:
        """Fetch from the other cell what is missing or damaged, as far as a lap's time goes."""
        if self._peer is None or self._peer.is_away:
            return
        wanted = [*self.missing.items(), *self.damaged.items()][:FETCHES]
        until_s = time.monotonic() + FETCH_S
        gate = asyncio.Semaphore(AT_ONCE)
        fetched: list[str] = []
        lost: list[str] = []

        async def one(peer: Peer, name: str, size: int) -> None:
            async with gate:
                if time.monotonic() > until_s or peer.is_away:
                    return
                try:
                    await self._fetch(peer, name, size)
                except files.BlobLost:
                    lost.append(name)
                except (PeerAway, DiskFull) as error:
                    _log.warning("blob %s was not fetched: %s", name, error.code)
                else:
                    fetched.append(name)

        async with asyncio.TaskGroup() as group:
            for name, size in wanted:
                group.create_task(one(self._peer, name, size))
        if fetched:
            _log.warning("fetched %d blobs that were missing or damaged here", len(fetched))
            await self._copied(fetched)
        if lost:
            await self._give_up(lost)
        if fetched:
            self.single = await self._count_single()

    async def _compare(self, rows: Sequence[Row]) -> None:
        sizes = await self._copies.sizes([row.name for row in rows])
        for row in rows:
            size = sizes.get(row.name)
            if row.erased:
                self._forget(row.name)
                if size is not None:
                    await self._copies.remove(row.name)
            elif size == row.stored_size:
                self.missing.pop(row.name, None)
                self.lost.discard(row.name)
            elif size is not None:
                self._found_damaged(row)
            elif len(self.missing) < MOST_MISSING:
                self.missing[row.name] = row.stored_size

    async def _clear(self, rows: Iterable[Row]) -> None:
        """Clear the marks of the other cell's single blobs that have arrived here after all."""
        here: list[str] = []
        until_s = time.monotonic() + WALK_S
        for row in rows:
            is_theirs = row.single_on is not None and row.single_on != self._host
            if not is_theirs or row.erased or self._lacks(row.name):
                continue
            if time.monotonic() > until_s:
                break
            if await self._is_whole(row):
                here.append(row.name)
        if here:
            await self._copied(here)

    async def _walk(self) -> None:
        until_s = time.monotonic() + (0.0 if self.walks else WALK_S)
        while True:
            rows = await self._page(self._beyond)
            await self._compare(rows)
            if len(rows) < PAGE:
                self._beyond = ""
                self.walks += 1
                return
            self._beyond = rows[-1].name
            if time.monotonic() >= until_s:
                return

    async def _verify(self) -> None:
        self._credit = min(self._credit, 0) + VERIFY_BYTES
        while self._credit > 0 and time.monotonic() >= self._rest_until_s:
            row = await self._next_to_verify()
            if row is not None and not row.erased and not self._lacks(row.name):
                self._credit -= row.stored_size
                await self._is_whole(row)

    async def _next_to_verify(self) -> Row | None:
        """The next of all rows by name; None at their end, before they begin anew."""
        if not self._to_verify:
            self._to_verify.extend(await self._page(self._verified))
        if not self._to_verify:
            # What began in the middle goes on at the beginning; a whole round is followed by a rest.
            if self._round_began_s is not None:
                self._rest_until_s = self._round_began_s + ROUND_S
            self._round_began_s, self._verified = time.monotonic(), ""
            return None
        row = self._to_verify.popleft()
        self._verified = row.name
        return row

    async def _is_whole(self, row: Row) -> bool:
        """Whether a file has its hash; what is found is kept in mind."""
        try:
            whole = await self._copies.verify(row.name)
        except files.BlobLost:
            # Erased since its row was read, or gone: the next lap's comparison tells.
            return False
        if not whole:
            self._found_damaged(row)
        return whole

    async def _fetch(self, peer: Peer, name: str, size: int) -> None:
        damaged = name in self.damaged
        found = await self._copies.size(name)
        # A reader may have been faster.
        if found != size or (damaged and not await self._copies.verify(name)):
            await peer.fetch(name, size, self._copies, set_aside=found is not None)
            self.fetched += 1
        self._forget(name)

    async def _give_up(self, names: Sequence[str]) -> None:
        """Nobody has these: try them last, and forget those that have no row any more."""
        async with self._database.transaction(
            deadline=time.monotonic() + _QUERY_S, read_only=True
        ) as connection:
            cursor = await connection.execute("SELECT records.blobs_known(%s)", (list(names),))
            known = {row[0] for row in await cursor.fetchall()}
        self.lost -= set(names) - known
        self.lost |= known & self.missing.keys()
        for name in names:
            for kept in (self.missing, self.damaged):
                size = kept.pop(name, None)
                if size is not None and name in known:
                    kept[name] = size

    def _lacks(self, name: str) -> bool:
        return name in self.missing or name in self.damaged

    def _found_damaged(self, row: Row) -> None:
        self.missing.pop(row.name, None)
        if row.name not in self.damaged:
            _log.error("blob %s is damaged on this machine", row.name)
            self.damaged[row.name] = row.stored_size

    def _forget(self, name: str) -> None:
        self.lost.discard(name)
        self.missing.pop(name, None)
        self.damaged.pop(name, None)

    async def _copied(self, names: list[str]) -> None:
        if self._host is None:
            return
        async with self._database.transaction(deadline=time.monotonic() + _QUERY_S) as connection:
            await connection.execute("SELECT records.blobs_copied(%s, %s)", (names, self._host))

    async def _page(self, beyond: str) -> list[Row]:
        return await self._rows("SELECT * FROM records.blobs_from(%s, %s)", (beyond, PAGE))

    async def _rows(self, query: LiteralString, values: tuple[object, ...]) -> list[Row]:
        async with self._database.transaction(
            deadline=time.monotonic() + _QUERY_S, read_only=True
        ) as connection:
            cursor = await connection.execute(query, values)
            return [Row(*row) for row in await cursor.fetchall()]

    async def _count_single(self) -> int:
        async with self._database.transaction(
            deadline=time.monotonic() + _QUERY_S, read_only=True
        ) as connection:
            cursor = await connection.execute("SELECT records.blobs_single()")
            row = await cursor.fetchone()
            return int(row[0]) if row else 0
