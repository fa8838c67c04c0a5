"""`GET /v1/alerts/stream`: one client's alerts as they happen, and its acknowledgements.

A stream ends by itself: with its token, with its session, when its client is too slow, and after
the longest time for a request at the latest, so that a replica that leaves is not held up.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import orjson
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from deployments.data.alerts.alert import Place, place_of
from deployments.data.alerts.alerts import Alerts
from deployments.data.alerts.feed import Feed, Opening
from deployments.data.alerts.people import person_of
from deployments.data.errors import DataError, Forbidden, Invalid, Unauthenticated, Unsupported
from deployments.data.principal import Caller
from serve_app.alerts.hub import CLOSE_RESTART, CLOSE_SLOW, Closing, Hub, Item, Outbox, now
from serve_app.alerts.shapes import message_of, shown
from serve_app.auth.guard import Authority, bearer_of, caller_of

PROTOCOL = "medrec.alerts"
HEARTBEAT_S = 15.0
VERIFY_S = 5.0
SEND_S = 10.0
CLOSE_S = 5.0
RECORD_S = 5.0
RETRY_S = 1.0
MAX_MESSAGE = 4096
# A person acknowledges; a client that sends more than this is broken.
MAX_MESSAGES, MESSAGES_S = 30, 10.0
TOGETHER = 32

CLOSE_GONE, CLOSE_POLICY, CLOSE_LARGE, CLOSE_ERROR = 1000, 1008, 1009, 1011
_log = logging.getLogger("medrec.alerts")


class Streams:
    """Serves streams; one for each API replica."""

    def __init__(
        self,
        alerts: Alerts,
        feed: Feed,
        hub: Hub,
        authority: Authority,
        *,
        lasts_s: float,
        deadline_s: float,
    ) -> None:
        """`lasts_s` is the longest that a stream lasts, `deadline_s` the longest for one act."""
        self.alerts, self.feed, self.hub, self.authority = alerts, feed, hub, authority
        self.lasts_s, self.deadline_s = lasts_s, deadline_s

    async def serve(self, websocket: WebSocket) -> None:
        """The whole life of a stream. What is raised before the first message becomes a status."""
        caller = caller_of(websocket.scope)
        person = person_of(caller.principal)
        after = _after(websocket)
        with self.hub.entered(caller.principal.organization, person) as outbox:
            await self.feed.follow(caller.principal.organization, caller.deadline)
            opening = await self.feed.opening(caller, person, after)
            seen = [*(event.alert for event in opening.missed), *opening.open]
            await self.alerts.shown(caller, seen, via="stream")
            offered = websocket.scope.get("subprotocols") or ()
            await websocket.accept(subprotocol=PROTOCOL if PROTOCOL in offered else None)
            stream = Stream(self, websocket, caller, outbox, opening)
            closing = await stream.run()
        # Its place is free by now: a slow client gets some more time to be told why.
        await stream.close(closing)


class Stream:
    """One client's stream, once it is accepted."""

    def __init__(
        self,
        house: Streams,
        websocket: WebSocket,
        caller: Caller,
        outbox: Outbox,
        opening: Opening,
    ) -> None:
        self._house, self._websocket, self._caller = house, websocket, caller
        self._outbox, self._opening = outbox, opening
        self._token = bearer_of(websocket.scope)
        self._received: list[float] = []
        if not outbox.reached:
            outbox.reached = opening.cursor

    async def run(self) -> Closing:
        """Until one of its sides ends it; returns why."""
        sides = [
            asyncio.ensure_future(side)
            for side in (self._send(), self._receive(), self._keep(), self._outbox.closing)
        ]
        try:
            await asyncio.wait(sides, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for side in sides:
                side.cancel()
            ended = await asyncio.gather(*sides, return_exceptions=True)
        return _reason(ended)

    async def _send(self) -> Closing:
        """The only side that writes. Returns when the client takes nothing any more."""
        try:
            for message in _beginning(self._opening):
                await self._write(message)
            while True:
                items = [await self._outbox.items.get()]
                while len(items) < TOGETHER and not self._outbox.items.empty():
                    items.append(self._outbox.items.get_nowait())
                # What the opening told already is not told again.
                items = [i for i in items if i.seq is None or i.seq > self._opening.seq]
                await self._record(items)
                for item in items:
                    await self._write(item.text)
        except TimeoutError:
            return Closing(CLOSE_SLOW, "too_slow")
        except (WebSocketDisconnect, RuntimeError):
            return Closing(CLOSE_GONE, "gone")

    async def _write(self, text: str) -> None:
        async with asyncio.timeout(SEND_S):
            await self._websocket.send_text(text)

    async def _record(self, items: Sequence[Item]) -> None:
        """On record before it is shown; while the chain is away, alerts wait and the client is told."""
        alerts = [item.alert for item in items if item.alert is not None]
        while alerts:
            try:
                await self._house.alerts.shown(self._acting(RECORD_S), alerts, via="stream")
                return
            except DataError:
                if not self._outbox.is_delayed:
                    self._outbox.is_delayed = True
                    await self._write(_text({"type": "delayed", "server_time": now()}))
                await asyncio.sleep(RETRY_S)

    async def _receive(self) -> Closing:
        while True:
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                return Closing(CLOSE_GONE, "gone")
            data = message.get("text") or message.get("bytes") or ""
            if len(data) > MAX_MESSAGE:
                return Closing(CLOSE_LARGE, "message_too_large")
            if self._is_flood():
                return Closing(CLOSE_POLICY, "too_many_messages")
            self._outbox.tell(await self._answered(data))

    async def _answered(self, data: str | bytes) -> dict[str, Any]:
        """What a client's message leads to; the event itself comes as every event does."""
        id: str | None = None
        try:
            asked = _asked(data)
            if asked.get("type") == "ping":
                return {"type": "pong", "server_time": now()}
            id = str(asked["id"])
            acting = self._acting(self._house.deadline_s)
            alert = await self._house.alerts.acknowledge(acting, id)
        except DataError as error:
            answer = {"type": "error", "code": error.code, "message": error.message}
            return answer if id is None else {**answer, "id": id}
        return {"type": "confirmed", "id": id, "alert": shown(alert).model_dump(mode="json")}

    async def _keep(self) -> Closing:
        """Heartbeats, and a look at the credentials every few seconds."""
        began = beat = time.monotonic()
        while True:
            await asyncio.sleep(min(VERIFY_S, HEARTBEAT_S))
            if closing := await self._doubted():
                return closing
            moment = time.monotonic()
            if moment - began >= self._house.lasts_s:
                return Closing(CLOSE_RESTART, "connect_again")
            if moment - beat >= HEARTBEAT_S:
                beat = moment
                place = self._outbox.reached
                self._outbox.tell({"type": "heartbeat", "server_time": now(), "cursor": place})

    async def _doubted(self) -> Closing | None:
        try:
            who = await self._house.authority.verify(self._token)
        except (Unauthenticated, Forbidden) as error:
            return Closing(CLOSE_POLICY, error.code)
        except DataError:
            return None  # Nobody can say now; what can be seen needs the same database.
        if who.scopes != self._caller.principal.scopes:
            return Closing(CLOSE_POLICY, "rights_changed")
        return None

    def _is_flood(self) -> bool:
        moment = time.monotonic()
        self._received = [at for at in self._received if moment - at < MESSAGES_S] + [moment]
        return len(self._received) > MAX_MESSAGES

    def _acting(self, seconds: float) -> Caller:
        return replace(self._caller, deadline=time.monotonic() + seconds, idempotency_key=None)

    async def close(self, closing: Closing) -> None:
        """Tell the client why its stream ends, if it is still there to be told."""
        if closing.code == CLOSE_GONE or self._websocket.client_state != WebSocketState.CONNECTED:
            return
        _log.info("stream %s ends: %s", self._caller.request_id, closing.reason)
        with suppress(TimeoutError, WebSocketDisconnect, RuntimeError):
            async with asyncio.timeout(CLOSE_S):
                await self._websocket.close(closing.code, closing.reason)


def _reason(ended: Sequence[Closing | BaseException]) -> Closing:
    """The first reason of the sides; a side that failed is our own fault."""
    for end in ended:
        if isinstance(end, Closing):
            return end
    for end in ended:
        if isinstance(end, Exception):
            _log.error("a stream failed: %s", type(end).__name__)
    return Closing(CLOSE_ERROR, "internal_error")


def _beginning(opening: Opening) -> list[str]:
    hello = {
        "type": "hello",
        "server_time": now(),
        "cursor": opening.cursor,
        "resumed": opening.resumed,
    }
    alerts = [shown(alert).model_dump(mode="json") for alert in opening.open]
    return [
        _text(hello),
        *(_text(message_of(event)) for event in opening.missed),
        _text({"type": "open", "alerts": alerts, "more": opening.more}),
    ]


def _after(websocket: WebSocket) -> Place | None:
    """The query's `after`. Raises `Unsupported` and `Invalid` for anything else."""
    given = websocket.query_params.multi_items()
    if [name for name, _ in given if name != "after"]:
        raise Unsupported("This parameter is not offered.")
    if not given:
        return None
    if len(given) > 1:
        raise Invalid("A parameter is given more than once.", param="after")
    if not given[0][1]:
        return None
    place = place_of(given[0][1])
    if place is None:
        raise Invalid("This is no cursor of an alert stream.", param="after")
    return place


def _asked(data: str | bytes) -> dict[str, Any]:
    """A message of a client. Raises `Invalid`, which quotes nothing of it."""
    try:
        asked = orjson.loads(data)
    except ValueError:
        raise Invalid("A message is a JSON object.", code="invalid_json") from None
    if not isinstance(asked, dict) or asked.get("type") not in ("acknowledge", "ping"):
        raise Unsupported("A message is of the type acknowledge or ping.", code="unknown_type")
    if asked["type"] == "acknowledge" and not isinstance(asked.get("id"), str):
        raise Invalid("An acknowledgement names an alert's id.", param="id")
    return asked


def _text(message: dict[str, Any]) -> str:
    return orjson.dumps(message).decode()
