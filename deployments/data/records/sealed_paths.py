"""Which parts of a resource are kept sealed, and the split into an open and a sealed part.

The rule fails safe: codes, values, dates and references stay open by name, what is named here as
sealed goes whole, and any other string, also one of an element that nobody thought of, is sealed.
Elements of lists keep their places, so that both parts join again without loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Pointer = list[str | int]
Part = tuple[Pointer, Any]

# Sealed whole wherever they stand, in contained resources and extensions as well.
EVERYWHERE = frozenset(("text", "note", "identifier", "valueIdentifier", "valueAnnotation"))

# Sealed whole as elements of these types: "Patient.contact" holds names, genders and addresses.
BY_TYPE: Mapping[str, frozenset[str]] = {
    "Patient": frozenset(("name", "telecom", "address", "photo", "contact")),
    "Practitioner": frozenset(("telecom", "address", "photo")),
    "Organization": frozenset(("telecom", "address", "contact")),
    "DocumentReference": frozenset(("description",)),
    "DiagnosticReport": frozenset(("conclusion", "presentedForm", "media")),
    "Consent": frozenset(("sourceAttachment", "verification")),
    "Provenance": frozenset(("signature",)),
    "Binary": frozenset(("data",)),
}

# Strings that stay open, by the name of their element: words of code systems, URIs of systems,
# units, references, and points in time. `value` of a Quantity is a number and so stays as well.
OPEN = frozenset(
    (
        *("resourceType", "id", "profile", "reference", "type", "system", "code", "version"),
        *("unit", "comparator", "language", "contentType", "hash", "gender", "use", "mode"),
        *("status", "docStatus", "intent", "priority", "criticality", "preference", "relation"),
        *("durationUnit", "periodUnit", "when", "dayOfWeek", "timeOfDay", "event", "valueCode"),
        *("start", "end", "date", "issued", "recorded", "authoredOn", "dateAsserted", "created"),
        *("assertedDate", "recordedDate", "lastOccurrence", "creation", "dateTime", "birthDate"),
        *("onsetDateTime", "abatementDateTime", "effectiveDateTime", "effectiveInstant"),
        *("occurredDateTime", "deceasedDateTime", "valueDate", "valueDateTime", "valueTime"),
        *("valueInstant", "time"),
    )
)
# Practitioners and organisations are known by name in the hospital: theirs are read everywhere.
OPEN_BY_TYPE: Mapping[str, frozenset[str]] = {
    "Practitioner": frozenset(("family", "given", "prefix", "suffix")),
    "Organization": frozenset(("name", "alias")),
}


def split(resource: Mapping[str, Any]) -> tuple[dict[str, Any], list[Part]]:
    """The open part, and what was taken out of it with its place. `resource` stays as it is."""
    sealed: list[Part] = []
    kind = str(resource.get("resourceType", ""))
    return _open_part(resource, kind, [], sealed, top=True), sealed


def join(content: dict[str, Any], sealed: list[Part]) -> dict[str, Any]:
    """The whole resource again; `content` becomes it."""
    for pointer, value in sealed:
        place: Any = content
        for step in pointer[:-1]:
            place = place[step]
        place[pointer[-1]] = value
    return content


def _open_part(
    element: Mapping[str, Any], kind: str, pointer: Pointer, sealed: list[Part], *, top: bool
) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    whole = BY_TYPE.get(kind.removeprefix("#"), frozenset()) if top else frozenset()
    for key, value in element.items():
        here: Pointer = [*pointer, key]
        if key in EVERYWHERE or key in whole or not _may_stay(key, value, element, pointer, kind):
            sealed.append((here, value))
        elif isinstance(value, Mapping):
            kept[key] = _nested(value, kind, here, sealed)
        elif isinstance(value, list):
            kept[key] = [
                _nested(item, kind, [*here, i], sealed) if isinstance(item, Mapping) else item
                for i, item in enumerate(value)
            ]
        else:
            kept[key] = value
    return kept


def _nested(
    value: Mapping[str, Any], kind: str, pointer: Pointer, sealed: list[Part]
) -> dict[str, Any]:
    """An element below; a contained resource is one of its own type, without names left open."""
    inner = value.get("resourceType")
    if isinstance(inner, str):
        return _open_part(value, f"#{inner}", pointer, sealed, top=True)
    return _open_part(value, kind, pointer, sealed, top=False)


def _may_stay(
    key: str, value: Any, element: Mapping[str, Any], pointer: Pointer, kind: str
) -> bool:
    """Whether nothing of `value` itself is free text; elements inside are looked at by themselves."""
    if isinstance(value, list):
        return all(
            item is None
            or isinstance(item, Mapping)
            or (not isinstance(item, list) and _may_stay(key, item, element, pointer, kind))
            for item in value
        )
    if not isinstance(value, str):
        return True
    if key == "url":
        return "extension" in pointer[-2:] or "modifierExtension" in pointer[-2:]
    return key in OPEN or key in OPEN_BY_TYPE.get(kind, ())
