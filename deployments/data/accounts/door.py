"""The door of the emergency service: enrolled people, each by the device that bears their name.

A device's client certificate has the user's name; the edge tells it. Passwords alone would not do:
NIST SP 800-63B-4 wants 15 characters where they are the only factor, and a second factor beside.
"""

from __future__ import annotations

import unicodedata
from typing import Any

from psycopg import AsyncConnection

from deployments.data.accounts.origin import Origin
from deployments.data.accounts.passwords import LEAST
from deployments.data.errors import DataError, Forbidden, Invalid, TooMany

Connection = AsyncConnection[tuple[Any, ...]]

_LOCK = "SELECT pg_advisory_xact_lock(6374120010)"
_OTHERS = """
SELECT count(DISTINCT s.account) FROM accounts.session s
WHERE s.account::text <> %s AND s.revoked_at IS NULL AND s.ends_at > now() AND s.idle_until > now()
"""
_RETRY_AFTER_S = 60.0


class Door:
    """Lets at most `users` people in at a time."""

    def __init__(self, users: int) -> None:
        self._users = users

    def refusal(
        self, username: str, origin: Origin, *, is_enrolled: bool, password: str | None = None
    ) -> DataError | None:
        """Why this person does not come in, before any password is read; None: so far nothing.

        Who is not enrolled is told so only on a device of that very name.
        """
        if not origin.certificate:
            message = "In an emergency people sign in from an enrolled device, by its certificate."
            return Forbidden(message, code="device_required")
        if not same_name(origin.certificate, username):
            message = "The certificate of this device is another user's."
            return Forbidden(message, code="wrong_device")
        if not is_enrolled:
            message = "This user is not enrolled for emergencies: medrec emergency enrol, on site."
            return Forbidden(message, code="not_enrolled")
        if password is not None and len(unicodedata.normalize("NFC", password)) < LEAST:
            message = f"In an emergency a password has at least {LEAST} characters."
            return Invalid(message, code="weak_password")
        return None

    async def take_place(self, connection: Connection, account: str) -> None:
        """Raise `TooMany` (`emergency_full`) where so many others are signed in already."""
        await connection.execute(_LOCK)
        row = await (await connection.execute(_OTHERS, [account])).fetchone()
        if row is not None and row[0] >= self._users:
            message = f"{self._users} users are signed in, which is the most in an emergency."
            raise TooMany(message, code="emergency_full", retry_after_s=_RETRY_AFTER_S)


def same_name(certificate: str, username: str) -> bool:
    """Whether a certificate's name is the user's: as sign-in compares names, without case."""
    return _folded(certificate) == _folded(username)


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).lower()
