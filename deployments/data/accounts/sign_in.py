"""Signing in with a password, stepping up, changing the password, signing out."""

from __future__ import annotations

import unicodedata
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from psycopg import AsyncConnection

from configs.args import SignIn
from deployments.data import scopes
from deployments.data.accounts import passwords
from deployments.data.accounts.attempts import Attempts, Taken, subject_of, too_many
from deployments.data.accounts.door import Door
from deployments.data.accounts.origin import Journal, Origin
from deployments.data.accounts.passwords import Hashing
from deployments.data.accounts.sessions import ACCOUNT_COLUMNS, Account, Grant, Opened, Sessions
from deployments.data.audit.entry import entry_of
from deployments.data.database import Database
from deployments.data.errors import Forbidden, Invalid, NotFound, TooMany
from deployments.data.principal import Caller, Principal
from deployments.data.repeating import repeated

Connection = AsyncConnection[tuple[Any, ...]]
PASSWORD = ("pwd",)

_BY_NAME = f"""
SELECT {ACCOUNT_COLUMNS}, a.password_hash, EXISTS (
    SELECT FROM accounts.session s WHERE s.account = a.id AND s.address = %(address)s
        AND s.started_at > now() - interval '30 days')
FROM accounts.account a WHERE {{where}}
"""


@dataclass(frozen=True, slots=True)
class _Found:
    """What an attempt is about: an account or none, its hash, and the counter that judges it.

    `reason` is what goes on record if it has to wait; nothing does if it is empty.
    """

    account: Account | None
    hash: str | None
    subject: bytes
    wait_s: float
    reason: str = "locked"


class SignIns:
    """Everything that begins with a password."""

    def __init__(
        self,
        database: Database,
        sessions: Sessions,
        hashing: Hashing,
        journal: Journal,
        settings: SignIn,
        door: Door | None = None,
    ) -> None:
        """`door` is the emergency cell's: who comes in there, and how many."""
        self._door = door
        self._database, self._sessions, self._hashing = database, sessions, hashing
        self._journal = journal
        self._attempts = Attempts(settings)

    async def by_password(
        self, username: str, password: str, asked: frozenset[str] | None, origin: Origin
    ) -> Grant:
        """A session of the person. Raises `Invalid` (`invalid_grant`, `bad_scope`) or `TooMany`.

        Unknown, wrong, disabled: one answer, after one time. In an emergency also `Forbidden`.
        """
        found = await self._found(origin, unicodedata.normalize("NFC", username))
        await self._refuse_if_waiting(found, origin, "sign-in")
        await self._refuse_at_door(found, username, password, origin)
        right = await self._hashing.verify(password, found.hash, deadline=origin.deadline)
        account = found.account
        if account is None or account.disabled or not right:
            reason = "disabled" if account is not None and account.disabled and right else "wrong"
            await self._failed(found, origin, "sign-in", reason)
            raise Invalid("The name or the password is not right.", code="invalid_grant")
        granted = scopes.ROLE_SCOPES[account.role]
        if asked is not None:
            granted = scopes.narrowed(granted, asked)
            if not granted:
                raise Invalid("None of these scopes is this role's.", code="bad_scope")
        who = account.principal(granted, PASSWORD)
        try:
            opened = await self._opened(origin, found, who)
        except TooMany as error:
            if error.code == "emergency_full":
                await self._journal.journal(
                    origin.entry("sign-in", "denied", who, reason=error.code)
                )
            raise
        entry = origin.entry("sign-in", "success", who, **_details(opened.principal))
        await self._journal.journal(entry)
        return self._sessions.granted(opened)

    async def step_up(self, caller: Caller, password: str) -> Grant:
        """A fresh access token of the same session. Raises `Forbidden` or `TooMany`."""
        origin = Origin.of(caller)
        found = await self._found_again(origin, caller)
        await self._refuse_if_waiting(found, origin, "step-up")
        right = await self._hashing.verify(password, found.hash, deadline=origin.deadline)
        if found.account is None or found.account.disabled or not right:
            await self._failed(found, origin, "step-up", "wrong")
            raise Forbidden("The password is not right.", code="wrong_password")
        opened = await self._renewed(origin, found, caller.principal)
        return await self.stepped_up(caller, opened)

    async def stepped_up(self, caller: Caller, opened: Opened) -> Grant:
        """Put a step-up on record, whatever proved it, and answer it."""
        methods = list(opened.principal.methods)
        await self._journal.journal(entry_of(caller, "step-up", methods=methods))
        return self._sessions.granted(opened)

    async def change_password(self, caller: Caller, password: str) -> None:
        """Set a new password and end every other session of the person. Raises `Invalid`."""
        username = await self.username(caller)
        stored = await self._hashing.hash(
            passwords.checked(password, username), deadline=caller.deadline
        )
        await self._password_set(caller, stored)
        await self._journal.journal(entry_of(caller, "password-changed"))

    @repeated
    async def _password_set(self, caller: Caller, stored: str) -> None:
        who = caller.principal
        async with self._database.transaction(deadline=caller.deadline) as connection:
            await connection.execute(
                "UPDATE accounts.account SET password_hash = %s, password_changed_at = now()"
                " WHERE id = %s",
                [stored, who.id],
            )
            await connection.execute(
                "UPDATE accounts.session SET revoked_at = now() WHERE account = %s"
                " AND revoked_at IS NULL AND id IS DISTINCT FROM %s",
                [who.id, who.session],
            )

    async def sign_out(self, caller: Caller) -> None:
        """End the caller's session."""
        session = caller.principal.session
        if session is None:
            raise Forbidden("There is no session here to end.", code="no_session")
        await self._sessions.end(caller, session)
        await self._journal.journal(entry_of(caller, "sign-out", session=session))

    @repeated
    async def username(self, caller: Caller) -> str:
        """The name that a signed-in person goes by. Raises `NotFound` for machines."""
        async with self._database.transaction(
            deadline=caller.deadline, read_only=True
        ) as connection:
            cursor = await connection.execute(
                "SELECT username FROM accounts.account WHERE id::text = %s", [caller.principal.id]
            )
            row = await cursor.fetchone()
        if row is None:
            raise NotFound("These credentials are no person's.", code="no_account")
        return str(row[0])

    @repeated
    async def _found(self, origin: Origin, username: str) -> _Found:
        where = "lower(a.username) = lower(%(name)s)"
        async with self._database.transaction(
            deadline=origin.deadline, durable=False
        ) as connection:
            taken = await self._attempts.take(connection, origin)
            return await self._looked_up(connection, where, username, origin, taken)

    @repeated
    async def _found_again(self, origin: Origin, caller: Caller) -> _Found:
        async with self._database.transaction(
            deadline=origin.deadline, durable=False
        ) as connection:
            taken = await self._attempts.take(connection, origin)
            name = caller.principal.id
            return await self._looked_up(connection, "a.id::text = %(name)s", name, origin, taken)

    async def _looked_up(
        self, connection: Connection, where: str, name: str, origin: Origin, taken: Taken
    ) -> _Found:
        values = {"name": name, "address": origin.network}
        row = await (await connection.execute(_BY_NAME.format(where=where), values)).fetchone()
        account = Account(*row[:-2]) if row else None
        known = bool(row and row[-1])
        subject = subject_of(account.username if account else name, origin, known=known)
        if taken.wait_s > 0:
            reason = "address" if taken.is_first else ""
            return _Found(account, None, subject, taken.wait_s, reason)
        locked_s = await self._attempts.locked_s(connection, subject)
        return _Found(account, row[-2] if row else None, subject, locked_s)

    async def _refuse_if_waiting(self, found: _Found, origin: Origin, action: str) -> None:
        if found.wait_s > 0:
            if found.reason:
                who = found.account.principal(frozenset()) if found.account else None
                entry = origin.entry(action, "denied", who, reason=found.reason)
                await self._journal.journal(entry)
            raise too_many(found.wait_s)

    async def _refuse_at_door(
        self, found: _Found, username: str, password: str, origin: Origin
    ) -> None:
        """Raise what the emergency's door says, once it is on record."""
        if self._door is None:
            return
        account = found.account
        name = account.username if account else username
        enrolled = account is not None and account.is_enrolled
        refusal = self._door.refusal(name, origin, is_enrolled=enrolled, password=password)
        if refusal is not None:
            who = account.principal(frozenset()) if account else None
            await self._journal.journal(origin.entry("sign-in", "denied", who, reason=refusal.code))
            raise refusal

    @repeated
    async def _opened(self, origin: Origin, found: _Found, who: Principal) -> Opened:
        async with self._unlocked(found, origin, "sign-in") as connection:
            if self._door is not None:
                await self._door.take_place(connection, who.id)
            return await self._sessions.open(connection, who, origin)

    @repeated
    async def _renewed(self, origin: Origin, found: _Found, who: Principal) -> Opened:
        async with self._unlocked(found, origin, "step-up") as connection:
            return await self._sessions.step_up(connection, who, PASSWORD)

    @repeated
    async def _counted(self, origin: Origin, found: _Found) -> None:
        async with self._database.transaction(
            deadline=origin.deadline, durable=False
        ) as connection:
            await self._attempts.failed(connection, found.subject)

    async def _failed(self, found: _Found, origin: Origin, action: str, reason: str) -> None:
        await self._counted(origin, found)
        who = found.account.principal(frozenset()) if found.account else None
        await self._journal.journal(origin.entry(action, "denied", who, reason=reason))

    @asynccontextmanager
    async def _unlocked(
        self, found: _Found, origin: Origin, action: str
    ) -> AsyncIterator[Connection]:
        """A transaction of a right password that forgets the failures before it.

        Of guesses that run at once none is told right once the last one allowed has failed.
        """
        async with self._database.transaction(deadline=origin.deadline) as connection:
            found = replace(found, wait_s=await self._attempts.locked_s(connection, found.subject))
            await self._refuse_if_waiting(found, origin, action)
            await self._attempts.succeeded(connection, found.subject)
            yield connection


def _details(who: Principal) -> dict[str, Sequence[str] | str | None]:
    return {"session": who.session, "methods": list(who.methods)}
