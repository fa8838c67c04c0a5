"""FHIR R4 resources of what was ordered, reported, written and agreed; see resources.py."""

from __future__ import annotations

from typing import Literal

from deployments.data.demo.codings import (
    ATC,
    CONSENT,
    HL7,
    LOINC,
    Resource,
    coding,
    concept,
    reference,
)
from deployments.data.demo.diseases import Drug

Status = Literal["active", "completed"]


def _dosage(drug: Drug) -> list[Resource]:
    how = "se necessário" if drug.times_a_day == 0 else f"{drug.times_a_day} vez(es) ao dia"
    return [{"text": f"{drug.dose}, {how}", "asNeededBoolean": drug.times_a_day == 0}]


def prescription(
    subject: str,
    visit: str,
    drug: Drug,
    *,
    written: str,
    by: str | None,
    status: Status,
) -> Resource:
    """A MedicationRequest."""
    found: Resource = {
        "resourceType": "MedicationRequest",
        "status": status,
        "intent": "order",
        "medicationCodeableConcept": concept(ATC, drug.atc, drug.display),
        "subject": reference(subject),
        "encounter": reference(visit),
        "authoredOn": written,
        "dosageInstruction": _dosage(drug),
    }
    if by:
        found["requester"] = reference(by)
    return found


def medication(subject: str, drug: Drug, *, since: str, asserted: str) -> Resource:
    """A MedicationStatement: what the patient says that is being taken."""
    return {
        "resourceType": "MedicationStatement",
        "status": "active",
        "medicationCodeableConcept": concept(ATC, drug.atc, drug.display),
        "subject": reference(subject),
        "effectivePeriod": {"start": since},
        "dateAsserted": asserted,
        "dosage": _dosage(drug),
    }


def report(
    subject: str,
    visit: str,
    code: Resource,
    category: str,
    *,
    at: str,
    results: list[str],
    conclusion: str,
) -> Resource:
    """A DiagnosticReport; `category` is a code of HL7's v2-0074."""
    found: Resource = {
        "resourceType": "DiagnosticReport",
        "status": "final",
        "category": [concept(f"{HL7}/v2-0074", category)],
        "code": code,
        "subject": reference(subject),
        "encounter": reference(visit),
        "effectiveDateTime": at,
        "conclusion": conclusion,
    }
    if results:
        found["result"] = [reference(result) for result in results]
    return found


def consent(subject: str, at: str, *, permits_ai: bool) -> Resource:
    """What the patient decided about AI in the own care (CFM Resolution 2.454/2026)."""
    words = "Concorda" if permits_ai else "Não concorda"
    return {
        "resourceType": "Consent",
        "status": "active",
        "scope": concept(f"{HL7}/consentscope", "patient-privacy"),
        "category": [concept(LOINC, "59284-0"), concept(CONSENT, "ai")],
        "patient": reference(subject),
        "dateTime": at,
        "policyRule": {"text": f"{words} com o uso de inteligência artificial em seu cuidado."},
        "provision": {
            "type": "permit" if permits_ai else "deny",
            "class": [coding(CONSENT, "ai")],
        },
    }


def document(
    subject: str, visit: str, *, binary: str, at: str, discharge: bool, size: int
) -> Resource:
    """A DocumentReference to a text of `size` bytes at `binary`."""
    code, title = ("18842-5", "Sumário de alta") if discharge else ("11506-3", "Evolução clínica")
    attachment = {"contentType": "text/plain", "url": binary, "title": title, "size": size}
    return {
        "resourceType": "DocumentReference",
        "status": "current",
        "type": concept(LOINC, code, title),
        "subject": reference(subject),
        "date": at,
        "content": [{"attachment": attachment}],
        "context": {"encounter": [reference(visit)]},
    }
