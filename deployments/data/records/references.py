"""References between resources: found, rewritten, and held to what is there.

A reference must lead to something that its writer may see, and never from one patient's compartment
into another's: what hangs together is read together.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import psycopg

from deployments.data.errors import Unprocessable
from deployments.data.records.missing import UnknownReference
from deployments.data.records.shapes import SHARED_TYPES, TYPES

Connection = psycopg.AsyncConnection[tuple[Any, ...]]

_RELATIVE = re.compile(r"([A-Z][A-Za-z]{1,63})/([A-Za-z0-9.-]{1,64})(?:/_history/[^/]+)?")
_URN = "urn:uuid:"

_HELD = """
SELECT r.type, r.id, r.patient FROM unnest(%s::text[], %s::text[]) AS w(type, id)
JOIN records.resource AS r ON r.type = w.type AND r.id = w.id
WHERE r.organization = current_setting('medrec.organization') AND NOT r.deleted
"""
# The lock lets others write for the same patient, but not delete the patient meanwhile.
_PATIENT = """
SELECT records.by_break_glass(r.id) FROM records.resource AS r
WHERE r.type = 'Patient' AND r.organization = current_setting('medrec.organization')
  AND r.id = %s AND NOT r.deleted FOR KEY SHARE OF r
"""


def references_of(resource: Any) -> set[tuple[str, str]]:
    """(type, id) of every relative literal reference to a type that is held here."""
    return {
        (found[1], found[2])
        for text in _texts(resource)
        if (found := _RELATIVE.fullmatch(text)) and found[1] in TYPES
    }


def _texts(element: Any) -> Iterator[str]:
    if isinstance(element, Mapping):
        for key, value in element.items():
            if key == "reference" and isinstance(value, str):
                yield value
            else:
                yield from _texts(value)
    elif isinstance(element, list):
        for item in element:
            yield from _texts(item)


def rewritten(element: Any, names: Mapping[str, str]) -> Any:
    """`element` with every text that is one of `names` replaced; links in narratives as well."""
    if isinstance(element, Mapping):
        return {
            key: _narrative(value, names) if key == "div" else rewritten(value, names)
            for key, value in element.items()
        }
    if isinstance(element, list):
        return [rewritten(item, names) for item in element]
    return names.get(element, element) if isinstance(element, str) else element


def _narrative(value: Any, names: Mapping[str, str]) -> Any:
    if not isinstance(value, str) or _URN not in value:
        return rewritten(value, names)
    for name, reference in names.items():
        value = value.replace(f'"{name}"', f'"{reference}"')
    return value


def refuse_unresolved(resource: Mapping[str, Any]) -> None:
    """Raise `Unprocessable` for a reference to an entry that the transaction does not have."""
    if any(text.startswith(_URN) for text in _texts(resource)):
        raise Unprocessable(
            "A reference names a fullUrl that no entry of the transaction has.",
            param="Reference.reference",
            code="reference_unresolved",
        )


async def patient_of_anchors(
    connection: Connection,
    resource: Mapping[str, Any],
    pending: Mapping[tuple[str, str], str | None],
) -> str | None:
    """The patient of what a Provenance or Binary belongs to, where itself names none."""
    anchors = resource.get("target") or resource.get("securityContext")
    wanted = references_of(anchors)
    found = await _held(connection, wanted - set(pending))
    patients = {{**pending, **found}[name] for name in wanted if name in pending or name in found}
    patients.discard(None)
    if len(patients) > 1:
        raise Unprocessable("It belongs to resources of several patients.", code="several_patients")
    return patients.pop() if patients else None


async def hold_patient(
    connection: Connection, patient: str, pending: Mapping[tuple[str, str], str | None]
) -> bool:
    """Hold the patient until the transaction ends; whether break-glass alone opens it.

    Raises `UnknownReference` for one that is not held, was deleted or is not the caller's.
    """
    if ("Patient", patient) in pending:
        return False
    row = await (await connection.execute(_PATIENT, (patient,))).fetchone()
    if row is None:
        raise UnknownReference("Patient", patient)
    return bool(row[0])


async def check(
    connection: Connection,
    resource: Mapping[str, Any],
    patient: str | None,
    *,
    known: Collection[tuple[str, str]] = (),
    pending: Mapping[tuple[str, str], str | None],
) -> None:
    """Raise unless every reference leads to something held, visible, and of the same patient.

    `known` are references that the version before had already: what they lead to may have been
    deleted since. `pending` are the patients of what the same transaction writes.
    """
    wanted = references_of(resource) - {(resource["resourceType"], resource["id"])}
    wanted -= set(known)
    if patient is not None:
        wanted.discard(("Patient", patient))
    if not wanted:
        return
    found = dict(pending) | await _held(connection, wanted - set(pending))
    for name in sorted(wanted):
        if name not in found:
            raise UnknownReference(*name)
        # Links between two records of one person are what Patient.link is for.
        if resource["resourceType"] == "Patient" or name[0] in SHARED_TYPES:
            continue
        if found[name] != patient:
            raise Unprocessable(
                f"A reference names a {name[0]} of another patient.",
                param="Reference.reference",
                code="reference_other_patient",
            )


async def _held(
    connection: Connection, names: Collection[tuple[str, str]]
) -> dict[tuple[str, str], str | None]:
    if not names:
        return {}
    ordered = sorted(names)
    values = ([type for type, _ in ordered], [id for _, id in ordered])
    rows = await (await connection.execute(_HELD, values)).fetchall()
    return {(type, id): patient for type, id, patient in rows}
