"""From credentials to a principal: the cell's tokens, API keys, or a hospital's own provider's.

A token needs no database: its signature says who, and whether the session was revoked is asked
every few seconds. While the database is away tokens pass on their signature and keys on what was
known; nothing of a patient can be read then, because that needs the database itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from deployments.data import scopes
from deployments.data.accounts.keys import hash_of, is_well_formed, looks_like_key
from deployments.data.accounts.openid import Identity, OpenIdProvider
from deployments.data.accounts.remembered import LOOKUP_S, Remembered
from deployments.data.accounts.tokens import MAX_TOKEN, Tokens, refused
from deployments.data.database import Database
from deployments.data.errors import (
    CommitUnknown,
    DataError,
    DeadlineExceeded,
    Forbidden,
    Invalid,
    StoreUnavailable,
)
from deployments.data.principal import Principal

_PAUSE_S = 0.1
MOST_KEYS = 1000

_SESSION = """
SELECT FROM accounts.session s JOIN accounts.account a ON a.id = s.account
WHERE s.id::text = %(session)s AND a.id::text = %(account)s AND s.revoked_at IS NULL
    AND s.ends_at > now() AND NOT a.disabled AND a.role = %(role)s
"""
# On the emergency cell a session of the site is not known; that its token is sound and its bearer
# enrolled is enough for the minutes that it lasts. One that was ended here is over.
_ENROLLED = """
SELECT FROM accounts.account a
WHERE a.id::text = %(account)s AND a.role = %(role)s AND a.emergency AND NOT a.disabled
    AND NOT EXISTS (SELECT FROM accounts.session s WHERE s.id::text = %(session)s
        AND (s.revoked_at IS NOT NULL OR s.ends_at <= now()))
"""
_KEY = """
SELECT uuid::text, organization, role, scopes, demo,
    coalesce(last_used_at < now() - interval '1 hour', true)
FROM accounts.api_key
WHERE hash = %s AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
"""
_KEYS = """
SELECT uuid::text, organization, role, scopes, demo, false, hash
FROM accounts.api_key
WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
ORDER BY last_used_at DESC NULLS LAST LIMIT %s
"""
_USED = """
UPDATE accounts.api_key SET last_used_at = now()
WHERE hash = %s AND coalesce(last_used_at < now() - interval '1 hour', true)
"""
_LINKED = """
SELECT id::text, organization, role, practitioner, demo FROM accounts.account
WHERE openid_sub = %s AND NOT disabled
"""


class Authority:
    """Decides who a caller is. For one event loop."""

    def __init__(
        self,
        tokens: Tokens,
        database: Database,
        provider: OpenIdProvider | None = None,
        *,
        demo: bool,
        emergency: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """With a `provider` its tokens are taken instead of the cell's own.

        Without `demo` the users and keys of a demo are worth nothing. In `emergency` the site's
        tokens are taken as well, of enrolled people alone.
        """
        self._demo, self._emergency = demo, emergency
        self._tokens, self._database, self._provider = tokens, database, provider

        def away() -> bool:
            return self._database.is_away

        self._sessions = Remembered[bool](is_away=away, must_know=False, clock=clock)
        self._keys = Remembered[Principal | None](is_away=away, clock=clock)
        self._links = Remembered[Principal | None](is_away=away, clock=clock)

    async def verify(self, token: str) -> Principal:
        """Whose credentials these are. Raises `Unauthenticated`, `Forbidden`, `StoreUnavailable`."""
        if not 0 < len(token) <= MAX_TOKEN:
            raise refused()
        who = await self._identified(token)
        if who.demo and not self._demo:
            raise refused()
        return who

    async def _identified(self, token: str) -> Principal:
        if looks_like_key(token):
            return await self._by_key(token)
        if self._provider is not None:
            return await self._by_provider(await self._provider.verify(token))
        return await self._by_session(self._tokens.verify(token))

    def session_ended(self, session: str) -> None:
        """Ask the database about a session the next time: it was ended."""
        self._sessions.forget(session)

    def changed(self) -> None:
        """Ask the database about everybody the next time: an account or a key was changed."""
        for remembered in (self._sessions, self._keys, self._links):
            remembered.doubt()

    async def _by_session(self, who: Principal) -> Principal:
        assert who.session is not None
        try:
            alive = await self._sessions.get(who.session, lambda: self._is_alive(who))
        except (StoreUnavailable, DeadlineExceeded, CommitUnknown):
            return who  # The signature alone, for the minutes that the token lasts.
        if not alive:
            raise refused()
        return who

    async def _is_alive(self, who: Principal) -> bool:
        async with self._database.transaction(
            deadline=time.monotonic() + LOOKUP_S, read_only=True
        ) as connection:
            values = {"session": who.session, "account": who.id, "role": who.role}
            cursor = await connection.execute(_ENROLLED if self._emergency else _SESSION, values)
            return await cursor.fetchone() is not None

    async def _by_key(self, text: str) -> Principal:
        if not is_well_formed(text):
            raise refused()
        digest = hash_of(text)
        who = await self._found(self._keys, digest.hex(), lambda: self._holder(digest))
        if who is None:
            raise refused()
        return who

    async def _found(
        self,
        remembered: Remembered[Principal | None],
        key: str,
        load: Callable[[], Awaitable[Principal | None]],
    ) -> Principal | None:
        """What only the database can tell: over its failover too, where it was never asked before."""
        until = time.monotonic() + self._database.failover_wait_s
        while True:
            try:
                return await remembered.get(key, load)
            except (StoreUnavailable, DeadlineExceeded):
                if time.monotonic() >= until:
                    raise
            await asyncio.sleep(_PAUSE_S)

    async def _holder(self, digest: bytes) -> Principal | None:
        deadline = time.monotonic() + LOOKUP_S
        async with self._database.transaction(deadline=deadline, read_only=True) as connection:
            row = await (await connection.execute(_KEY, [digest])).fetchone()
        if row is None or (who := _machine(row)) is None:
            return None
        if row[5]:
            await self._note_use(digest, deadline)
        return who

    async def learn_keys(self, *, deadline: float) -> int:
        """Know every key in force, so that a machine client is known here though it never came: after
        a failover of its cell and of the database at once. How many there are.

        Raises `DataError` while the database is away.
        """
        async with self._database.transaction(deadline=deadline, read_only=True) as connection:
            rows = await (await connection.execute(_KEYS, [MOST_KEYS])).fetchall()
        for *row, digest in rows:
            if (who := _machine(row)) is not None:
                self._keys.learn(bytes(digest).hex(), who)
        return len(rows)

    async def _note_use(self, digest: bytes, deadline: float) -> None:
        try:
            async with self._database.transaction(deadline=deadline, durable=False) as connection:
                await connection.execute(_USED, [digest])
        except DataError:
            return  # When it was last used is a convenience; the key itself was found.

    async def _by_provider(self, identity: Identity) -> Principal:
        who = await self._found(self._links, identity.sub, lambda: self._linked(identity.sub))
        if who is None:
            message = "No account here is linked to this identity: medrec user add --openid-sub."
            raise Forbidden(message, code="account_not_linked")
        # Both must say so: the account here, and the provider today.
        if who.role not in identity.roles:
            raise Forbidden("The provider does not give the account's role.", code="role_not_given")
        return Principal(
            id=who.id,
            kind="account",
            role=who.role,
            organization=who.organization,
            scopes=scopes.ROLE_SCOPES[who.role],
            practitioner=who.practitioner,
            methods=identity.methods,
            authenticated_at=identity.authenticated_at,
            demo=who.demo,
        )

    async def _linked(self, sub: str) -> Principal | None:
        async with self._database.transaction(
            deadline=time.monotonic() + LOOKUP_S, read_only=True
        ) as connection:
            row = await (await connection.execute(_LINKED, [sub])).fetchone()
        if row is None:
            return None
        return Principal(row[0], "account", row[2], row[1], frozenset(), row[3], demo=row[4])


def _machine(row: Sequence[Any]) -> Principal | None:
    """Whose a row of `_KEY` is; None if its scopes mean nothing here."""
    try:
        granted = scopes.parse(row[3])
    except Invalid:
        return None  # Written by another version: grants nothing that this one knows.
    return Principal(row[0], "key", row[2], row[1], granted, demo=row[4])
