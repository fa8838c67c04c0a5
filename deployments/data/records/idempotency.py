"""Writes that are safe to repeat: a key names a request, and what it wrote is remembered with it.

The key is claimed in the transaction of the write itself, so that a repeat finds both or neither;
of two at once the second waits for the first and then finds what that one wrote.
"""

from __future__ import annotations

import hashlib
from typing import Any

import orjson
import psycopg

from deployments.data.errors import Conflict, Invalid, Unprocessable
from deployments.data.principal import Caller
from deployments.data.records.rows import canonical
from deployments.data.seal.sealer import Sealer

Connection = psycopg.AsyncConnection[tuple[Any, ...]]
Line = dict[str, Any]

MAX_KEY = 255
# What the custodian keeps at least: longer than anybody repeats a request.
KEPT_S = 48 * 3600.0

_CLAIM = """
INSERT INTO records.idempotency (organization, principal, key, request)
VALUES (current_setting('medrec.organization'), %s, %s, %s) ON CONFLICT DO NOTHING RETURNING true
"""
_FIND = """
SELECT request, written::text FROM records.idempotency
WHERE organization = current_setting('medrec.organization') AND principal = %s AND key = %s
"""
_REMEMBER = """
UPDATE records.idempotency SET written = %s::jsonb
WHERE organization = current_setting('medrec.organization') AND principal = %s AND key = %s
"""


def fingerprint(sealer: Sealer, *parts: Any) -> str:
    """A keyed hash of a request: equal requests have equal ones, and it tells nothing of them."""
    return sealer.blind("idempotency", hashlib.sha256(canonical(parts)).hexdigest())


def checked(caller: Caller) -> str | None:
    """The caller's key; raises `Invalid` unless it is 1 to 255 printable ASCII characters."""
    key = caller.idempotency_key
    if key is not None and not (1 <= len(key) <= MAX_KEY and key.isascii() and key.isprintable()):
        message = f"Idempotency-Key takes 1 to {MAX_KEY} printable ASCII characters."
        raise Invalid(message, param="Idempotency-Key")
    return key


async def claim(connection: Connection, caller: Caller, request: str) -> list[Line] | None:
    """What this key wrote before; None where it has not, and now is this transaction's.

    Raises `Unprocessable` where the key names another request.
    """
    key = checked(caller)
    if key is None:
        return None
    who = caller.principal.id
    claimed = await connection.execute(_CLAIM, (who, key, request))
    if await claimed.fetchone() is not None:
        return None
    row = await (await connection.execute(_FIND, (who, key))).fetchone()
    if row is None:
        raise Conflict("The first request of this Idempotency-Key has only just been forgotten.")
    if row[0] != request:
        raise Unprocessable(
            "This Idempotency-Key was used for another request.",
            param="Idempotency-Key",
            code="idempotency_mismatch",
        )
    lines: list[Line] = orjson.loads(row[1])
    return lines


async def remember(connection: Connection, caller: Caller, lines: list[Line]) -> None:
    """Keep what the claimed key has written."""
    if caller.idempotency_key is not None:
        values = (orjson.dumps(lines).decode(), caller.principal.id, caller.idempotency_key)
        await connection.execute(_REMEMBER, values)
