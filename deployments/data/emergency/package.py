"""What an emergency leaves to be brought back: activation, notes, alerts and the chain, as one value.

In a file it is sealed under the site's keys, so that it may be carried by hand.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
import psycopg

from deployments.data.alerts import merge as alerts
from deployments.data.emergency import notes
from deployments.data.emergency.activation import COLUMNS, Activation
from deployments.data.emergency.notes import SealedNote
from deployments.data.errors import Conflict, Invalid, NotFound
from deployments.data.seal.sealer import Sealed, Sealer

FORMAT = "medrec-emergency/1"
_CONTEXT = b"emergency-package"
_ONE = f"SELECT {COLUMNS} FROM emergency.activation WHERE id::text = %s"
_LAST = f"SELECT {COLUMNS} FROM emergency.activation ORDER BY activated_at DESC LIMIT 1"
_EXPIRE = """
UPDATE emergency.activation SET ended_at = expires_at, ended_by = 'expiry'
WHERE ended_at IS NULL AND expires_at <= now()
"""
_NOTES = f"""
SELECT {notes.COLUMNS} FROM emergency.note WHERE activation::text = %s ORDER BY written_at, id
"""
_NOTED = """
SELECT a.id::text, a.activated_at, array_agg(n.id::text)
FROM emergency.activation AS a JOIN emergency.note AS n ON n.activation = a.id
WHERE a.ended_at IS NOT NULL GROUP BY a.id, a.activated_at ORDER BY a.activated_at
"""
_ENTRIES = (
    "SELECT seq, organization, body, previous, hash FROM audit.entry WHERE seq > %s ORDER BY seq"
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the emergency cell's chain."""

    seq: int
    organization: str
    body: str
    previous: bytes
    hash: bytes


@dataclass(frozen=True, slots=True)
class Noted:
    """An emergency that is over, and the ids of the notes that were written in it."""

    id: str
    activated_at: datetime
    notes: frozenset[str]


@dataclass(frozen=True, slots=True)
class Package:
    """One emergency, whole."""

    activation: Activation
    notes: tuple[SealedNote, ...]
    entries: tuple[Entry, ...]
    alerts: tuple[alerts.Row, ...]

    @property
    def head(self) -> tuple[int, str]:
        """Where the emergency cell's chain stood: sequence and hash, an anchor of it."""
        last = self.entries[-1] if self.entries else None
        return (last.seq, last.hash.hex()) if last else (self.activation.first_seq, "")

    @property
    def chain_fault(self) -> int | None:
        """The first sequence whose entry is not what the one before led to; None: it is whole."""
        expected = self.activation.first_seq
        previous: bytes | None = None
        for entry in self.entries:
            expected += 1
            whole = entry.previous + entry.seq.to_bytes(8, "big") + entry.body.encode()
            linked = previous is None or entry.previous == previous
            if entry.seq != expected or not linked or hashlib.sha256(whole).digest() != entry.hash:
                return expected
            previous = entry.hash
        return None

    def sealed(self, sealer: Sealer) -> bytes:
        """The package as a file's bytes."""
        sealed = sealer.seal(orjson.dumps(self._plain()), _CONTEXT)
        lines = {
            "format": FORMAT,
            "activation": self.activation.id,
            "key_id": sealed.key_id,
            "wrapped_key": _text(sealed.wrapped_key),
            "data": _text(sealed.data),
        }
        return orjson.dumps(lines)

    def _plain(self) -> dict[str, Any]:
        return {
            "activation": {
                name: getattr(self.activation, name) for name in Activation.__dataclass_fields__
            },
            "notes": [_note(note) for note in self.notes],
            "entries": [
                [each.seq, each.organization, each.body, each.previous.hex(), each.hash.hex()]
                for each in self.entries
            ],
            "alerts": self.alerts,
        }


def opened(data: bytes, sealer: Sealer) -> Package:
    """A file's package. Raises `Invalid` for what is none, `SealBroken` for other keys."""
    try:
        outside = orjson.loads(data)
        if outside["format"] != FORMAT:
            raise ValueError
        sealed = Sealed(outside["key_id"], _bytes(outside["wrapped_key"]), _bytes(outside["data"]))
        inside = orjson.loads(sealer.open(sealed, _CONTEXT))
        moments = ("since", "activated_at", "expires_at", "ended_at", "copied_at")
        known: dict[str, Any] = {
            name: datetime.fromisoformat(value) if name in moments and value else value
            for name, value in inside["activation"].items()
        }
        return Package(
            Activation(**known),
            tuple(_read_note(each) for each in inside["notes"]),
            tuple(
                Entry(seq, organization, body, bytes.fromhex(previous), bytes.fromhex(hash))
                for seq, organization, body, previous, hash in inside["entries"]
            ),
            tuple(inside["alerts"]),
        )
    except (ValueError, KeyError, TypeError):
        raise Invalid("This file is no export of an emergency.", code="no_export") from None


async def collect(owner_dsn: str, activation: str | None = None) -> Package:
    """What the emergency cell holds of one emergency, the last unless named.

    Raises `NotFound`, and `Conflict` for one that is still open: it must be ended first.
    """
    async with (
        await psycopg.AsyncConnection.connect(owner_dsn, connect_timeout=5) as connection,
        connection.transaction(),
    ):
        await connection.execute(_EXPIRE)
        cursor = await (
            connection.execute(_LAST)
            if activation is None
            else connection.execute(_ONE, (activation,))
        )
        row = await cursor.fetchone()
        if row is None:
            raise NotFound("There was no such emergency here.", code="no_such_emergency")
        found = Activation.of(row)
        if found.ended_at is None:
            raise Conflict("The emergency is still open: end it first.", code="emergency_open")
        cursor = await connection.execute(_NOTES, (found.id,))
        written = tuple(SealedNote.of(each) for each in await cursor.fetchall())
        cursor = await connection.execute(_ENTRIES, (found.first_seq,))
        rows: Sequence[Any] = await cursor.fetchall()
        entries = tuple(
            Entry(seq, organization, body, bytes(previous), bytes(hash))
            for seq, organization, body, previous, hash in rows
        )
        return Package(
            found,
            written,
            entries,
            tuple(await alerts.export_since(connection, found.activated_at)),
        )


async def noted(owner_dsn: str) -> list[Noted]:
    """Every emergency that is over and left notes, the oldest first."""
    async with await psycopg.AsyncConnection.connect(owner_dsn, connect_timeout=5) as connection:
        await connection.execute(_EXPIRE)
        rows = await (await connection.execute(_NOTED)).fetchall()
    return [Noted(id, at, frozenset(notes)) for id, at, notes in rows]


def _note(note: SealedNote) -> dict[str, Any]:
    names = ("id", "organization", "activation", "patient", "kind", "account", "practitioner")
    return {name: getattr(note, name) for name in names} | {
        "request_id": note.request_id,
        "written_at": note.written_at.isoformat(),
        "key_id": note.sealed.key_id,
        "wrapped_key": _text(note.sealed.wrapped_key),
        "data": _text(note.sealed.data),
    }


def _read_note(values: dict[str, Any]) -> SealedNote:
    sealed = Sealed(
        values.pop("key_id"), _bytes(values.pop("wrapped_key")), _bytes(values.pop("data"))
    )
    written_at = datetime.fromisoformat(values.pop("written_at"))
    return SealedNote(**values, written_at=written_at, sealed=sealed)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
