"""What a loader is given: charts in parts, and what every chart depends on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from deployments.data.demo.codings import Resource


@dataclass(frozen=True, slots=True)
class Staff:
    """References to the Practitioners that appear: the demo users where there are any, and others."""

    physicians: tuple[str, ...]
    demo_physician: str | None = None
    demo_nurse: str | None = None


@dataclass(frozen=True, slots=True)
class Population:
    """What every chart depends on. `systems` are the URIs of `cpf` and `cns`."""

    seed: int
    as_of: date
    organization: str | None
    staff: Staff
    systems: dict[str, str]


@dataclass(frozen=True, slots=True)
class Part:
    """A transaction: `mark` is the demo identifier of its first entry, which says it is there."""

    mark: str
    entries: tuple[Resource, ...]

    @property
    def resource_type(self) -> str:
        """Patient in the first part, Encounter in the others."""
        found: str = self.entries[0]["resource"]["resourceType"]
        return found

    def bundle(self) -> Resource:
        """The transaction Bundle."""
        return {"resourceType": "Bundle", "type": "transaction", "entry": list(self.entries)}


@dataclass(frozen=True, slots=True)
class Note:
    """A text for /fhir/Binary and the DocumentReference to it, which lacks the Binary's id.

    `visit` is the urn of the Encounter that it is about and `visit_mark` its demo identifier.
    """

    mark: str
    text: bytes
    document: Resource
    visit: str
    visit_mark: str


@dataclass(frozen=True, slots=True)
class Chart:
    """One patient's parts in the order in which they are loaded; the first holds the Patient."""

    patient: str
    parts: tuple[Part, ...]
    note: Note | None
