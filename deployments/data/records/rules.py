"""Rules of single resource types that the models do not know: whose they are, codes, invariants.

Keys like con-4 are those of the specification, http://hl7.org/fhir/R4/.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from deployments.data.records.structure import against

# Where a resource names its patient. FHIR leaves some of these optional; here access to a resource
# follows its patient, so one without could be seen by nobody, or by everybody.
PATIENT_AT: Mapping[str, str] = MappingProxyType(
    {
        "Encounter": "subject",
        "Condition": "subject",
        "AllergyIntolerance": "patient",
        "MedicationRequest": "subject",
        "MedicationStatement": "subject",
        "Observation": "subject",
        "DiagnosticReport": "subject",
        "DocumentReference": "subject",
        "Consent": "patient",
    }
)
_PATIENT = re.compile(r"Patient/[A-Za-z0-9.-]{1,64}")

_TERMS = "http://terminology.hl7.org/CodeSystem"
_CODED: Mapping[tuple[str, str], tuple[str, tuple[str, ...]]] = MappingProxyType(
    {
        ("Condition", "clinicalStatus"): (
            f"{_TERMS}/condition-clinical",
            ("active", "recurrence", "relapse", "inactive", "remission", "resolved"),
        ),
        ("Condition", "verificationStatus"): (
            f"{_TERMS}/condition-ver-status",
            (
                *("unconfirmed", "provisional", "differential", "confirmed", "refuted"),
                "entered-in-error",
            ),
        ),
        ("AllergyIntolerance", "clinicalStatus"): (
            f"{_TERMS}/allergyintolerance-clinical",
            ("active", "inactive", "resolved"),
        ),
        ("AllergyIntolerance", "verificationStatus"): (
            f"{_TERMS}/allergyintolerance-verification",
            ("unconfirmed", "confirmed", "refuted", "entered-in-error"),
        ),
    }
)


def check_rules(type: str, resource: Mapping[str, Any]) -> None:
    """Raise `Unprocessable` at the first rule of the type that the resource breaks."""
    if (name := PATIENT_AT.get(type)) is not None:
        _check_patient(resource, f"{type}.{name}", name)
    for (owner, name), (system, codes) in _CODED.items():
        if owner == type and name in resource:
            _check_coded(resource[name], f"{type}.{name}", system, codes)
    if (check := _CHECKS.get(type)) is not None:
        check(resource)


def _check_patient(resource: Mapping[str, Any], path: str, name: str) -> None:
    reference = resource.get(name, {}).get("reference")
    if reference is None or not _PATIENT.fullmatch(reference):
        raise against(path, "must refer to a patient held here, as Patient/id")


def _check_coded(concept: Any, path: str, system: str, codes: tuple[str, ...]) -> None:
    own = [each.get("code") for each in concept.get("coding", ()) if each.get("system") == system]
    if len(own) != 1 or own[0] not in codes:
        raise against(path, f"needs one code of {system}: {', '.join(codes)}")


def code_of(resource: Mapping[str, Any], name: str, system: str) -> str | None:
    """The code of `system` in the CodeableConcept `name`."""
    for coding in resource.get(name, {}).get("coding", ()):
        if coding.get("system") == system:
            return str(coding.get("code"))
    return None


def _patient(resource: Mapping[str, Any]) -> None:
    for position, contact in enumerate(resource.get("contact", ())):
        if not {"name", "telecom", "address", "organization"} & set(contact):
            path = f"Patient.contact[{position}]"
            raise against(path, "tells neither details nor an organization (pat-1)")


def _organization(resource: Mapping[str, Any]) -> None:
    if not {"identifier", "name"} & set(resource):
        raise against("Organization", "needs an identifier or a name (org-1)")


def _condition(resource: Mapping[str, Any]) -> None:
    clinical = code_of(resource, "clinicalStatus", f"{_TERMS}/condition-clinical")
    verified = code_of(resource, "verificationStatus", f"{_TERMS}/condition-ver-status")
    if verified == "entered-in-error" and clinical is not None:
        raise against("Condition.clinicalStatus", "has no place where entered in error (con-5)")
    abated = any(name.startswith("abatement") for name in resource)
    if abated and clinical not in (None, "inactive", "resolved", "remission"):
        raise against("Condition.clinicalStatus", "is active after the abatement (con-4)")


def _allergy(resource: Mapping[str, Any]) -> None:
    clinical = resource.get("clinicalStatus")
    system = f"{_TERMS}/allergyintolerance-verification"
    wrong = code_of(resource, "verificationStatus", system) == "entered-in-error"
    if wrong == (clinical is not None):
        problem = "has no place where entered in error, and is needed elsewhere (ait-1, ait-2)"
        raise against("AllergyIntolerance.clinicalStatus", problem)


def _observation(resource: Mapping[str, Any]) -> None:
    _check_absent(resource, "Observation")
    for position, component in enumerate(resource.get("component", ())):
        _check_absent(component, f"Observation.component[{position}]")


def _check_absent(part: Mapping[str, Any], path: str) -> None:
    if "dataAbsentReason" in part and any(name.startswith("value") for name in part):
        raise against(f"{path}.dataAbsentReason", "stands beside a value (obs-6)")


def _consent(resource: Mapping[str, Any]) -> None:
    if not {"policy", "policyRule"} & set(resource):
        raise against("Consent", "needs a policy or a policyRule (ppc-1)")


_CHECKS: Mapping[str, Callable[[Mapping[str, Any]], None]] = MappingProxyType(
    {
        "Patient": _patient,
        "Organization": _organization,
        "Condition": _condition,
        "AllergyIntolerance": _allergy,
        "Observation": _observation,
        "Consent": _consent,
    }
)
