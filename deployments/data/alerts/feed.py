"""The alerts' events in their order, to whoever is connected here: nothing twice, nothing left out.

A notice of the database wakes the feed, and it looks every two seconds anyway. Numbers are given in
the order in which they can be seen (migration 0008), so that going on after the last one misses
nothing, whichever server is the primary by then.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from datetime import UTC
from typing import Any, Protocol

import psycopg

from deployments.data import scopes
from deployments.data.alerts.alert import Alert, Event, Place, read_anyway
from deployments.data.alerts.people import Person
from deployments.data.alerts.statements import AFTER, AUDIENCE, HEAD, KNOWN, PAGE
from deployments.data.database import Database
from deployments.data.errors import DataError
from deployments.data.listener import Listener
from deployments.data.principal import Caller
from deployments.data.repeating import repeated
from deployments.data.seal.sealer import Sealer

Connection = psycopg.AsyncConnection[tuple[Any, ...]]

CHANNEL = "medrec_alerts"
POLL_S = 2.0
READ_S = 3.0
BATCH = 200
MAX_MISSED = 500
MAX_OPEN = 200
_LAST = 2**62
_log = logging.getLogger("medrec.alerts")


class Audience(Protocol):
    """Who is connected to this replica; see serve_app/alerts/hub.py. Nothing here waits."""

    def people(self, organization: str) -> Sequence[Person]:
        """Everybody connected of an organisation, each once."""

    def deliver(self, event: Event, people: Sequence[Person]) -> None:
        """An event, to those whom its alert calls."""

    def reached(self, organization: str, cursor: str) -> None:
        """Everything up to this place has been delivered."""

    def delayed(self) -> None:
        """Events cannot be read now; they come later."""

    def current(self) -> None:
        """Events are read again, and none was missed."""


@dataclass(frozen=True, slots=True)
class Opening:
    """What a stream begins with. `missed` follows the place that the client named, if it is known.

    `cursor` is the place after all of it; `more`: there are further open alerts to be listed.
    """

    seq: int
    cursor: str
    resumed: bool
    missed: tuple[Event, ...]
    open: tuple[Alert, ...]
    more: bool


class Feed:
    """Follows the events of the organisations that somebody here is connected for."""

    def __init__(self, database: Database, sealer: Sealer, audience: Audience) -> None:
        self._database, self._sealer, self._audience = database, sealer, audience
        self._listener = Listener(database.dsn, CHANNEL, heard=self._heard, back=self._wake)
        self._woken = asyncio.Event()
        self._reached: dict[str, int] = {}
        self._task: asyncio.Task[None] | None = None
        self._is_delayed = False

    async def start(self) -> None:
        """Begin to follow. Waits for no database."""
        self._listener.begin()
        self._task = asyncio.create_task(self._run(), name="alerts-feed")

    async def close(self) -> None:
        """Stop following."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await self._listener.end()

    async def follow(self, organization: str, deadline: float) -> None:
        """Follow an organisation from its last event on, unless that is done already.

        Whoever is to miss nothing enters the audience first, and reads its opening afterwards.
        """
        if organization not in self._reached:
            async with self._reading(organization, deadline) as connection:
                seq, _ = await _head(connection)
            self._reached.setdefault(organization, seq)

    @repeated
    async def opening(self, caller: Caller, person: Person, after: Place | None) -> Opening:
        """What a new stream of this caller begins with. Raises `DataError`s."""
        who = caller.principal
        async with self._reading(who.organization, caller.deadline) as connection:
            seq, cursor = await _head(connection)
            resumed = after is not None and await _knows(connection, after)
        async with self._database.transaction(
            deadline=caller.deadline,
            organization=who.organization,
            practitioner=person.practitioner,
            compartment=scopes.compartment(who),
            read_only=True,
        ) as connection:
            missed: list[Event] = []
            if resumed and after is not None:
                missed = await self._after(connection, after.seq, seq, MAX_MISSED + 1, person)
            values = (False, *person.words, None, None, None, MAX_OPEN + 1)
            rows = await (await connection.execute(PAGE, values)).fetchall()
        if len(missed) > MAX_MISSED:  # the open alerts alone say what matters now
            resumed, missed = False, []
        alerts = tuple(read_anyway(self._sealer, row) for row in rows[:MAX_OPEN])
        more = len(rows) > MAX_OPEN
        return Opening(seq, cursor, resumed, tuple(missed), alerts, more)

    def _heard(self, organization: str) -> None:
        if organization in self._reached:
            self._wake()

    def _wake(self) -> None:
        self._woken.set()

    async def _run(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await self._woken.wait()
            self._woken.clear()
            try:
                for organization in list(self._reached):
                    await self._advance(organization)
            except Exception as error:  # without this task nothing would be delivered any more
                self._away(error)
            else:
                self._is_delayed = self._is_delayed and self._back()

    def _away(self, error: Exception) -> None:
        if not self._is_delayed:
            level = logging.WARNING if isinstance(error, DataError) else logging.ERROR
            _log.log(level, "alerts are delayed: %s", type(error).__name__)
        self._is_delayed = True
        self._audience.delayed()

    def _back(self) -> bool:
        _log.info("alerts are delivered again")
        self._audience.current()
        return False

    async def _advance(self, organization: str) -> None:
        if not self._audience.people(organization):
            del self._reached[organization]
            return
        while True:
            after = self._reached[organization]
            async with self._reading(organization, time.monotonic() + READ_S) as connection:
                events = await self._after(connection, after, _LAST, BATCH, None)
                # Only now: who came while the events were read is to have them too.
                people = self._audience.people(organization)
                called = await _audience(connection, events, people)
                seq, cursor = await _head(connection) if not events else (0, events[-1].cursor)
            for event in events:
                self._audience.deliver(event, called.get(event.alert.id, ()))
            if not events and seq < after:
                # Another database, with fewer events: what is open there has been told by those
                # who connect anew; here it is followed from where it stands.
                _log.warning("the alerts of an organisation begin anew at %d, after %d", seq, after)
                self._reached[organization] = seq
            if events:
                self._reached[organization] = events[-1].seq
            self._audience.reached(organization, cursor)
            if len(events) < BATCH:
                return

    async def _after(
        self, connection: Connection, after: int, last: int, most: int, person: Person | None
    ) -> list[Event]:
        words = (None, None, None) if person is None else person.words
        values = (after, last, words[0], *words, most)
        rows = await (await connection.execute(AFTER, values)).fetchall()
        return [self._event(row) for row in rows]

    def _event(self, row: Sequence[Any]) -> Event:
        seq, id, kind, at, actor, role, level, *alert = row
        about = read_anyway(self._sealer, alert)
        return Event(seq, str(id), kind, at.astimezone(UTC), actor, role, level, about)

    def _reading(
        self, organization: str, deadline: float
    ) -> AbstractAsyncContextManager[Connection]:
        """A look at all events of an organisation: who is called is asked of each alert."""
        return self._database.transaction(
            deadline=deadline, organization=organization, compartment="all", read_only=True
        )


async def _head(connection: Connection) -> tuple[int, str]:
    """The last event's number, and the place after it."""
    row = await (await connection.execute(HEAD)).fetchone()
    return (0, "") if row is None else (row[0], f"{row[0]}.{row[1]}")


async def _knows(connection: Connection, place: Place) -> bool:
    found = await connection.execute(KNOWN, (place.seq, place.id))
    return await found.fetchone() is not None


async def _audience(
    connection: Connection, events: Sequence[Event], people: Sequence[Person]
) -> Mapping[str, Sequence[Person]]:
    """Whom each alert calls, of these people."""
    if not events:
        return {}
    columns = (
        [person.account for person in people],
        [person.practitioner for person in people],
        [person.role for person in people],
    )
    ids = list({event.alert.id for event in events})
    found: dict[str, list[Person]] = {}
    cursor = await connection.execute(AUDIENCE, (*columns, ids))
    for id, position in await cursor.fetchall():
        found.setdefault(str(id), []).append(people[position - 1])
    return found
