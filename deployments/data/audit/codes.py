"""What each action of the audit is called in FHIR: AuditEvent's type, subtypes and action letter.

DICOM's codes for security events (PS3.16, CID 400 ff.), FHIR's own for RESTful interactions; every
event bears our word as well, so that nothing is lost where several words share a code.
http://hl7.org/fhir/R4/valueset-audit-event-type.html, …/valueset-audit-event-sub-type.html
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

DCM = "http://dicom.nema.org/resources/ontology/DCM"
REST = "http://terminology.hl7.org/CodeSystem/audit-event-type"
INTERACTION = "http://hl7.org/fhir/restful-interaction"
LIFECYCLE = "http://terminology.hl7.org/CodeSystem/iso-21089-lifecycle"
ACTION = "urn:medical-record:audit-action"

Code = tuple[str, str, str]  # system, code, display


@dataclass(frozen=True, slots=True)
class Kind:
    """AuditEvent.type, .subtype (without our own word) and .action of one action."""

    type: Code
    subtypes: tuple[Code, ...]
    letter: Literal["C", "R", "U", "D", "E"]

    @property
    def is_read(self) -> bool:
        """Whether data went out: the server is the source then, the client the destination."""
        return self.letter in "RE"


_REST = (REST, "rest", "RESTful Operation")
_AUTHENTICATION = (DCM, "110114", "User Authentication")
_ALERT = (DCM, "110113", "Security Alert")
_ACTIVITY = (DCM, "110100", "Application Activity")
_LOG_USED = (DCM, "110101", "Audit Log Used")
_EXPORT = (DCM, "110106", "Export")
_SECURITY_CONFIGURATION = (DCM, "110129", "Security Configuration")
_SOFTWARE_CONFIGURATION = (DCM, "110131", "Software Configuration")
_RESTRICTED = (DCM, "110132", "Use of Restricted Function")
_ATTRIBUTES_CHANGED = (DCM, "110137", "User Security Attributes Changed")
_DESTROY = (LIFECYCLE, "destroy", "Destroy/Delete Record Lifecycle Event")


def _rest(code: str, letter: Literal["C", "R", "U", "D", "E"]) -> Kind:
    return Kind(_REST, ((INTERACTION, code, code),), letter)


KINDS: dict[str, Kind] = {
    "sign-in": Kind(_AUTHENTICATION, ((DCM, "110122", "Login"),), "E"),
    "sign-out": Kind(_AUTHENTICATION, ((DCM, "110123", "Logout"),), "E"),
    "refresh": Kind(_AUTHENTICATION, (), "E"),
    "step-up": Kind(_AUTHENTICATION, ((DCM, "110122", "Login"),), "E"),
    "passkey-registered": Kind(_ALERT, (_ATTRIBUTES_CHANGED,), "U"),
    "password-changed": Kind(_ALERT, (_ATTRIBUTES_CHANGED,), "U"),
    "access": Kind(_ALERT, (_RESTRICTED,), "E"),
    "read": _rest("read", "R"),
    "vread": _rest("vread", "R"),
    "history": _rest("history-instance", "R"),
    "search": _rest("search-type", "E"),
    "everything": _rest("operation", "E"),
    "create": _rest("create", "C"),
    "update": _rest("update", "U"),
    "delete": _rest("delete", "D"),
    "transaction": _rest("transaction", "E"),
    "upload": _rest("create", "C"),
    "download": _rest("read", "R"),
    "export": Kind(_EXPORT, (), "R"),
    "erase": Kind(_DESTROY, (), "D"),
    "purge": Kind(_DESTROY, (), "D"),
    "ai-request": Kind(_ACTIVITY, (), "E"),
    "ai-answer": Kind(_ACTIVITY, (), "E"),
    "ai-decision": Kind(_ACTIVITY, (), "C"),
    "ai-switch": Kind(_ALERT, (_SOFTWARE_CONFIGURATION,), "U"),
    "break-glass": Kind(_ALERT, ((DCM, "110127", "Emergency Override Started"),), "E"),
    "break-glass-review": Kind(_LOG_USED, (), "E"),
    "consent-refusal": Kind(_ALERT, (_RESTRICTED,), "E"),
    "alert-raise": Kind(_ACTIVITY, (), "C"),
    "alert-delivery": Kind(_ACTIVITY, (), "R"),
    "alert-acknowledge": Kind(_ACTIVITY, (), "U"),
    "alert-escalate": Kind(_ACTIVITY, (), "U"),
    "alert-resolve": Kind(_ACTIVITY, (), "U"),
    "account-change": Kind(_ALERT, (_ATTRIBUTES_CHANGED,), "U"),
    "key-change": Kind(_ALERT, (_ATTRIBUTES_CHANGED,), "U"),
    "seal": Kind(_ALERT, (_SECURITY_CONFIGURATION,), "U"),
    "audit-read": Kind(_LOG_USED, (), "R"),
    "audit-verify": Kind(_LOG_USED, (), "E"),
    "audit-anchor": Kind(_LOG_USED, (), "E"),
    "start": Kind(_ACTIVITY, ((DCM, "110120", "Application Start"),), "E"),
    "stop": Kind(_ACTIVITY, ((DCM, "110121", "Application Stop"),), "E"),
    "configuration": Kind(_ALERT, (_SOFTWARE_CONFIGURATION,), "U"),
    "migration": Kind(_ALERT, (_SOFTWARE_CONFIGURATION,), "U"),
    "site-decision": Kind(_ACTIVITY, (), "E"),
    "drill": Kind(_ACTIVITY, (), "E"),
    "emergency": Kind(_ALERT, ((DCM, "110127", "Emergency Override Started"),), "E"),
    "emergency-note": _rest("create", "C"),
    "emergency-review": Kind(_LOG_USED, (), "R"),
    "emergency-return": Kind(_ALERT, ((DCM, "110138", "Emergency Override Stopped"),), "U"),
}
