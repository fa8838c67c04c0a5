"""What search needs to know of a resource, taken out of it into the columns of its row."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime


@dataclass(frozen=True, slots=True)
class Index:
    """The extracted columns of `records.resource`.

    `patient` is the bare id of the patient whose compartment it lies in, None where the resource
    alone does not tell. `identifiers` and `names` are blind tokens (`Sealer.blind`); `codes` and
    `categories` plain ones; `refs` holds `Type/id` and `parameter:Type/id` of each relative
    reference. `date_from` is inclusive, `date_to` exclusive.
    """

    patient: str | None = None
    identifiers: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    codes: list[str] = field(default_factory=list)
    categories: list[str] = field(default_factory=list)
    status: str | None = None
    birth_date: date | None = None
    date_from: datetime | None = None
    date_to: datetime | None = None
    refs: list[str] = field(default_factory=list)
