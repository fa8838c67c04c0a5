"""Who cares for whom: the relationships that open a patient to a practitioner, kept by writes.

An encounter opens its patient to its participants while it lasts and for `care_days` after its end,
a patient's general practitioner for as long as it names one, and a patient that one registers for
`care_days`. Break-glass adds its own (break_glass.py). Every row names its source, and a source's
rows follow each of its versions. What is written under break-glass alone opens nothing for longer
than the grant does: somebody with access of their own makes it last by a version of theirs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

from deployments.data.records.dates import range_of

Connection = psycopg.AsyncConnection[tuple[Any, ...]]

# http://hl7.org/fhir/R4/valueset-encounter-status.html
OPEN_STATUSES = frozenset(("planned", "arrived", "triaged", "in-progress", "onleave"))
ENDED_STATUSES = frozenset(("finished", "unknown"))

_GRANT = """
INSERT INTO records.care (organization, practitioner, patient, basis, source, ends_at)
SELECT current_setting('medrec.organization'), wanted, %s, %s, %s, %s
FROM unnest(%s::text[]) AS wanted
ON CONFLICT (organization, practitioner, patient, basis, source)
DO UPDATE SET ends_at = EXCLUDED.ends_at
"""
_END_OF_GRANT = """
SELECT max(ends_at) FROM records.care
WHERE organization = current_setting('medrec.organization') AND practitioner = %s AND patient = %s
  AND basis = 'break-glass' AND ends_at > now()
"""
_END_OTHERS = """
UPDATE records.care SET ends_at = now()
WHERE organization = current_setting('medrec.organization') AND source = %s AND basis = %s
  AND practitioner <> ALL (%s) AND (ends_at IS NULL OR ends_at > now())
"""


@dataclass(frozen=True, slots=True)
class Relationships:
    """What one version of a resource says about care; `ends_at` None: until it says otherwise."""

    basis: str
    practitioners: tuple[str, ...]
    ends_at: datetime | None


def relationships(
    resource: Mapping[str, Any], *, now: datetime, care_days: int
) -> Relationships | None:
    """The relationships that a version brings; None for types that bring none."""
    kind = resource["resourceType"]
    if kind == "Patient":
        named = tuple(_practitioners(resource.get("generalPractitioner") or []))
        return Relationships("general-practitioner", named, None)
    if kind != "Encounter":
        return None
    participants = resource.get("participant") or []
    named = tuple(_practitioners([part.get("individual") or {} for part in participants]))
    status = resource.get("status")
    if status in OPEN_STATUSES:
        return Relationships("encounter", named, None)
    if status in ENDED_STATUSES:
        ended = _end_of(resource.get("period") or {}) or now
        return Relationships("encounter", named, ended + timedelta(days=care_days))
    return Relationships("encounter", (), None)


async def follow(
    connection: Connection,
    resource: Mapping[str, Any],
    *,
    patient: str,
    now: datetime,
    care_days: int,
    glass_broken_by: str | None = None,
) -> None:
    """Make the rows of this resource say what its new version says.

    `glass_broken_by` is the practitioner who writes it with no access but that of break-glass.
    """
    found = relationships(resource, now=now, care_days=care_days)
    if found is None:
        return
    source = f"{resource['resourceType']}/{resource['id']}"
    named = list(found.practitioners)
    await connection.execute(_END_OTHERS, (source, found.basis, named))
    if named:
        ends_at = found.ends_at
        if glass_broken_by is not None:
            until = await _end_of_grant(connection, glass_broken_by, patient, now)
            ends_at = until if ends_at is None else min(ends_at, until)
        values = (patient, found.basis, source, ends_at, named)
        await connection.execute(_GRANT, values)


async def _end_of_grant(
    connection: Connection, practitioner: str, patient: str, now: datetime
) -> datetime:
    cursor = await connection.execute(_END_OF_GRANT, (practitioner, patient))
    row = await cursor.fetchone()
    until: datetime | None = row[0] if row else None
    return until or now


async def end(connection: Connection, type: str, id: str) -> None:
    """A deleted source opens nothing any longer."""
    basis = {"Patient": "general-practitioner", "Encounter": "encounter"}.get(type)
    if basis is not None:
        await connection.execute(_END_OTHERS, (f"{type}/{id}", basis, []))


async def register(
    connection: Connection, practitioner: str, patient: str, *, care_days: int
) -> None:
    """Open a patient to the one who is about to create it; at least for a day."""
    until = datetime.now(UTC) + timedelta(days=max(1, care_days))
    values = (patient, "registration", f"Patient/{patient}", until, [practitioner])
    await connection.execute(_GRANT, values)


async def open_by_break_glass(
    connection: Connection, practitioner: str, patient: str, *, grant: str, until: datetime
) -> None:
    """Open a patient for the time of a break-glass grant."""
    values = (patient, "break-glass", f"break-glass/{grant}", until, [practitioner])
    await connection.execute(_GRANT, values)


def _practitioners(references: list[Mapping[str, Any]]) -> Iterator[str]:
    seen = set()
    for reference in references:
        type, _, rest = str(reference.get("reference") or "").partition("/")
        id = rest.partition("/")[0]
        if type == "Practitioner" and id and id not in seen:
            seen.add(id)
            yield id


def _end_of(period: Mapping[str, Any]) -> datetime | None:
    """The end of a period; a day alone lasts until it is over."""
    text = period.get("end")
    if not isinstance(text, str):
        return None
    try:
        return range_of(text)[1]
    except ValueError:
        return None
