"""FHIR R4 resources of people and visits; texts in Portuguese, references given by the caller."""

from __future__ import annotations

from deployments.data.demo.codings import (
    DEMO,
    HL7,
    ICD_10,
    LOINC,
    UCUM,
    Resource,
    coding,
    concept,
    reference,
)
from deployments.data.demo.measures import MEASURES, Measure
from deployments.data.demo.people import Allergy, Person


def patient(
    person: Person, mark: str, systems: dict[str, str], general_practitioner: str | None
) -> Resource:
    """`systems` are the configured URIs of `cpf` and `cns`; `mark` the demo identifier's value."""
    numbers = {"cpf": person.cpf, "cns": person.cns}
    identifiers = [{"system": DEMO, "value": mark}]
    identifiers += [{"system": systems[key], "value": numbers[key]} for key in ("cpf", "cns")]
    address = person.address
    found: Resource = {
        "resourceType": "Patient",
        "active": True,
        "identifier": identifiers,
        "name": [{"use": "official", "family": person.family, "given": list(person.given)}],
        "telecom": [{"system": "phone", "value": person.phone, "use": "mobile"}],
        "gender": person.sex,
        "birthDate": person.born.isoformat(),
        "address": [
            {
                "use": "home",
                "line": [address.line, address.district],
                "city": address.city,
                "state": address.state,
                "postalCode": address.postal_code,
                "country": "BR",
            }
        ],
    }
    if general_practitioner:
        found["generalPractitioner"] = [reference(general_practitioner)]
    return found


def encounter(
    subject: str,
    mark: str,
    *,
    start: str,
    end: str | None,
    inpatient: bool,
    reason: Resource | None,
    staff: tuple[str, ...],
    organization: str | None,
) -> Resource:
    """A visit or a stay; without an end it is going on."""
    code, display = ("IMP", "inpatient encounter") if inpatient else ("AMB", "ambulatory")
    found: Resource = {
        "resourceType": "Encounter",
        "identifier": [{"system": DEMO, "value": mark}],
        "status": "finished" if end else "in-progress",
        "class": coding(f"{HL7}/v3-ActCode", code, display),
        "subject": reference(subject),
        "period": {"start": start, **({"end": end} if end else {})},
    }
    if staff:
        found["participant"] = [{"individual": reference(who)} for who in staff]
    if organization is not None:
        found["serviceProvider"] = reference(f"Organization/{organization}")
    if reason is not None:
        found["reasonCode"] = [reason]
    return found


def observation(
    subject: str, visit: str, key: str, value: float, at: str, performer: str | None
) -> Resource:
    """One measure."""
    measure = MEASURES[key]
    found = _observation(subject, visit, measure.category, at, performer)
    found["code"] = concept(LOINC, measure.loinc, measure.display)
    found["valueQuantity"] = _quantity(measure, value)
    if measure.usual is not None and any(bound is not None for bound in measure.usual):
        low, high = measure.usual
        span: Resource = {}
        if low is not None:
            span["low"] = _quantity(measure, low)
        if high is not None:
            span["high"] = _quantity(measure, high)
        found["referenceRange"] = [span]
        flag = "L" if low is not None and value < low else "N"
        flag = "H" if high is not None and value > high else flag
        found["interpretation"] = [concept(f"{HL7}/v3-ObservationInterpretation", flag)]
    return found


def blood_pressure(
    subject: str, visit: str, values: dict[str, float], at: str, performer: str | None
) -> Resource:
    """The panel of both pressures, as FHIR's vital signs profile wants it."""
    found = _observation(subject, visit, "vital-signs", at, performer)
    found["code"] = concept(LOINC, "85354-9", "Pressão arterial")
    found["component"] = [
        {
            "code": concept(LOINC, MEASURES[key].loinc, MEASURES[key].display),
            "valueQuantity": _quantity(MEASURES[key], values[key]),
        }
        for key in ("systolic", "diastolic")
    ]
    return found


def _observation(
    subject: str, visit: str, category: str, at: str, performer: str | None
) -> Resource:
    found: Resource = {
        "resourceType": "Observation",
        "status": "final",
        "category": [concept(f"{HL7}/observation-category", category)],
        "subject": reference(subject),
        "encounter": reference(visit),
        "effectiveDateTime": at,
    }
    if performer:
        found["performer"] = [reference(performer)]
    return found


def _quantity(measure: Measure, value: float) -> Resource:
    written: float = int(value) if measure.decimals == 0 else value
    return {"value": written, "unit": measure.unit, "system": UCUM, "code": measure.ucum}


def condition(
    subject: str,
    visit: str | None,
    icd10: str,
    display: str,
    *,
    onset: str,
    recorded: str,
    abated: str | None = None,
    lasting: bool = False,
) -> Resource:
    """A diagnosis; `lasting` puts it on the problem list."""
    category = "problem-list-item" if lasting else "encounter-diagnosis"
    found: Resource = {
        "resourceType": "Condition",
        "clinicalStatus": concept(f"{HL7}/condition-clinical", "resolved" if abated else "active"),
        "verificationStatus": concept(f"{HL7}/condition-ver-status", "confirmed"),
        "category": [concept(f"{HL7}/condition-category", category)],
        "code": concept(ICD_10, icd10, display),
        "subject": reference(subject),
        "onsetDateTime": onset,
        "recordedDate": recorded,
    }
    if visit:
        found["encounter"] = reference(visit)
    if abated:
        found["abatementDateTime"] = abated
    return found


def allergy(subject: str, entry: Allergy, recorded: str) -> Resource:
    """An allergy that is known and confirmed."""
    return {
        "resourceType": "AllergyIntolerance",
        "clinicalStatus": concept(f"{HL7}/allergyintolerance-clinical", "active"),
        "verificationStatus": concept(f"{HL7}/allergyintolerance-verification", "confirmed"),
        "type": "allergy",
        "category": [entry.category],
        "criticality": "high" if entry.severity == "severe" else "low",
        "code": concept(entry.system, entry.code, entry.display),
        "patient": reference(subject),
        "recordedDate": recorded,
        "reaction": [{"manifestation": [{"text": entry.reaction}], "severity": entry.severity}],
    }


def practitioner(mark: str, given: str, family: str) -> Resource:
    """One of the invented staff."""
    return {
        "resourceType": "Practitioner",
        "active": True,
        "identifier": [{"system": DEMO, "value": mark}],
        "name": [{"use": "official", "family": family, "given": [given]}],
    }
