"""Callers and resources for the tests of the records; every text in them is marked."""

from __future__ import annotations

import time
import uuid
from typing import Any

from deployments.data import scopes
from deployments.data.principal import Caller, Principal, Role

ORGANIZATION = "hospital"
OTHER = "other-hospital"
# Stands in every text of these resources: no row of any table may hold it.
MARK = "Zuleica"
CPF_SYSTEM = "http://rnds.saude.gov.br/fhir/r4/NamingSystem/cpf"
CPF = "52998224725"


def caller(
    role: Role = "physician",
    *,
    practitioner: str | None = None,
    organization: str = ORGANIZATION,
    account: str | None = None,
    key: str | None = None,
    seconds: float = 30.0,
    grants: frozenset[str] | None = None,
) -> Caller:
    """Somebody signed in in this role."""
    machine = role == "service"
    default = frozenset(("system/*.cruds",)) if machine else scopes.ROLE_SCOPES[role]
    who = Principal(
        id=account or str(uuid.uuid4()),
        kind="key" if machine else "account",
        role=role,
        organization=organization,
        scopes=default if grants is None else grants,
        practitioner=practitioner,
    )
    return Caller(
        principal=who,
        request_id=uuid.uuid4().hex,
        address="192.0.2.7",
        deadline=time.monotonic() + seconds,
        idempotency_key=key,
    )


def again(who: Caller, *, key: str | None = None, seconds: float = 30.0) -> Caller:
    """The same principal's next request."""
    return Caller(
        principal=who.principal,
        request_id=uuid.uuid4().hex,
        address=who.address,
        deadline=time.monotonic() + seconds,
        idempotency_key=key,
    )


def patient(*, cpf: str | None = None, **more: Any) -> dict[str, Any]:
    """A patient, named."""
    identifiers = [{"system": CPF_SYSTEM, "value": cpf}] if cpf else []
    named = {"identifier": identifiers} if identifiers else {}
    return {
        "resourceType": "Patient",
        "name": [{"family": f"{MARK} Souza", "given": [f"{MARK}"]}],
        "telecom": [{"system": "phone", "value": f"+55 11 {MARK}"}],
        "gender": "female",
        "birthDate": "1980-02-29",
        **named,
        **more,
    }


def practitioner(family: str = "Andrade") -> dict[str, Any]:
    """A member of staff."""
    return {
        "resourceType": "Practitioner",
        "name": [{"family": family}],
        "telecom": [{"system": "phone", "value": f"+55 21 {MARK}"}],
    }


def observation(patient_id: str, **more: Any) -> dict[str, Any]:
    """A measurement of a patient, with a note."""
    return {
        "resourceType": "Observation",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]},
        "subject": {"reference": f"Patient/{patient_id}", "display": f"{MARK} Souza"},
        "effectiveDateTime": "2026-03-01T10:00:00Z",
        "valueQuantity": {"value": 72, "unit": "beats/minute"},
        "note": [{"text": f"said {MARK}"}],
        **more,
    }


def encounter(
    patient_id: str, practitioner_ids: list[str], status: str = "in-progress", **more: Any
) -> dict[str, Any]:
    """An encounter with its staff."""
    return {
        "resourceType": "Encounter",
        "status": status,
        "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "IMP"},
        "subject": {"reference": f"Patient/{patient_id}"},
        "participant": [
            {"individual": {"reference": f"Practitioner/{each}"}} for each in practitioner_ids
        ],
        **more,
    }


def consent(patient_id: str, *, type: str = "deny", status: str = "active") -> dict[str, Any]:
    """What the patient says of artificial intelligence."""
    loinc = {"system": "http://loinc.org", "code": "59284-0"}
    about = {"system": "urn:medical-record:consent", "code": "ai"}
    return {
        "resourceType": "Consent",
        "status": status,
        "scope": {
            "coding": [
                {
                    "system": "http://terminology.hl7.org/CodeSystem/consentscope",
                    "code": "patient-privacy",
                }
            ]
        },
        "category": [{"coding": [loinc]}],
        "patient": {"reference": f"Patient/{patient_id}"},
        "policyRule": {"text": "CFM 2.454/2026"},
        "provision": {"type": type, "code": [{"coding": [about]}]},
    }
