"""What a person may ask of us by LGPD art. 18, and what the law makes us keep all the same.

The categories are a table: what it is, where it lies, whether it may go at once, and by which rule
it stays. Records stay 20 years from the last entry (Lei 13.787/2018, art. 6).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import psycopg

RECORD_YEARS = 20

Fate = Literal["erased", "kept"]


@dataclass(frozen=True, slots=True)
class Category:
    """A kind of data about a person. `count` is SQL with %(patient)s and %(organization)s."""

    name: str
    fate: Fate
    law: str
    count: str
    delete: str = ""


def _texts(kind: str, law: str) -> Category:
    condition = (
        "FROM interactions.short_lived WHERE kind = "
        f"'{kind}' AND patient = %(patient)s AND organization = %(organization)s"
    )
    return Category(kind, "erased", law, f"SELECT count(*) {condition}", f"DELETE {condition}")


def _records(name: str, table: str, law: str) -> Category:
    condition = f"FROM {table} WHERE patient = %(patient)s AND organization = %(organization)s"
    return Category(name, "kept", law, f"SELECT count(*) {condition}", f"DELETE {condition}")


_RECORD = "Lei 13.787/2018, art. 6: 20 years from the last entry"
_AI = "CFM 2.454/2026: the use of AI is part of the record, without its texts"
_OF_DECISIONS = (
    "FROM interactions.decision WHERE interaction IN (SELECT id FROM interactions.interaction "
    "WHERE patient = %(patient)s AND organization = %(organization)s)"
)
_OF_ALERTS = (
    "FROM alerts.event WHERE alert IN (SELECT id FROM alerts.alert "
    "WHERE patient = %(patient)s AND organization = %(organization)s)"
)

# Deleted in this order, which foreign keys allow.
CATEGORIES: tuple[Category, ...] = (
    _texts("chat", "LGPD art. 18, IV and VI: not needed for care"),
    _texts("audio", "LGPD art. 18, IV and VI: not needed for care"),
    _texts("face_template", "LGPD art. 11, I and art. 18, VI: held by consent alone"),
    Category(
        "decisions",
        "kept",
        _AI,
        f"SELECT count(*) {_OF_DECISIONS}",
        f"DELETE {_OF_DECISIONS}",
    ),
    _records("interactions", "interactions.interaction", _AI),
    Category(
        "alert events", "kept", _RECORD, f"SELECT count(*) {_OF_ALERTS}", f"DELETE {_OF_ALERTS}"
    ),
    _records("alerts", "alerts.alert", _RECORD),
    _records("documents", "records.blob", _RECORD),
    _records("resources", "records.resource", _RECORD),
    _records("versions", "records.history", _RECORD),
    _records("care", "records.care", _RECORD),
    Category(
        "audit",
        "kept",
        "LGPD art. 16, I and art. 37: proof of every access; ids and hashes alone; never deleted",
        "SELECT count(*) FROM audit.entry "
        "WHERE patient = %(patient)s AND organization = %(organization)s",
    ),
)

_LAST_ENTRY = """
SELECT max(updated_at) FROM records.history
WHERE patient = %(patient)s AND organization = %(organization)s
"""


_OVERDUE = """
SELECT patient, max(updated_at) FROM records.history
WHERE organization = %s AND patient IS NOT NULL GROUP BY patient
HAVING max(updated_at) < %s::timestamptz - make_interval(years => %s) ORDER BY 2 LIMIT 1000
"""


@dataclass(frozen=True, slots=True)
class Line:
    """What became of one category. `until` is None where nothing ends the keeping."""

    category: str
    held: int
    erased: int
    kept: int
    law: str
    until: datetime | None

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        until = None if self.until is None else self.until.isoformat()
        values = {"category": self.category, "held": self.held, "erased": self.erased}
        return {**values, "kept": self.kept, "law": self.law, "until": until}


@dataclass(frozen=True, slots=True)
class Subject:
    """A person whose data are held, and of which hospital."""

    patient: str
    organization: str

    @property
    def values(self) -> dict[str, str]:
        """Parameters of the statements."""
        return {"patient": self.patient, "organization": self.organization}


def kept_until(last_entry: datetime) -> datetime:
    """When a record may go whose last entry is of this moment."""
    try:
        return last_entry.replace(year=last_entry.year + RECORD_YEARS)
    except ValueError:  # the 29th of February
        return last_entry.replace(year=last_entry.year + RECORD_YEARS, month=3, day=1)


async def last_entry(connection: psycopg.AsyncConnection[Any], subject: Subject) -> datetime | None:
    """The moment of the last entry in the record; None without a record."""
    row = await (await connection.execute(_LAST_ENTRY, subject.values)).fetchone()
    return None if row is None or row[0] is None else row[0].astimezone(UTC)


async def overdue(
    connection: psycopg.AsyncConnection[Any], organization: str, now: datetime
) -> list[tuple[str, datetime]]:
    """Patients whose record's 20 years are over, with its last entry; 1,000 at most.

    `connection` is the owner's. Nothing is deleted without an operator who confirms it.
    """
    found = await connection.execute(_OVERDUE, (organization, now, RECORD_YEARS))
    return [(row[0], row[1].astimezone(UTC)) for row in await found.fetchall()]


async def erase(
    connection: psycopg.AsyncConnection[Any],
    subject: Subject,
    categories: Sequence[Category] = CATEGORIES,
    *,
    records_too: bool = False,
) -> list[Line]:
    """Delete what may go, and say of every category what became of it.

    `connection` is the owner's, inside a transaction. `records_too` deletes everything that has a
    place to be deleted from; whether it may is the caller's to find out first.
    """
    last = await last_entry(connection, subject)
    until = None if last is None else kept_until(last)
    lines = []
    for category in categories:
        found = await (await connection.execute(category.count.encode(), subject.values)).fetchone()
        held = 0 if found is None else int(found[0])
        gone = 0
        if category.delete and (category.fate == "erased" or records_too):
            gone = (await connection.execute(category.delete.encode(), subject.values)).rowcount
        kept = max(0, held - gone)
        ends = until if kept and category.delete else None
        lines.append(Line(category.name, held, gone, kept, category.law, ends))
    return lines
