"""Sessions: opened by a sign-in, carried on by rotating refresh tokens, over when idle or old.

A refresh token is used once. One that comes a second time was copied, and nobody knows by whom:
the whole session ends (RFC 9700, section 4.14.2).
"""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from psycopg import AsyncConnection

from configs.args import SignIn
from deployments.data import scopes
from deployments.data.accounts.attempts import Attempts, Taken, too_many
from deployments.data.accounts.door import Door
from deployments.data.accounts.keys import hash_of
from deployments.data.accounts.origin import Journal, Origin
from deployments.data.accounts.tokens import Tokens
from deployments.data.database import Database
from deployments.data.errors import Forbidden, Invalid
from deployments.data.principal import Caller, Principal, Role
from deployments.data.repeating import repeated

Connection = AsyncConnection[tuple[Any, ...]]
# A client that refreshes in a loop must sign in again instead of filling the table.
MAX_REFRESHES = 4096
ACCOUNT_COLUMNS = (
    "a.id::text, a.organization, a.username, a.role, a.practitioner, a.disabled, a.demo,"
    " a.emergency"
)

_ALIVE = """s.revoked_at IS NULL AND s.ends_at > now() AND s.idle_until > now()
    AND NOT a.disabled AND s.refreshes < %(most)s"""
_FIND = f"""
SELECT t.used_at IS NOT NULL, ({_ALIVE}), s.id::text, s.scopes, s.methods,
    extract(epoch FROM s.signed_in_at)::float8, extract(epoch FROM s.ends_at)::float8,
    {ACCOUNT_COLUMNS}
FROM accounts.refresh_token t
JOIN accounts.session s ON s.id = t.session JOIN accounts.account a ON a.id = s.account
WHERE t.hash = %(hash)s FOR UPDATE OF t, s
"""
_OPEN = """
INSERT INTO accounts.session (id, account, address, methods, scopes, idle_until, ends_at)
VALUES (%(id)s, %(account)s, %(address)s, %(methods)s, %(scopes)s,
    now() + make_interval(secs => %(idle)s), now() + make_interval(secs => %(absolute)s))
RETURNING extract(epoch FROM signed_in_at)::float8, extract(epoch FROM ends_at)::float8
"""
_RENEW = """
UPDATE accounts.session SET refreshes = refreshes + 1,
    idle_until = now() + make_interval(secs => %(idle)s) WHERE id = %(session)s
"""
_REVOKE = "UPDATE accounts.session SET revoked_at = now() WHERE id = %s AND revoked_at IS NULL"
_STEP_UP = """
UPDATE accounts.session s SET signed_in_at = now(), methods = %s FROM accounts.account a
WHERE s.id = %s AND a.id = s.account AND s.revoked_at IS NULL AND s.ends_at > now()
    AND NOT a.disabled
RETURNING extract(epoch FROM s.signed_in_at)::float8, extract(epoch FROM s.ends_at)::float8
"""


@dataclass(frozen=True, slots=True)
class Account:
    """A person's account, as `ACCOUNT_COLUMNS` tell it."""

    id: str
    organization: str
    username: str
    role: Role
    practitioner: str | None
    disabled: bool
    demo: bool
    is_enrolled: bool

    def principal(self, granted: frozenset[str], methods: Sequence[str] = ()) -> Principal:
        """The account as a caller, without a session yet."""
        return Principal(
            id=self.id,
            kind="account",
            role=self.role,
            organization=self.organization,
            scopes=granted,
            practitioner=self.practitioner,
            methods=tuple(methods),
            demo=self.demo,
        )


@dataclass(frozen=True, slots=True)
class Opened:
    """A session that somebody has: who, until when, and the next refresh token."""

    principal: Principal
    ends_at: float
    refresh_token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Grant:
    """What a sign-in, refresh or step-up answers."""

    access_token: str = field(repr=False)
    expires_in: int
    scope: str
    refresh_token: str | None = field(default=None, repr=False)


class Sessions:
    """Opens, carries on and ends sessions."""

    def __init__(
        self,
        database: Database,
        tokens: Tokens,
        journal: Journal,
        settings: SignIn,
        door: Door | None = None,
    ) -> None:
        """`door` is the emergency cell's."""
        self._database, self._tokens, self._journal = database, tokens, journal
        self._settings, self._door = settings, door
        self._attempts = Attempts(settings)

    def granted(self, opened: Opened, asked: frozenset[str] | None = None) -> Grant:
        """An access token for a session, with no more scopes than `asked`."""
        who = opened.principal
        if asked is not None:
            who = replace(who, scopes=scopes.narrowed(who.scopes, asked))
        issued = self._tokens.issue(who, ends_at=opened.ends_at)
        text = scopes.text_of(who.scopes)
        return Grant(issued.token, issued.lifetime_s, text, opened.refresh_token)

    async def open(self, connection: Connection, who: Principal, origin: Origin) -> Opened:
        """A new session of a person who has just proved who they are."""
        session = uuid.uuid4()
        values = {
            "id": session,
            "account": who.id,
            "address": origin.network,
            "methods": list(who.methods),
            "scopes": scopes.text_of(who.scopes),
            "idle": self._settings.session_idle_s,
            "absolute": self._settings.session_absolute_s,
        }
        row = await (await connection.execute(_OPEN, values)).fetchone()
        assert row is not None
        token = await self._next_token(connection, session)
        who = replace(who, session=str(session), authenticated_at=row[0])
        return Opened(who, row[1], token)

    async def refresh(self, token: str, asked: frozenset[str] | None, origin: Origin) -> Grant:
        """The next access and refresh token. Raises `Invalid` (`invalid_grant`) or `TooMany`."""
        who, opened, reason, taken = await self._renewed(origin, token)
        if taken is not None and taken.wait_s > 0 and not taken.is_first:
            raise too_many(taken.wait_s)
        if opened is None:
            await self._journal.journal(origin.entry("refresh", "denied", who, reason=reason))
            raise Invalid("The refresh token is not valid, or not any more.", code="invalid_grant")
        grant = self.granted(opened, asked)
        details = {"session": opened.principal.session}
        await self._journal.journal(origin.entry("refresh", "success", who, **details))
        return grant

    @repeated
    async def _renewed(
        self, origin: Origin, token: str
    ) -> tuple[Principal | None, Opened | None, str, Taken | None]:
        """As `_turned`, and how long an address that comes with unknown tokens has to wait."""
        async with self._database.transaction(deadline=origin.deadline) as connection:
            who, opened, reason = await self._turned(connection, token, origin)
            taken = await self._attempts.take(connection, origin) if who is None else None
        return who, opened, reason, taken

    @repeated
    async def end(self, caller: Caller, session: str) -> None:
        """Revoke a session; its tokens are worth nothing from now on."""
        async with self._database.transaction(deadline=caller.deadline) as connection:
            await connection.execute(_REVOKE, [session])

    async def step_up(
        self, connection: Connection, who: Principal, methods: Sequence[str]
    ) -> Opened:
        """The session, as signed in now. Raises `Forbidden` if it is over."""
        row = None
        if who.session is not None:
            cursor = await connection.execute(_STEP_UP, [list(methods), who.session])
            row = await cursor.fetchone()
        if row is None:
            raise Forbidden("This session is over: sign in again.", code="session_ended")
        return Opened(replace(who, methods=tuple(methods), authenticated_at=row[0]), row[1])

    async def _turned(
        self, connection: Connection, token: str, origin: Origin
    ) -> tuple[Principal | None, Opened | None, str]:
        """Whose token it is, the session if it goes on, and the reason if it does not."""
        values = {"hash": hash_of(token), "most": MAX_REFRESHES}
        row = await (await connection.execute(_FIND, values)).fetchone()
        if row is None:
            return None, None, "unknown-token"
        used, alive, session, granted, methods, signed_in_at, ends_at, *columns = row
        account = Account(*columns)
        # The role's scopes of today bound what the session was given at its start.
        now_granted = scopes.narrowed(scopes.ROLE_SCOPES[account.role], scopes.parse(granted))
        who = replace(
            account.principal(now_granted, methods), session=session, authenticated_at=signed_in_at
        )
        if used:
            await connection.execute(_REVOKE, [session])
            return who, None, "token-used-twice"
        if not alive:
            return who, None, "session-ended"
        if self._door is not None:
            name, enrolled = account.username, account.is_enrolled
            if refused := self._door.refusal(name, origin, is_enrolled=enrolled):
                return who, None, refused.code
        await connection.execute(
            "UPDATE accounts.refresh_token SET used_at = now() WHERE hash = %(hash)s", values
        )
        await connection.execute(
            _RENEW, {"idle": self._settings.session_idle_s, "session": session}
        )
        return who, Opened(who, ends_at, await self._next_token(connection, session)), ""

    async def _next_token(self, connection: Connection, session: str | uuid.UUID) -> str:
        token = "rt_" + secrets.token_urlsafe(32)
        await connection.execute(
            "INSERT INTO accounts.refresh_token (hash, session) VALUES (%s, %s)",
            [hash_of(token), session],
        )
        return token
