"""What goes in and out of the records: one version of a resource, one write, one bundle entry."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from deployments.data.records.search import SearchQuery

# Types that every member of an organisation may see, as far as scopes permit.
SHARED_TYPES = ("Practitioner", "Organization")
# Types that belong to one patient each: seen only by who cares for that patient.
COMPARTMENT_TYPES = (
    *("Patient", "Encounter", "Condition", "AllergyIntolerance", "MedicationRequest"),
    *("MedicationStatement", "Observation", "DiagnosticReport", "DocumentReference", "Binary"),
    *("Consent", "Provenance"),
)
TYPES = (*COMPARTMENT_TYPES, *SHARED_TYPES)

Method = Literal["POST", "PUT", "DELETE"]


@dataclass(frozen=True, slots=True)
class Stored:
    """One version of a resource as it is held; `resource` is None for a deletion.

    `patient` is the id of the patient whose compartment it lies in, None for shared types.
    """

    type: str
    id: str
    version: int
    updated_at: datetime
    resource: dict[str, Any] | None
    method: str
    patient: str | None = None

    @property
    def reference(self) -> str:
        """`Type/id`."""
        return f"{self.type}/{self.id}"


@dataclass(frozen=True, slots=True)
class Written:
    """What a write led to. `created` is False where it was there already; `replayed` where the
    same idempotency key had written it before."""

    stored: Stored
    created: bool
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class BundleEntry:
    """One entry of a transaction. `id` is None for POST and for searches; `full_url` names a POST
    for the references of other entries (`urn:uuid:…`)."""

    method: Literal["DELETE", "POST", "PUT", "GET"]
    type: str
    id: str | None = None
    full_url: str | None = None
    resource: dict[str, Any] | None = None
    if_match: int | None = None
    if_none_exist: SearchQuery | None = None
    query: SearchQuery | None = None
