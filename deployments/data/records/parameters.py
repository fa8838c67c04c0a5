"""The search parameters of every type, in one table: parsing, indexing and /metadata follow it.

Only what FHIR R4 defines for a type stands here, under the name that FHIR gives it.
http://hl7.org/fhir/R4/searchparameter-registry.html
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

# How a parameter is compared, and with that its column and FHIR's SearchParamType.
Kind = Literal[
    "id", "updated", "identifier", "name", "code", "category", "status", "birthdate", "date", "ref"
]
FHIR_TYPES: Mapping[Kind, str] = MappingProxyType(
    {
        "id": "token",
        "updated": "date",
        "identifier": "token",
        "name": "string",
        "code": "token",
        "category": "token",
        "status": "token",
        "birthdate": "date",
        "date": "date",
        "ref": "reference",
    }
)
PREFIXES = ("eq", "ne", "gt", "lt", "ge", "le", "sa", "eb")
DATE_KINDS = ("updated", "birthdate", "date")


@dataclass(frozen=True, slots=True)
class Parameter:
    """One search parameter of one type.

    `paths` lead to its values: element names joined by dots, lists entered by themselves. `system`
    is the code system of a status, which the element itself does not hold. `targets` are the held
    types that a reference may have.
    """

    name: str
    kind: Kind
    paths: tuple[str, ...]
    system: str = ""
    targets: tuple[str, ...] = ()

    @property
    def is_patient(self) -> bool:
        """Whether it leads to the patient in whose compartment the resource lies."""
        return self.kind == "ref" and self.name in ("patient", "subject")


def _ref(name: str, path: str, *targets: str) -> Parameter:
    return Parameter(name, "ref", tuple(path.split()), targets=targets)


def _status(name: str, path: str, system: str) -> Parameter:
    return Parameter(name, "status", (path,), system=f"http://{system}")


_HL7, _TERMS = "hl7.org/fhir", "terminology.hl7.org/CodeSystem"
_IDENTIFIER = Parameter("identifier", "identifier", ("identifier",))
_CATEGORY = Parameter("category", "category", ("category",))
_CODE = Parameter("code", "code", ("code",))
_TYPE = Parameter("type", "code", ("type",))
_DATE = Parameter("date", "date", ("date",))
_PATIENT = _ref("patient", "subject", "Patient")
_SUBJECT = _ref("subject", "subject", "Patient")
_ENCOUNTER = _ref("encounter", "encounter", "Encounter")
_PEOPLE = ("Practitioner", "Organization", "Patient")
_NAMES = tuple(
    Parameter(name, "name", (path,))
    for name, path in (("name", "name"), ("family", "name.family"), ("given", "name.given"))
)

EVERY_TYPE = (Parameter("_id", "id", ("id",)), Parameter("_lastUpdated", "updated", ("meta",)))

_TABLE: dict[str, tuple[Parameter, ...]] = {
    "Patient": (
        _IDENTIFIER,
        *_NAMES,
        Parameter("birthdate", "birthdate", ("birthDate",)),
        _ref("general-practitioner", "generalPractitioner", "Practitioner", "Organization"),
        _ref("organization", "managingOrganization", "Organization"),
    ),
    "Practitioner": (_IDENTIFIER, *_NAMES),
    "Organization": (
        _IDENTIFIER,
        Parameter("name", "name", ("name", "alias")),
        _TYPE,
        _ref("partof", "partOf", "Organization"),
    ),
    "Encounter": (
        *(_IDENTIFIER, _PATIENT, _SUBJECT, _TYPE),
        _status("status", "status", f"{_HL7}/encounter-status"),
        Parameter("class", "category", ("class",)),
        Parameter("date", "date", ("period",)),
        _ref("participant", "participant.individual", "Practitioner"),
        _ref("practitioner", "participant.individual", "Practitioner"),
        _ref("service-provider", "serviceProvider", "Organization"),
    ),
    "Condition": (
        *(_IDENTIFIER, _PATIENT, _SUBJECT, _CATEGORY, _CODE, _ENCOUNTER),
        _status("clinical-status", "clinicalStatus", f"{_TERMS}/condition-clinical"),
        Parameter("recorded-date", "date", ("recordedDate",)),
        _ref("asserter", "asserter", "Practitioner", "Patient"),
    ),
    "AllergyIntolerance": (
        _IDENTIFIER,
        _ref("patient", "patient", "Patient"),
        Parameter(
            *("category", "category", ("category",)),
            system=f"http://{_HL7}/allergy-intolerance-category",
        ),
        Parameter("code", "code", ("code", "reaction.substance")),
        _status("clinical-status", "clinicalStatus", f"{_TERMS}/allergyintolerance-clinical"),
        Parameter("date", "date", ("recordedDate",)),
        _ref("recorder", "recorder", "Practitioner", "Patient"),
        _ref("asserter", "asserter", "Practitioner", "Patient"),
    ),
    "MedicationRequest": (
        *(_IDENTIFIER, _PATIENT, _SUBJECT, _CATEGORY, _ENCOUNTER),
        Parameter("code", "code", ("medicationCodeableConcept",)),
        _status("status", "status", f"{_HL7}/CodeSystem/medicationrequest-status"),
        Parameter("authoredon", "date", ("authoredOn",)),
        _ref("requester", "requester", *_PEOPLE),
    ),
    "MedicationStatement": (
        *(_IDENTIFIER, _PATIENT, _SUBJECT, _CATEGORY),
        Parameter("code", "code", ("medicationCodeableConcept",)),
        _status("status", "status", f"{_HL7}/CodeSystem/medication-statement-status"),
        Parameter("effective", "date", ("effectiveDateTime", "effectivePeriod")),
        _ref("context", "context", "Encounter"),
        _ref("source", "informationSource", *_PEOPLE),
    ),
    "Observation": (
        *(_IDENTIFIER, _PATIENT, _SUBJECT, _CATEGORY, _CODE, _ENCOUNTER),
        _status("status", "status", f"{_HL7}/observation-status"),
        Parameter(
            *("date", "date"),
            ("effectiveDateTime", "effectivePeriod", "effectiveInstant", "effectiveTiming"),
        ),
        _ref("performer", "performer", *_PEOPLE),
        _ref("has-member", "hasMember", "Observation"),
        _ref("derived-from", "derivedFrom", "Observation", "DocumentReference"),
    ),
    "DiagnosticReport": (
        *(_IDENTIFIER, _PATIENT, _SUBJECT, _CATEGORY, _CODE, _ENCOUNTER),
        _status("status", "status", f"{_HL7}/diagnostic-report-status"),
        Parameter("date", "date", ("effectiveDateTime", "effectivePeriod")),
        _ref("performer", "performer", "Practitioner", "Organization"),
        _ref("result", "result", "Observation"),
    ),
    "DocumentReference": (
        Parameter("identifier", "identifier", ("masterIdentifier", "identifier")),
        *(_PATIENT, _SUBJECT, _CATEGORY, _TYPE, _DATE),
        _status("status", "status", f"{_HL7}/document-reference-status"),
        _ref("encounter", "context.encounter", "Encounter"),
        _ref("author", "author", *_PEOPLE),
        _ref("custodian", "custodian", "Organization"),
    ),
    "Consent": (
        *(_IDENTIFIER, _CATEGORY),
        _ref("patient", "patient", "Patient"),
        _status("status", "status", f"{_HL7}/consent-state-codes"),
        Parameter("date", "date", ("dateTime",)),
        _ref("consentor", "performer", *_PEOPLE),
        _ref("organization", "organization", "Organization"),
    ),
    "Provenance": (
        _ref("patient", "target", "Patient"),
        _ref(
            *("target", "target", "Patient", "Encounter", "Condition", "AllergyIntolerance"),
            *("MedicationRequest", "MedicationStatement", "Observation", "DiagnosticReport"),
            *("DocumentReference", "Binary", "Consent"),
        ),
        Parameter("recorded", "date", ("recorded",)),
        _ref("agent", "agent.who", *_PEOPLE),
    ),
}

PARAMETERS: Mapping[str, Mapping[str, Parameter]] = MappingProxyType(
    {
        type: MappingProxyType({found.name: found for found in (*EVERY_TYPE, *own)})
        for type, own in _TABLE.items()
    }
)
"""By type, then by name. A type that is not in it cannot be searched."""


def sortable(type: str) -> tuple[str, ...]:
    """The parameters that `_sort` takes for a type: those of one value each."""
    kinds = ("id", *DATE_KINDS)
    return tuple(name for name, found in PARAMETERS[type].items() if found.kind in kinds)


def includable(type: str) -> tuple[str, ...]:
    """The values that `_include` takes for a type, without the optional third part."""
    return tuple(
        f"{type}:{name}" for name, found in PARAMETERS[type].items() if found.kind == "ref"
    )
