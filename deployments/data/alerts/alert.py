"""An alert as it is kept and told: its words, its row, what has happened to it."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from deployments.data.seal.errors import SealBroken
from deployments.data.seal.sealer import Sealed, Sealer

_log = logging.getLogger("medrec.alerts")

Severity = Literal["critical", "high"]
SEVERITIES: tuple[Severity, ...] = ("critical", "high")
State = Literal["raised", "escalated", "acknowledged", "resolved"]
EventKind = Literal["raised", "escalated", "acknowledged", "resolved"]
Called = Literal["practitioner", "role", "care"]
CalledRole = Literal["physician", "nurse"]

RULE = "rule"  # who raised what no person did


@dataclass(frozen=True, slots=True)
class To:
    """Whom an alert calls first: a practitioner, a role, or everyone who cares for the patient.

    A role is called among those who care for the patient; without a patient, in the whole
    organisation. `role` beside a practitioner is the role that is called after them.
    """

    kind: Called
    id: str | None = None
    role: CalledRole | None = None


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """Who took an alert on, and when."""

    account: str
    role: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert as it stands. `due_at` None: nobody is called any more."""

    id: str
    organization: str
    severity: Severity
    code: str
    origin: Literal["staff", "rule"]
    patient: str | None
    resource: str | None
    raised_by: str
    to: To
    to_all: bool
    raised_at: datetime
    state: State
    level: int
    escalations: int
    due_at: datetime | None
    text: str | None = field(repr=False)
    acknowledgements: tuple[Acknowledgement, ...] = ()

    @property
    def is_open(self) -> bool:
        """Whether somebody may still have to act."""
        return self.state != "resolved"


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to an alert; `seq` is its number in the organisation."""

    seq: int
    id: str
    kind: EventKind
    at: datetime
    actor: str
    role: str
    level: int
    alert: Alert

    @property
    def cursor(self) -> str:
        """A place to go on after. The id tells whether another database gave the same number."""
        return f"{self.seq}.{self.id}"


@dataclass(frozen=True, slots=True)
class Place:
    """A cursor that was read: the number of an event and its id."""

    seq: int
    id: str


def place_of(cursor: str) -> Place | None:
    """The place that a cursor names; None for anything that is not one."""
    number, _, id = cursor.partition(".")
    try:
        named = uuid.UUID(id)
    except ValueError:
        return None
    if not (number.isascii() and number.isdigit() and len(number) <= 18) or str(named) != id:
        return None
    return Place(int(number), id)


def text_context(organization: str, id: str) -> bytes:
    """What an alert's text is sealed to."""
    return f"{organization}/alert/{id}".encode()


def seal_text(
    sealer: Sealer, organization: str, id: str, text: str | None
) -> tuple[bytes | None, str | None, bytes | None]:
    """The columns `sealed`, `key_id` and `wrapped_key`."""
    if text is None:
        return None, None, None
    sealed = sealer.seal(text.encode(), text_context(organization, id))
    return sealed.data, sealed.key_id, sealed.wrapped_key


def read_anyway(sealer: Sealer, row: Sequence[Any]) -> Alert:
    """`read`, without a text that does not open: it must hold up neither its alert nor any other."""
    try:
        return read(sealer, row)
    except SealBroken:
        _log.critical("the text of alert %s does not open", row[0])
        return read(None, row)


def read(sealer: Sealer | None, row: Sequence[Any]) -> Alert:
    """The alert of a row of statements.COLUMNS, without its text where no sealer is given.

    Raises `SealBroken` for a damaged text.
    """
    id, organization = str(row[0]), row[1]
    text = None
    if sealer is not None and row[16] is not None:
        sealed = Sealed(row[17], row[18], row[16])
        text = sealer.open(sealed, text_context(organization, id)).decode()
    return Alert(
        id=id,
        organization=organization,
        severity=row[2],
        code=row[3],
        origin=row[4],
        patient=row[5],
        resource=row[6],
        raised_by=row[7],
        to=To(row[8], row[9], row[10]),
        to_all=row[11],
        raised_at=row[12].astimezone(UTC),
        state=row[13],
        level=row[14],
        escalations=row[15],
        due_at=None if row[19] is None else row[19].astimezone(UTC),
        text=text,
        acknowledgements=tuple(
            Acknowledgement(each["actor"], each["role"], datetime.fromisoformat(each["at"]))
            for each in row[20]
        ),
    )
