"""What operators do to accounts and keys, on record before it is reported: `medrec user`, `key`.

Only the owner's role can: the API cannot make itself an account. Every act commits together with
its audit entry and is in the chain when it returns.
"""

from __future__ import annotations

import time
import unicodedata
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import errors

from deployments.data import scopes
from deployments.data.accounts import keys, passwords
from deployments.data.audit.operator import Operator, operator_audit
from deployments.data.database import Database
from deployments.data.errors import Conflict, Invalid, NotFound
from deployments.data.places import Places
from deployments.data.principal import ROLES, Role

DEADLINE_S = 15.0
Connection = psycopg.AsyncConnection[tuple[Any, ...]]
_REVOKE_SESSIONS = (
    "UPDATE accounts.session SET revoked_at = now() WHERE account = %s AND revoked_at IS NULL"
)


@dataclass(frozen=True, slots=True)
class NewUser:
    """An account to make; without a password somebody signs in at the hospital's own provider."""

    username: str
    role: Role
    organization: str
    password: str | None = field(default=None, repr=False)
    practitioner: str | None = None
    openid_sub: str | None = None
    demo: bool = False


@dataclass(frozen=True, slots=True)
class UserLine:
    """An account as a list shows it."""

    id: str
    username: str
    role: str
    organization: str
    practitioner: str | None
    openid: bool
    disabled: bool
    demo: bool


@dataclass(frozen=True, slots=True)
class KeyLine:
    """An API key as a list shows it; `state` is active, expired or revoked."""

    id: str
    name: str
    organization: str
    scopes: str
    state: str
    demo: bool
    created_by: str
    last_used: str


@dataclass(frozen=True, slots=True)
class _Act:
    """One change and the entries that commit with it."""

    connection: Connection
    staged: list[uuid.UUID]


class Administration:
    """Accounts and keys, changed by the operator at this terminal."""

    def __init__(self, owner: Database, operator: Operator) -> None:
        self._owner, self._operator = owner, operator

    async def add_user(self, user: NewUser) -> str:
        """Make an account. Its id. Raises `Invalid`, or `Conflict` for a name that is taken."""
        stored = _checked(user)
        account = str(uuid.uuid4())
        async with self._act() as act:
            try:
                await act.connection.execute(
                    "INSERT INTO accounts.account (id, organization, username, password_hash,"
                    " role, practitioner, openid_sub, demo, password_changed_at, created_by)"
                    " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, now(), %s)",
                    [
                        *(account, user.organization, _name(user.username), stored, user.role),
                        *(user.practitioner, user.openid_sub, user.demo, self._who),
                    ],
                )
            except errors.UniqueViolation:
                message = "This name, or this identity of the provider, has an account already."
                raise Conflict(message, code="account_exists") from None
            except errors.CheckViolation:
                message = "A name, organization, practitioner or identity is no such thing."
                raise Invalid(message, code="bad_account") from None
            await self._changed(act, account, "created", role=user.role, demo=user.demo)
        return account

    async def disable(self, username: str, *, disabled: bool = True) -> None:
        """Close or open an account; its sessions end when it closes. Raises `NotFound`."""
        async with self._act() as act:
            account = await self._found(act, username)
            await act.connection.execute(
                "UPDATE accounts.account SET disabled = %s WHERE id = %s", [disabled, account]
            )
            if disabled:
                await act.connection.execute(_REVOKE_SESSIONS, [account])
            await self._changed(act, account, "disabled" if disabled else "enabled")

    async def set_password(self, username: str, password: str) -> None:
        """Set a password; its sessions end and its lock, if there is one. Raises `NotFound`."""
        stored = passwords.hashed(passwords.checked(password, username))
        async with self._act() as act:
            account = await self._found(act, username)
            await act.connection.execute(
                "UPDATE accounts.account SET password_hash = %s, password_changed_at = now()"
                " WHERE id = %s",
                [stored, account],
            )
            await act.connection.execute(_REVOKE_SESSIONS, [account])
            await self._changed(act, account, "password-set")

    async def users(self) -> list[UserLine]:
        """Every account, by name."""
        async with self._read() as connection:
            cursor = await connection.execute(
                "SELECT id::text, username, role, organization, practitioner,"
                " openid_sub IS NOT NULL, disabled, demo FROM accounts.account"
                " ORDER BY lower(username)"
            )
            return [UserLine(*row) for row in await cursor.fetchall()]

    async def create_key(
        self,
        name: str,
        granted: frozenset[str],
        organization: str,
        *,
        expires_days: int | None = None,
        demo: bool = False,
    ) -> str:
        """Make an API key. Its text, which is shown this once. Raises `Invalid`."""
        if any(scope.startswith("user/") for scope in granted):
            raise Invalid("A key's scopes say system/, not user/.", param="scopes")
        key, identity = keys.mint(), str(uuid.uuid4())
        async with self._act() as act:
            try:
                await act.connection.execute(
                    "INSERT INTO accounts.api_key (id, uuid, hash, name, organization, scopes,"
                    " demo, created_by, expires_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s,"
                    " now() + make_interval(days => %s))",
                    [
                        *(key.id, identity, key.hash, name, organization),
                        *(scopes.text_of(granted), demo, self._who, expires_days),
                    ],
                )
            except errors.CheckViolation:
                raise Invalid("The key's name or organization is no such thing.") from None
            await self._key_changed(
                act, identity, key.id, "created", scopes=sorted(granted), demo=demo
            )
        return key.text

    async def revoke_key(self, key: str) -> None:
        """End a key, by its id. Raises `NotFound`."""
        async with self._act() as act:
            cursor = await act.connection.execute(
                "UPDATE accounts.api_key SET revoked_at = now()"
                " WHERE id = %s AND revoked_at IS NULL RETURNING uuid::text",
                [key],
            )
            row = await cursor.fetchone()
            if row is None:
                raise NotFound("There is no active key of this id.")
            await self._key_changed(act, row[0], key, "revoked")

    async def keys(self) -> list[KeyLine]:
        """Every key, the oldest first."""
        async with self._read() as connection:
            cursor = await connection.execute(
                "SELECT id, name, organization, scopes, CASE WHEN revoked_at IS NOT NULL THEN"
                " 'revoked' WHEN expires_at < now() THEN 'expired' ELSE 'active' END, demo,"
                " created_by, coalesce(to_char(last_used_at, 'YYYY-MM-DD'), 'never')"
                " FROM accounts.api_key ORDER BY created_at"
            )
            return [KeyLine(*row) for row in await cursor.fetchall()]

    async def remove_demo(self) -> None:
        """Take the demo's accounts and keys away, with their sessions and passkeys."""
        async with self._act() as act:
            for table, what in (("account", "Account"), ("api_key", "Key")):
                cursor = await act.connection.execute(
                    f"DELETE FROM accounts.{table} WHERE demo RETURNING"
                    f" {'id' if table == 'account' else 'uuid'}::text"
                )
                for (identity,) in await cursor.fetchall():
                    action = "account-change" if table == "account" else "key-change"
                    entry = self._operator.stage(
                        act.connection, action, resource=f"{what}/{identity}", change="removed"
                    )
                    act.staged.append(await entry)

    @property
    def _who(self) -> str:
        return self._operator.caller.principal.id

    @asynccontextmanager
    async def _act(self) -> AsyncIterator[_Act]:
        """A transaction of the owner's, whose entries are in the chain once it returns."""
        staged: list[uuid.UUID] = []
        deadline = time.monotonic() + DEADLINE_S
        async with self._owner.transaction(deadline=deadline) as connection:
            yield _Act(connection, staged)
        await self._operator.settle(staged)

    @asynccontextmanager
    async def _read(self) -> AsyncIterator[Connection]:
        deadline = time.monotonic() + DEADLINE_S
        async with self._owner.transaction(deadline=deadline, read_only=True) as connection:
            yield connection

    async def _found(self, act: _Act, username: str) -> str:
        cursor = await act.connection.execute(
            "SELECT id::text FROM accounts.account WHERE lower(username) = lower(%s)",
            [_name(username)],
        )
        row = await cursor.fetchone()
        if row is None:
            raise NotFound("There is no account of this name.")
        return str(row[0])

    async def _changed(self, act: _Act, account: str, change: str, **details: Any) -> None:
        entry = await self._operator.stage(
            act.connection,
            "account-change",
            resource=f"Account/{account}",
            change=change,
            **details,
        )
        act.staged.append(entry)

    async def _key_changed(
        self, act: _Act, identity: str, key: str, change: str, **details: Any
    ) -> None:
        resource = f"Key/{identity}"
        entry = await self._operator.stage(
            act.connection, "key-change", resource=resource, change=change, id=key, **details
        )
        act.staged.append(entry)


@asynccontextmanager
async def administration(places: Places, organization: str) -> AsyncIterator[Administration]:
    """Administration for one command; `organization` is whom the operator acts for."""
    owner = Database(places.owner_dsn, connections=2, name="medrec-administration")
    async with operator_audit(places, organization) as operator:
        await owner.open()
        try:
            yield Administration(owner, operator)
        finally:
            await owner.close()


def _checked(user: NewUser) -> str | None:
    """The password's hash. Raises `Invalid` for what is no account."""
    if user.role not in ROLES or user.role == "service":
        raise Invalid("A person's role is physician, nurse, analyst, auditor or admin.")
    if user.role in ("physician", "nurse") and user.practitioner is None:
        message = "Physicians and nurses need a Practitioner: access to patients goes by it."
        raise Invalid(message, param="practitioner")
    name = _name(user.username)
    if not name.isprintable() or name != name.strip():
        raise Invalid("A name has printable characters, and no space around it.", param="username")
    if user.password is None:
        if user.openid_sub is None:
            raise Invalid("An account needs a password or an identity of the provider.")
        return None
    return passwords.hashed(passwords.checked(user.password, name))


def _name(username: str) -> str:
    return unicodedata.normalize("NFC", username)
