"""The one place where the table of capabilities is enforced: before credentials, before any route.

The emergency's people are checked behind the credentials: enrolled ones alone, each on the device
that bears their name.
"""

from __future__ import annotations

import time
from datetime import timedelta

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.data.accounts.door import Door
from deployments.data.accounts.origin import Origin
from deployments.data.accounts.remembered import LOOKUP_S, Remembered
from deployments.data.database import Database
from deployments.data.emergency.standing import Standing
from deployments.data.errors import DataError, Unauthenticated
from deployments.data.principal import Caller
from deployments.edge.modes import Decision, capability_of, decide
from serve_app.auth.guard import CALLER, origin_of

HEADER = b"x-medrec-mode"
_POLICY_VIOLATION = 1008
_NOT_ACTIVE_RETRY_S = 30.0


class Refused(DataError):
    """Nobody's fault: this mode does not do it; the message says what, and when it is back."""

    status = 403
    code = "not_in_emergency"
    issue = "not-supported"


class NotActive(Refused):
    """The operator's concern: the emergency cell is asked although the site serves."""

    status = 503
    code = "emergency_not_active"
    issue = "transient"


class ModeHeader:
    """ASGI middleware: every answer says which mode gave it."""

    def __init__(self, app: ASGIApp, *, standing: Standing) -> None:
        self.app = app
        self._header = (HEADER, standing.mode.encode("ascii"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_mode(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.accept"):
                message["headers"] = [*message.get("headers", ()), self._header]
            await send(message)

        wanted = scope["type"] in ("http", "websocket")
        await self.app(scope, receive, send_with_mode if wanted else send)


class ModeGate:
    """ASGI middleware: what the mode does not do is refused by name."""

    def __init__(self, app: ASGIApp, *, standing: Standing, estimate_s: float) -> None:
        self.app = app
        self._standing, self._estimate_s = standing, estimate_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        method = scope["method"] if kind == "http" else "GET"
        mode, path = self._standing.mode, scope["path"]
        # A probe must not wait for the database, which the state is asked of.
        waits = mode == "emergency" and not capability_of(method, path).standby
        found = decide(mode, await self._standing.state() if waits else "standby", method, path)
        if found.permitted:
            await self.app(scope, receive, send)
        elif kind == "websocket":
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
        else:
            raise await self._refusal(found)

    async def _refusal(self, found: Decision) -> Refused:
        if found.code == NotActive.code:
            return NotActive(found.reason, retry_after_s=_NOT_ACTIVE_RETRY_S)
        message = found.reason
        activation = await self._standing.last()
        if activation is not None and found.code == Refused.code:
            back = activation.activated_at + timedelta(seconds=self._estimate_s)
            message += f" It is expected back at {back.isoformat(timespec='minutes')}."
        return Refused(message, code=found.code)


_ENROLLED = (
    "SELECT username FROM accounts.account WHERE id::text = %s AND emergency AND NOT disabled"
)


class EnrolledOnly:
    """ASGI middleware of an emergency cell, behind the credentials: whose they are, on which device."""

    def __init__(self, app: ASGIApp, *, database: Database, door: Door) -> None:
        self.app = app
        self._database, self._door = database, door
        self._names: Remembered[str | None] = Remembered()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller = scope.get(CALLER)
        if isinstance(caller, Caller):
            refusal = await self._refusal(caller, scope)
            if refusal is not None and scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
                return
            if refusal is not None:
                raise refusal
        await self.app(scope, receive, send)

    async def _refusal(self, caller: Caller, scope: Scope) -> DataError | None:
        who = caller.principal
        if who.kind != "account":
            return Refused("In an emergency people are served, not machines.", code="not_a_person")
        try:
            name = await self._names.get(who.id, lambda: self._name(who.id))
        except DataError as error:
            return error
        if name is None:
            return Unauthenticated(
                "This user is not enrolled for emergencies.", code="not_enrolled"
            )
        origin: Origin = origin_of(scope)
        return self._door.refusal(name, origin, is_enrolled=True)

    async def _name(self, account: str) -> str | None:
        deadline = time.monotonic() + LOOKUP_S
        async with self._database.transaction(deadline=deadline, read_only=True) as connection:
            row = await (await connection.execute(_ENROLLED, [account])).fetchone()
        return None if row is None else str(row[0])
