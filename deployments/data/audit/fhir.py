"""An entry of the chain as a FHIR R4 AuditEvent.

The shape follows IHE's Basic Audit Log Patterns (PatientRead and its siblings): a client, the server
and the user as agents; the patient, the data and the request's id as entities. What the chain adds,
sequence and hash, stands in an extension.
http://hl7.org/fhir/R4/auditevent.html, https://profiles.ihe.net/ITI/BALP/
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from deployments.data.audit.codes import ACTION, DCM, KINDS, Code, Kind

CHAIN = "urn:medical-record:audit-chain"
_ENTITY_TYPE = "http://terminology.hl7.org/CodeSystem/audit-entity-type"
_ENTITY_ROLE = "http://terminology.hl7.org/CodeSystem/object-role"
_SOURCE_TYPE = "http://terminology.hl7.org/CodeSystem/security-source-type"
_PARTICIPATION = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType"
_REASON = "http://terminology.hl7.org/CodeSystem/v3-ActReason"
_BALP_ENTITY = "https://profiles.ihe.net/ITI/BALP/CodeSystem/BasicAuditEntityType"
_ROLE = "urn:medical-record:role"

_SOURCE: Code = (DCM, "110153", "Source Role ID")
_DESTINATION: Code = (DCM, "110152", "Destination Role ID")
_RECIPIENT: Code = (_PARTICIPATION, "IRCP", "information recipient")
_PERSON: Code = (_ENTITY_TYPE, "1", "Person")
_OBJECT: Code = (_ENTITY_TYPE, "2", "System Object")
_PATIENT: Code = (_ENTITY_ROLE, "1", "Patient")
_DOMAIN: Code = (_ENTITY_ROLE, "4", "Domain Resource")
_JOB: Code = (_ENTITY_ROLE, "20", "Job")
_SERVER: Code = (_SOURCE_TYPE, "4", "Application Server")
# AuditEvent.outcome of each of our words.
OUTCOMES = {"success": "0", "denied": "4", "interrupted": "4", "failed": "8"}


def audit_event(seq: int, hash: bytes, body: str | bytes) -> dict[str, Any]:
    """The AuditEvent of the entry that is chained at `seq` with `hash`."""
    entry: dict[str, Any] = orjson.loads(body)
    kind = KINDS[entry["action"]]
    event: dict[str, Any] = {
        "resourceType": "AuditEvent",
        "id": entry["id"],
        "meta": {"versionId": "1", "lastUpdated": entry["at"]},
        "extension": [_chained(seq, hash)],
        "type": _coding(kind.type),
        "subtype": [
            *map(_coding, kind.subtypes),
            {"system": ACTION, "code": entry["action"]},
        ],
        "action": kind.letter,
        "recorded": entry["at"],
        "outcome": OUTCOMES[entry["outcome"]],
        "outcomeDesc": entry["outcome"],
        "agent": _agents(entry, kind),
        "source": _source(entry),
    }
    if entry["purpose"]:
        event["purposeOfEvent"] = [{"coding": [{"system": _REASON, "code": entry["purpose"]}]}]
    if entities := list(_entities(entry)):
        event["entity"] = entities
    return event


def reference_of(patient: str) -> str:
    """`Patient/…`, of an entry's patient, which is the id with or without its type."""
    return patient if "/" in patient else f"Patient/{patient}"


def _chained(seq: int, hash: bytes) -> dict[str, Any]:
    # A sequence can outgrow FHIR's 32-bit integer.
    return {
        "url": CHAIN,
        "extension": [
            {"url": "sequence", "valueString": str(seq)},
            {"url": "hash", "valueString": hash.hex()},
        ],
    }


def _agents(entry: Mapping[str, Any], kind: Kind) -> list[dict[str, Any]]:
    user = {
        "type": _concept(_RECIPIENT),
        "who": _identified(f"urn:medical-record:{entry['actor_kind']}", entry["actor"]),
        "requestor": True,
    }
    if entry["role"]:
        user["role"] = [{"coding": [{"system": _ROLE, "code": entry["role"]}]}]
    client: dict[str, Any] = {
        "type": _concept(_DESTINATION if kind.is_read else _SOURCE),
        "who": {"display": entry["device"] or "client"},
        "requestor": False,
    }
    if entry["address"]:
        client["network"] = _network(entry["address"])
    server = {
        "type": _concept(_SOURCE if kind.is_read else _DESTINATION),
        "who": {"display": "Medical Record"},
        "requestor": False,
    }
    return [user, client, server]


def _network(address: str) -> dict[str, str]:
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return {"address": address, "type": "1"}  # a machine's name
    return {"address": address, "type": "2"}


def _source(entry: Mapping[str, Any]) -> dict[str, Any]:
    observer: dict[str, Any] = {"display": "Medical Record"}
    if not (organization := entry["organization"]):
        return {"observer": observer, "type": [_coding(_SERVER)]}
    observer |= _identified("urn:medical-record:organization", organization)
    return {"site": organization, "observer": observer, "type": [_coding(_SERVER)]}


def _entities(entry: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    details = [
        {"type": name, "valueString": _text(value)}
        for name, value in sorted(entry["details"].items())
        if name and _text(value) and name != "patients"
    ]
    resource = entry["resource"]
    if resource:
        # A search has a type alone, and so nothing that could be referred to.
        named = {"reference": resource} if "/" in resource else {"display": resource}
        data = {"what": named, "type": _coding(_OBJECT), "role": _coding(_DOMAIN)}
        yield {**data, "detail": details} if details else data
    elif details:
        yield {
            "what": {"display": entry["action"]},
            "type": _coding(_OBJECT),
            "role": _coding(_JOB),
            "detail": details,
        }
    several = entry["details"].get("patients")
    for patient in several if isinstance(several, list) else filter(None, [entry["patient"]]):
        yield {
            "what": {"reference": reference_of(str(patient))},
            "type": _coding(_PERSON),
            "role": _coding(_PATIENT),
        }
    if entry["request_id"]:
        yield {
            "what": _identified("urn:medical-record:request", entry["request_id"]),
            "type": {"system": _BALP_ENTITY, "code": "XrequestId"},
        }


def _identified(system: str, value: str) -> dict[str, Any]:
    return {"identifier": {"system": system, "value": value or "unknown"}}


def _coding(code: Code) -> dict[str, str]:
    return {"system": code[0], "code": code[1], "display": code[2]}


def _concept(code: Code) -> dict[str, Any]:
    return {"coding": [_coding(code)]}


def _text(value: object) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()
