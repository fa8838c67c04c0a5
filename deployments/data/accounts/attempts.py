"""Sign-in attempts, counted in the database: so many an address and minute, so many failures a name.

A locked name is locked for a while and never for good, passkeys work all the same, and an address
from which the person has signed in lately is judged by itself: a stranger who fails on purpose
locks out strangers. Names that do not exist are counted as those that do, so nobody can tell.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from psycopg import AsyncConnection

from configs.args import SignIn
from deployments.data.accounts.origin import Origin
from deployments.data.errors import TooMany

WINDOW_S = 60
Connection = AsyncConnection[tuple[Any, ...]]

# A new row takes up to four stale ones with it, so that a flood of names or addresses is bounded
# by what is sent within the time that a row lasts, whether or not the custodian runs.
_SWEEP = """
WITH stale AS (
    DELETE FROM accounts.attempt WHERE subject IN (
        SELECT subject FROM accounts.attempt
        WHERE until < now() AND subject <> %(subject)s
        ORDER BY until LIMIT 4 FOR UPDATE SKIP LOCKED))
"""
_TAKE = f"""{_SWEEP}
INSERT INTO accounts.attempt AS a (subject, count, until)
VALUES (%(subject)s, 1, now() + make_interval(secs => %(window)s))
ON CONFLICT (subject) DO UPDATE SET
    count = CASE WHEN a.until <= now() THEN 1 ELSE least(a.count + 1, 1000000) END,
    until = CASE WHEN a.until <= now() THEN excluded.until ELSE a.until END
RETURNING a.count, extract(epoch FROM a.until - now())::float8
"""
# One that is locked already stays so until its time: failing on does not lengthen it.
_FAIL = f"""{_SWEEP}
INSERT INTO accounts.attempt AS a (subject, count, until)
VALUES (%(subject)s, 1, now() + make_interval(secs => %(lockout)s))
ON CONFLICT (subject) DO UPDATE SET
    count = CASE WHEN a.until <= now() THEN 1 ELSE least(a.count + 1, %(limit)s) END,
    until = CASE WHEN a.until > now() AND a.count >= %(limit)s THEN a.until
                 ELSE excluded.until END
"""
_LOCKED = """
SELECT extract(epoch FROM until - now())::float8 FROM accounts.attempt
WHERE subject = %(subject)s AND count >= %(limit)s AND until > now()
"""


@dataclass(frozen=True, slots=True)
class Taken:
    """Seconds that an address waits, 0 when it may go on; whether it is the first refused so.

    The first alone goes on record, so that nobody without credentials can fill the audit.
    """

    wait_s: float
    is_first: bool


class Attempts:
    """The counters of sign-in, on a connection whose transaction the caller owns."""

    def __init__(self, settings: SignIn) -> None:
        self._settings = settings

    async def take(self, connection: Connection, origin: Origin) -> Taken:
        """Count an attempt of the origin's address."""
        subject = _subject("address", origin.network)
        cursor = await connection.execute(_TAKE, {"subject": subject, "window": WINDOW_S})
        row = await cursor.fetchone()
        assert row is not None
        count, left_s = row
        beyond = count - self._settings.address_attempts_per_minute
        return Taken(float(left_s) if beyond > 0 else 0.0, is_first=beyond == 1)

    async def locked_s(self, connection: Connection, subject: bytes) -> float:
        """Seconds that a subject stays locked; 0 when it is not."""
        values = {"subject": subject, "limit": self._settings.lockout_attempts}
        row = await (await connection.execute(_LOCKED, values)).fetchone()
        return float(row[0]) if row else 0.0

    async def failed(self, connection: Connection, subject: bytes) -> None:
        """Count a failure, the last of which locks."""
        values = {
            "subject": subject,
            "limit": self._settings.lockout_attempts,
            "lockout": self._settings.lockout_s,
        }
        await connection.execute(_FAIL, values)

    async def succeeded(self, connection: Connection, subject: bytes) -> None:
        """Forget the failures of a subject."""
        await connection.execute("DELETE FROM accounts.attempt WHERE subject = %s", [subject])


def subject_of(username: str, origin: Origin, *, known: bool) -> bytes:
    """What failures are counted by: the name, or the name at an address that it is known from."""
    name = username.lower()
    return _subject("name", name, origin.network) if known else _subject("name", name)


def too_many(left_s: float) -> TooMany:
    """The refusal: the same whether an address or a name has had its number."""
    message = "Too many attempts to sign in. A passkey still works where a name is locked."
    return TooMany(message, code="too_many_attempts", retry_after_s=max(1.0, left_s))


def _subject(*parts: str) -> bytes:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).digest()
