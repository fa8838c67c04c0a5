"""/metadata: the CapabilityStatement, written from the tables that the server itself works by."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from configs.args import RecordsArgs
from deployments.data.records.parameters import FHIR_TYPES, PARAMETERS, Parameter, includable
from serve_app.fhir import audit_events
from serve_app.fhir.negotiation import FHIR_JSON
from serve_app.fhir.requests import SERVED

# When the statement last changed in what it says.
DATE = "2026-11-22"
FHIR_VERSION = "4.0.1"

INTERACTIONS = ("read", "vread", "history-instance", "create", "update", "delete", "search-type")
AUDIT_INTERACTIONS = ("read", "search-type")
BINARY_INTERACTIONS = ("read", "vread", "history-instance", "create", "delete")
_EVERYTHING = "http://hl7.org/fhir/OperationDefinition/Patient-everything"
_SECURITY = "http://terminology.hl7.org/CodeSystem/restful-security-service"


def capability_statement(base: str, args: RecordsArgs) -> dict[str, Any]:
    """The statement as a client at `base` sees it."""
    return {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": DATE,
        "kind": "instance",
        "software": {"name": "Medical Record", "version": _version()},
        "implementation": {"description": "Patient records of one installation", "url": base},
        "fhirVersion": FHIR_VERSION,
        "format": ["json", FHIR_JSON],
        "rest": [
            {
                "mode": "server",
                "documentation": _documentation(args),
                "security": {
                    "cors": False,
                    "service": [{"coding": [{"system": _SECURITY, "code": "SMART-on-FHIR"}]}],
                    "description": "Bearer tokens of /v1/auth/token, or API keys; SMART scopes.",
                },
                "resource": [*map(_resource, SERVED), _binary(), _audit_event()],
                "interaction": [{"code": "transaction"}],
            }
        ],
    }


def _documentation(args: RecordsArgs) -> str:
    systems = ", ".join(f"{name}: {uri}" for name, uri in sorted(args.identifier_systems.items()))
    return (
        "Ids are the server's. Unknown parameters, modifiers and prefixes are refused with 400. "
        "Writes take an Idempotency-Key. modifierExtension and implicitRules are refused. "
        f"Identifiers checked by digit: {systems}."
    )


def _resource(type: str) -> dict[str, Any]:
    statement: dict[str, Any] = {
        "type": type,
        "interaction": _interactions(INTERACTIONS),
        "versioning": "versioned",
        "readHistory": True,
        "updateCreate": False,
        "conditionalCreate": True,
        "conditionalRead": "not-match",
        "conditionalUpdate": False,
        "conditionalDelete": "not-supported",
        "referencePolicy": ["literal", "logical", "local", "enforced"],
        "searchInclude": list(includable(type)),
        "searchParam": [_parameter(each) for each in PARAMETERS[type].values()],
    }
    if not statement["searchInclude"]:
        del statement["searchInclude"]
    if type == "Patient":
        statement["operation"] = [{"name": "everything", "definition": _EVERYTHING}]
    return statement


def _interactions(codes: tuple[str, ...]) -> list[dict[str, str]]:
    return [{"code": code} for code in codes]


def _parameter(parameter: Parameter) -> dict[str, str]:
    found = {"name": parameter.name, "type": FHIR_TYPES[parameter.kind]}
    if parameter.kind == "name":
        found["documentation"] = "Beginnings of words without case and accents, or :exact."
    elif found["type"] == "date":
        found["documentation"] = "Prefixes eq, ne, gt, lt, ge, le, sa, eb; UTC without a zone."
    return found


def _binary() -> dict[str, Any]:
    return {
        "type": "Binary",
        "interaction": _interactions(BINARY_INTERACTIONS),
        "versioning": "versioned",
        "readHistory": True,
        "updateCreate": False,
        "conditionalCreate": False,
        "conditionalUpdate": False,
        "conditionalDelete": "not-supported",
    }


def _audit_event() -> dict[str, Any]:
    return {
        "type": "AuditEvent",
        "interaction": _interactions(AUDIT_INTERACTIONS),
        "versioning": "no-version",
        "readHistory": False,
        "updateCreate": False,
        "searchParam": [
            {"name": name, "type": type, **({"documentation": note} if note else {})}
            for name, type, note in audit_events.PARAMETERS
        ],
    }


def _version() -> str:
    try:
        return version("medical-record")
    except PackageNotFoundError:
        return "0"
