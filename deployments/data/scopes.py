"""What a token or key permits: SMART on FHIR v2 scopes, and words of our own for everything else.

`user/Patient.rs` is a person's right to read and search patients, `system/*.cruds` a machine's to do
everything with every type. `*` never covers AuditEvent, which only auditors and admins read.
http://hl7.org/fhir/smart-app-launch/scopes-and-launch-context.html
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Literal

from deployments.data.errors import Forbidden, Invalid
from deployments.data.principal import Principal, Role

RESOURCE_TYPES = (
    *("Patient", "Practitioner", "Organization", "Encounter", "Condition", "AllergyIntolerance"),
    *("MedicationRequest", "MedicationStatement", "Observation", "DiagnosticReport"),
    *("DocumentReference", "Binary", "Consent", "Provenance", "AuditEvent"),
)
WORDS = (
    *("ai", "ai:decide", "ai:emergency", "ai:switch", "break-glass", "break-glass:review"),
    *("alerts", "alerts:raise", "admin", "audit:verify"),
)
Letter = Literal["c", "r", "u", "d", "s"]
Compartment = Literal["care", "all", "none"]

MAX_SCOPES = 64
_SMART = re.compile(r"(user|system)/(\*|[A-Za-z]+)\.(c?r?u?d?s?)")
_LETTERS = "cruds"


def _user(*grants: str) -> frozenset[str]:
    return frozenset(grant if grant in WORDS else f"user/{grant}" for grant in grants)


ROLE_SCOPES: Mapping[Role, frozenset[str]] = MappingProxyType(
    {
        "physician": _user(
            *("*.cruds", "ai", "ai:decide", "ai:emergency", "break-glass"),
            *("alerts", "alerts:raise"),
        ),
        "nurse": _user(
            *("Patient.rus", "Encounter.crus", "Observation.cruds", "MedicationStatement.crus"),
            *("AllergyIntolerance.crus", "Condition.rs", "MedicationRequest.rs"),
            *("DiagnosticReport.rs", "DocumentReference.crs", "Binary.cr", "Consent.crs"),
            *("Provenance.crs", "Practitioner.rs", "Organization.rs"),
            *("ai", "ai:decide", "ai:emergency", "break-glass", "alerts", "alerts:raise"),
        ),
        "analyst": _user("Practitioner.rs", "Organization.rs", "ai"),
        "auditor": _user("AuditEvent.rs", "break-glass:review", "audit:verify"),
        "admin": _user(
            *("Patient.crus", "Encounter.crus", "Practitioner.cruds", "Organization.cruds"),
            *("AuditEvent.rs", "admin", "ai:switch", "break-glass:review", "audit:verify"),
        ),
        "service": frozenset(),
    }
)


@lru_cache(maxsize=1024)
def parse(text: str) -> frozenset[str]:
    """The scopes of a space-separated list. Raises `Invalid`, which quotes nothing of it."""
    scopes = text.split()
    if len(scopes) > MAX_SCOPES:
        raise Invalid(f"At most {MAX_SCOPES} scopes are taken.", param="scope", code="bad_scope")
    for scope in scopes:
        if scope not in WORDS and not _is_smart(scope):
            message = "A scope is neither `user|system/Type.cruds` of a served type nor a word."
            raise Invalid(message, param="scope", code="bad_scope")
    return frozenset(scopes)


def _is_smart(scope: str) -> bool:
    found = _SMART.fullmatch(scope)
    return bool(found and found[3] and found[2] in (*RESOURCE_TYPES, "*"))


def text_of(scopes: Iterable[str]) -> str:
    """Scopes as a token writes them, in a fixed order."""
    return " ".join(sorted(scopes))


def permits(principal: Principal, type: str, letter: Letter) -> bool:
    """Whether the principal may do `letter` (create, read, update, delete, search) to a type."""
    if type == "AuditEvent" and principal.role not in ("auditor", "admin"):
        return False
    # A person's grants say user/, a machine's system/; one never counts as the other.
    side = "user" if principal.kind == "account" else "system"
    grants = _table(principal.scopes)
    if letter in grants.get((side, type), ""):
        return True
    return type in RESOURCE_TYPES and type != "AuditEvent" and letter in grants.get((side, "*"), "")


def has(principal: Principal, word: str) -> bool:
    """Whether the principal's scopes hold one of `WORDS`."""
    return word in principal.scopes


def require(principal: Principal, word: str) -> None:
    """Raise `Forbidden` unless the principal's scopes hold `word`."""
    if not has(principal, word):
        raise Forbidden(f"This needs the scope {word}.", code="insufficient_scope")


def require_permitted(principal: Principal, type: str, letter: Letter) -> None:
    """Raise `Forbidden` unless `permits`."""
    if not permits(principal, type, letter):
        what = f"{type}.{letter}" if type in RESOURCE_TYPES else "for this type"
        raise Forbidden(f"This needs a scope {what}.", code="insufficient_scope")


def compartment(principal: Principal) -> Compartment:
    """Which patients row-level security shows: those in care, all of the organisation, or none."""
    if principal.kind == "account":
        if principal.role in ("physician", "nurse"):
            return "care" if principal.practitioner else "none"
        # Limited to the administrative types by its scopes.
        return "all" if principal.role == "admin" else "none"
    if any(side == "system" for side, _ in _table(principal.scopes)):
        return "all"
    return "none"


def narrowed(granted: frozenset[str], asked: frozenset[str]) -> frozenset[str]:
    """What of `granted` somebody gets who asks for `asked`; never more than either."""
    kept = set(granted & asked)
    have = _table(granted)
    for (side, type), letters in _table(asked).items():
        kept.update(_overlap(have, side, type, letters))
    return frozenset(kept)


def _overlap(
    have: Mapping[tuple[str, str], str], side: str, type: str, letters: str
) -> Iterator[str]:
    if type == "*":
        names = [name for there, name in have if there == side and name != "AuditEvent"]
    else:
        names = [type]
    for name in names:
        wildcard = "" if name == "AuditEvent" else have.get((side, "*"), "")
        granted = have.get((side, name), "") + wildcard
        if common := "".join(x for x in _LETTERS if x in letters and x in granted):
            yield f"{side}/{name}.{common}"


@lru_cache(maxsize=1024)
def _table(scopes: frozenset[str]) -> Mapping[tuple[str, str], str]:
    grants: dict[tuple[str, str], str] = {}
    for scope in scopes:
        if found := _SMART.fullmatch(scope):
            key = (found[1], found[2])
            grants[key] = grants.get(key, "") + found[3]
    return grants
