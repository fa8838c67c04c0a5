"""Code systems, and the small FHIR types that every resource is made of."""

from __future__ import annotations

from datetime import date
from typing import Any

Resource = dict[str, Any]

LOINC = "http://loinc.org"
ICD_10 = "http://hl7.org/fhir/sid/icd-10"
ATC = "http://www.whocc.no/atc"
UCUM = "http://unitsofmeasure.org"
HL7 = "http://terminology.hl7.org/CodeSystem"
# Ours: by it `medrec demo load` recognises what it has loaded before.
DEMO = "urn:medical-record:demo"
CONSENT = "urn:medical-record:consent"
ZONE = "-03:00"


def coding(system: str, code: str, display: str | None = None) -> Resource:
    """One Coding."""
    found = {"system": system, "code": code}
    return {**found, "display": display} if display else found


def concept(system: str, code: str, display: str | None = None) -> Resource:
    """A CodeableConcept of one coding."""
    return {"coding": [coding(system, code, display)]}


def moment(on: date, minute: int) -> str:
    """An instant of the day, in Brasília's time; `minute` counts from midnight."""
    hours, minutes = divmod(minute, 60)
    return f"{on.isoformat()}T{hours:02d}:{minutes:02d}:00{ZONE}"


def reference(to: str) -> Resource:
    """A literal reference."""
    return {"reference": to}
