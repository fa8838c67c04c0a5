"""Who is connected to this replica's alert stream, and the way to tell them something.

`Hub.broadcast` is for what concerns everybody: `hub.broadcast({"type": "mode.changed", …})`.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson
from ray.util.metrics import Counter as Count
from ray.util.metrics import Gauge

from deployments.data.alerts.alert import Alert, Event
from deployments.data.alerts.people import Person
from deployments.data.errors import TooMany
from serve_app.alerts.shapes import message_of
from serve_app.errors import NotReady

QUEUE = 256
# What a client may leave unread besides before it counts as slow: see stream.SEND_S.
CLOSE_RESTART, CLOSE_SLOW = 1012, 1013


@dataclass(frozen=True, slots=True)
class Closing:
    """Why a stream ends: a code of RFC 6455 or IANA's list, and a word for programs."""

    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class Item:
    """One message that waits to be sent; `seq` is None for what is no event of an alert."""

    text: str = field(repr=False)
    seq: int | None = None
    alert: Alert | None = None


class Outbox:
    """What waits for one client: bounded, and full means that the client is too slow."""

    def __init__(self, organization: str, person: Person) -> None:
        self.organization, self.person = organization, person
        self.items: asyncio.Queue[Item] = asyncio.Queue(QUEUE)
        self.closing: asyncio.Future[Closing] = asyncio.get_running_loop().create_future()
        # A place to go on after, once everything that waits has been sent.
        self.reached = ""
        self.is_delayed = False

    def put(self, item: Item) -> None:
        """Queue a message; nobody waits for a slow client."""
        try:
            self.items.put_nowait(item)
        except asyncio.QueueFull:
            self.close(Closing(CLOSE_SLOW, "too_slow"))

    def tell(self, message: Mapping[str, Any]) -> None:
        """Queue a message that is no alert."""
        self.put(Item(orjson.dumps(message).decode()))

    def close(self, closing: Closing) -> None:
        """End the stream; the first reason counts."""
        if not self.closing.done():
            self.closing.set_result(closing)


class Hub:
    """Every stream of this replica; one event loop."""

    def __init__(self, *, max_streams: int, max_per_person: int) -> None:
        self._max_streams, self._max_per_person = max_streams, max_per_person
        self._outboxes: set[Outbox] = set()
        self._persons: Counter[str] = Counter()
        self._is_closed = False
        self._gauge = Gauge("medrec_alert_streams", "Open alert streams of a replica.", ())
        self._told = Count(
            "medrec_alert_messages", "Events of alerts given to streams, by kind.", ("kind",)
        )

    async def start(self) -> None:
        """Take streams."""
        self._is_closed = False

    async def close(self) -> None:
        """Ask every client to come again, elsewhere."""
        self._is_closed = True
        for outbox in self._outboxes:
            outbox.close(Closing(CLOSE_RESTART, "restart"))

    @contextmanager
    def entered(self, organization: str, person: Person) -> Iterator[Outbox]:
        """A place among the streams. Raises `NotReady` and `TooMany` where there is none."""
        if self._is_closed:
            raise NotReady("This replica is stopping.")
        if len(self._outboxes) >= self._max_streams:
            message = "This replica has as many alert streams as it takes."
            raise NotReady(message, code="too_many_streams", retry_after_s=1.0)
        if self._persons[person.account] >= self._max_per_person:
            message = f"One account has {self._max_per_person} alert streams here at most."
            raise TooMany(message, code="too_many_streams", retry_after_s=5.0)
        outbox = Outbox(organization, person)
        self._outboxes.add(outbox)
        self._persons[person.account] += 1
        self._gauge.set(len(self._outboxes))
        try:
            yield outbox
        finally:
            self._outboxes.discard(outbox)
            self._persons[person.account] -= 1
            self._persons += Counter()  # forgets those at zero
            self._gauge.set(len(self._outboxes))

    def broadcast(self, message: Mapping[str, Any]) -> int:
        """Tell everybody connected here, with the server's time; returns how many they are."""
        text = orjson.dumps({**message, "server_time": now()}).decode()
        for outbox in self._outboxes:
            outbox.put(Item(text))
        return len(self._outboxes)

    def people(self, organization: str) -> Sequence[Person]:
        """See feed.Audience."""
        return list({each.person for each in self._outboxes if each.organization == organization})

    def deliver(self, event: Event, people: Sequence[Person]) -> None:
        """See feed.Audience."""
        called = set(people)
        item: Item | None = None
        for outbox in self._outboxes:
            if outbox.organization == event.alert.organization and outbox.person in called:
                if item is None:
                    text = orjson.dumps(message_of(event)).decode()
                    item = Item(text, event.seq, event.alert)
                outbox.put(item)
                self._told.inc(1, {"kind": event.kind})

    def reached(self, organization: str, cursor: str) -> None:
        """See feed.Audience."""
        for outbox in self._outboxes:
            if outbox.organization == organization:
                outbox.reached = cursor

    def delayed(self) -> None:
        """See feed.Audience."""
        self._say_delayed(True)

    def current(self) -> None:
        """See feed.Audience."""
        self._say_delayed(False)

    def _say_delayed(self, delayed: bool) -> None:
        message = {"type": "delayed" if delayed else "current", "server_time": now()}
        for outbox in self._outboxes:
            if outbox.is_delayed != delayed:
                outbox.is_delayed = delayed
                outbox.tell(message)


def now() -> str:
    """The server's time, as messages tell it."""
    return datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="milliseconds")
