"""Who may use the emergency service: enrolled on site by an operator, on record, at most so many.

Enrolled are people with a password and a device's certificate of their name; their accounts, and no
others, travel with the emergency copy.
"""

from __future__ import annotations

import time
import unicodedata
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import psycopg

from deployments.data.audit.operator import Operator, operator_audit
from deployments.data.database import Database
from deployments.data.errors import Conflict, Invalid, NotFound
from deployments.data.places import Places

DEADLINE_S = 15.0
Connection = psycopg.AsyncConnection[tuple[Any, ...]]

# Two operators at once would both take the last place.
_LOCK = "LOCK TABLE accounts.emergency_user IN SHARE ROW EXCLUSIVE MODE"
_FIND = """
SELECT id::text, password_hash IS NOT NULL, disabled, emergency FROM accounts.account
WHERE lower(username) = lower(%s)
"""
_PLACE = """
SELECT min(p) FROM generate_series(1, %s) AS p
WHERE p NOT IN (SELECT place FROM accounts.emergency_user)
"""
_ENROL = "INSERT INTO accounts.emergency_user (account, place, enrolled_by) VALUES (%s, %s, %s)"
_LIST = """
SELECT u.place, a.username, a.role, a.disabled, u.enrolled_at::date::text, u.enrolled_by
FROM accounts.emergency_user AS u JOIN accounts.account AS a ON a.id = u.account ORDER BY u.place
"""


@dataclass(frozen=True, slots=True)
class Enrolled:
    """One of the places and who has it."""

    place: int
    username: str
    role: str
    disabled: bool
    enrolled_on: str
    enrolled_by: str


class Enrolment:
    """The list of enrolled users, changed by the operator at this terminal."""

    def __init__(self, owner: Database, operator: Operator, users: int) -> None:
        self._owner, self._operator, self._users = owner, operator, users

    async def enrol(self, username: str) -> int:
        """Give a user a place. Raises `NotFound`, `Invalid` without a password, `Conflict`."""
        async with self._changed(username, "enrolled") as (connection, account):
            id, has_password, disabled, is_enrolled = account
            if is_enrolled:
                raise Conflict("This user is enrolled already.", code="enrolled_already")
            if disabled or not has_password:
                message = "Only an open account with a password can be enrolled for emergencies."
                raise Invalid(message, code="no_password")
            row = await (await connection.execute(_PLACE, (self._users,))).fetchone()
            if row is None or row[0] is None:
                message = f"All {self._users} places are taken: unenrol somebody first."
                raise Conflict(message, code="emergency_full")
            who = self._operator.caller.principal.id
            await connection.execute(_ENROL, (id, row[0], who))
        return int(row[0])

    async def unenrol(self, username: str) -> None:
        """Take a user's place away. Raises `NotFound`."""
        async with self._changed(username, "unenrolled") as (connection, account):
            if not account[3]:
                raise NotFound("This user is not enrolled.", code="not_enrolled")
            await connection.execute(
                "DELETE FROM accounts.emergency_user WHERE account = %s", (account[0],)
            )

    async def enrolled(self) -> list[Enrolled]:
        """Everybody enrolled, by place."""
        deadline = time.monotonic() + DEADLINE_S
        async with self._owner.transaction(deadline=deadline, read_only=True) as connection:
            rows = await (await connection.execute(_LIST)).fetchall()
        return [Enrolled(*row) for row in rows]

    @asynccontextmanager
    async def _changed(
        self, username: str, change: str
    ) -> AsyncIterator[tuple[Connection, tuple[str, bool, bool, bool]]]:
        """A transaction with the account and the lock; its entry is in the chain afterwards."""
        name = unicodedata.normalize("NFC", username)
        deadline = time.monotonic() + DEADLINE_S
        async with self._owner.transaction(deadline=deadline) as connection:
            await connection.execute(_LOCK)
            row = await (await connection.execute(_FIND, (name,))).fetchone()
            if row is None:
                raise NotFound("There is no account of this name.")
            yield connection, (row[0], row[1], row[2], row[3])
            staged = await self._operator.stage(
                connection, "account-change", resource=f"Account/{row[0]}", change=change
            )
        await self._operator.settle([staged])


@asynccontextmanager
async def enrolment(places: Places, organization: str, users: int) -> AsyncIterator[Enrolment]:
    """The enrolment for one command; `organization` is whom the operator acts for."""
    owner = Database(places.owner_dsn, connections=2, name="medrec-enrolment")
    async with operator_audit(places, organization) as operator:
        await owner.open()
        try:
            yield Enrolment(owner, operator, users)
        finally:
            await owner.close()
