"""A break-glass access as it is kept: its rows, its reason and its review, opened with their seals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from psycopg import sql

from deployments.data.seal.sealer import Sealed, Sealer

Verdict = Literal["justified", "unjustified"]

FIND = sql.SQL(
    "SELECT r.id FROM records.resource AS r WHERE {condition} AND NOT r.deleted"
    " AND r.organization = current_setting('medrec.organization') ORDER BY r.id LIMIT 2"
)
GRANT = """
INSERT INTO records.break_glass (id, organization, account, practitioner, patient, request_id,
    sealed, key_id, wrapped_key, granted_at, expires_at)
VALUES (%s, current_setting('medrec.organization'), %s, %s, %s, %s, %s, %s, %s, %s, %s)
"""
REVIEW = """
INSERT INTO records.break_glass_review
    (break_glass, organization, reviewer, verdict, sealed, key_id, wrapped_key, reviewed_at)
VALUES (%s, current_setting('medrec.organization'), %s, %s, %s, %s, %s, %s)
ON CONFLICT (break_glass) DO NOTHING RETURNING true
"""
_LISTED = """
SELECT g.id, g.account, g.practitioner, g.patient, g.request_id, g.sealed, g.key_id, g.wrapped_key,
    g.granted_at, g.expires_at, r.reviewer, r.verdict, r.sealed, r.key_id, r.wrapped_key,
    r.reviewed_at
FROM records.break_glass AS g LEFT JOIN records.break_glass_review AS r ON r.break_glass = g.id
WHERE g.organization = current_setting('medrec.organization')
"""
ONE = _LISTED + " AND g.id = %s"
PAGE = (
    _LISTED
    + """
  AND (%s::boolean IS NULL OR (r.reviewed_at IS NOT NULL) = %s)
  AND (%s::timestamptz IS NULL OR (g.granted_at, g.id) < (%s, %s::uuid))
ORDER BY g.granted_at DESC, g.id DESC LIMIT %s
"""
)


@dataclass(frozen=True, slots=True)
class Review:
    """What somebody else found of a grant."""

    reviewer: str
    verdict: Verdict
    note: str | None = field(repr=False)
    reviewed_at: datetime


@dataclass(frozen=True, slots=True)
class Grant:
    """One break-glass access; `review` None: nobody has looked at it yet."""

    id: str
    account: str
    practitioner: str
    patient: str
    request_id: str
    reason: str = field(repr=False)
    granted_at: datetime
    expires_at: datetime
    review: Review | None = None


def read(sealer: Sealer, organization: str, row: Sequence[Any]) -> Grant:
    """The grant of a row of `ONE` or `PAGE`. Raises `SealBroken` for a damaged one."""
    id = str(row[0])
    reason = sealer.open(Sealed(row[6], row[7], row[5]), reason_context(organization, id))
    review = None
    if row[10] is not None:
        note = None
        if row[12] is not None:
            sealed = Sealed(row[13], row[14], row[12])
            note = sealer.open(sealed, note_context(organization, id)).decode()
        review = Review(row[10], row[11], note, row[15].astimezone(UTC))
    times = (row[8].astimezone(UTC), row[9].astimezone(UTC))
    return Grant(id, row[1], row[2], row[3], row[4], reason.decode(), *times, review)


def seal_note(
    sealer: Sealer, organization: str, id: str, note: str | None
) -> tuple[bytes | None, str | None, bytes | None]:
    """The columns of a review's note."""
    if note is None:
        return None, None, None
    sealed = sealer.seal(note.encode(), note_context(organization, id))
    return sealed.data, sealed.key_id, sealed.wrapped_key


def reason_context(organization: str, id: str) -> bytes:
    """What a reason's seal is bound to."""
    return f"{organization}/break-glass/{id}".encode()


def note_context(organization: str, id: str) -> bytes:
    """What a note's seal is bound to."""
    return f"{organization}/review/{id}".encode()
