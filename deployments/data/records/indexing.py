"""What search needs to know of a resource, taken out of it into the columns of its row."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, TypeVar

from deployments.data.records.conditions import Blinds
from deployments.data.records.dates import Range, range_of_element
from deployments.data.records.parameters import PARAMETERS, Kind, Parameter
from deployments.data.records.rules import PATIENT_AT
from deployments.data.records.words import EXACT, prefixes_of, tokens_of, words_of

_T = TypeVar("_T")
# A version of its own in a reference does not change what it refers to.
_RELATIVE = re.compile(r"([A-Za-z]{1,64})/([A-Za-z0-9.-]{1,64})(?:/_history/[0-9]{1,9})?")


@dataclass(frozen=True, slots=True)
class Index:
    """The extracted columns of `records.resource`.

    `patient` is the bare id of the patient whose compartment it lies in, None where the resource
    alone does not tell. `identifiers` and `names` are blind tokens (`Sealer.blind`); `codes` and
    `categories` plain ones; `refs` holds `Type/id` and `parameter:Type/id` of each relative
    reference. `date_from` is inclusive, `date_to` exclusive.
    """

    patient: str | None = None
    identifiers: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    codes: list[str] = field(default_factory=list)
    categories: list[str] = field(default_factory=list)
    status: str | None = None
    birth_date: date | None = None
    date_from: datetime | None = None
    date_to: datetime | None = None
    refs: list[str] = field(default_factory=list)


def index(resource: Mapping[str, Any], blinds: Blinds) -> Index:
    """Take the columns out of a whole resource, its id set and nothing of it sealed."""
    type = resource["resourceType"]
    if type == "Binary":
        # Not searched; only whose it is matters.
        return Index(patient=_patient_in(resource.get("securityContext")))
    parameters = PARAMETERS[type]
    birth_date, between = _times(resource, parameters)
    return Index(
        patient=_patient_of(type, resource),
        identifiers=_identifiers(resource, parameters, blinds),
        names=_names(resource, parameters, blinds),
        codes=_codes(resource, parameters, "code"),
        categories=_codes(resource, parameters, "category"),
        status=_status(resource, parameters),
        birth_date=birth_date,
        date_from=between[0] if between else None,
        date_to=between[1] if between else None,
        refs=_references(resource, parameters),
    )


def values_at(resource: Any, path: str) -> Iterator[Any]:
    """What stands at a path of element names; lists on the way are entered."""
    if isinstance(resource, list):
        for item in resource:
            yield from values_at(item, path)
        return
    if not path:
        if resource is not None:
            yield resource
        return
    if isinstance(resource, Mapping):
        name, _, rest = path.partition(".")
        yield from values_at(resource.get(name), rest)


def _of_kind(
    resource: Mapping[str, Any], parameters: Mapping[str, Parameter], kind: Kind
) -> Iterator[tuple[Parameter, Any]]:
    for parameter in parameters.values():
        if parameter.kind == kind:
            for path in parameter.paths:
                for value in values_at(resource, path):
                    yield parameter, value


def _patient_of(type: str, resource: Mapping[str, Any]) -> str | None:
    if type == "Patient":
        return str(resource["id"])
    if type == "Provenance":
        found = (_patient_in(each) for each in values_at(resource, "target"))
        return next((each for each in found if each is not None), None)
    name = PATIENT_AT.get(type)
    return _patient_in(resource.get(name)) if name else None


def _patient_in(reference: Any) -> str | None:
    text = reference.get("reference", "") if isinstance(reference, Mapping) else ""
    found = _RELATIVE.fullmatch(text)
    return found[2] if found and found[1] == "Patient" else None


def _identifiers(
    resource: Mapping[str, Any], parameters: Mapping[str, Parameter], blinds: Blinds
) -> list[str]:
    tokens: list[str] = []
    for _, value in _of_kind(resource, parameters, "identifier"):
        if "value" in value:
            tokens.extend(tokens_of(value.get("system", ""), value["value"]))
    return [blinds.blind("identifier", token) for token in _once(tokens)]


def _names(
    resource: Mapping[str, Any], parameters: Mapping[str, Parameter], blinds: Blinds
) -> list[str]:
    tokens: list[tuple[str, str]] = []
    for parameter, value in _of_kind(resource, parameters, "name"):
        for text in _texts_of_name(value):
            tokens.append((parameter.name + EXACT, text))
            for word in words_of(text):
                tokens.extend((parameter.name, prefix) for prefix in prefixes_of(word))
    return [blinds.blind(purpose, value) for purpose, value in _once(tokens)]


def _texts_of_name(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
        return
    for part in ("text", "family", "given", "prefix", "suffix"):
        yield from (text for text in values_at(value, part) if isinstance(text, str))


def _codes(
    resource: Mapping[str, Any], parameters: Mapping[str, Parameter], kind: Kind
) -> list[str]:
    tokens: list[str] = []
    for parameter, value in _of_kind(resource, parameters, kind):
        for system, code in _codings(value, parameter.system):
            tokens.extend(tokens_of(system, code))
    return list(_once(tokens))


def _codings(value: Any, system: str) -> Iterator[tuple[str, str]]:
    """(system, code) of a code, a Coding or a CodeableConcept."""
    if isinstance(value, str):
        yield system, value
    elif "code" in value:
        yield value.get("system", ""), value["code"]
    else:
        for coding in value.get("coding", ()):
            if "code" in coding:
                yield coding.get("system", ""), coding["code"]


def _status(resource: Mapping[str, Any], parameters: Mapping[str, Parameter]) -> str | None:
    for parameter, value in _of_kind(resource, parameters, "status"):
        for system, code in _codings(value, parameter.system):
            if system == parameter.system:
                return code
    return None


def _times(
    resource: Mapping[str, Any], parameters: Mapping[str, Parameter]
) -> tuple[date | None, Range | None]:
    for _, value in _of_kind(resource, parameters, "birthdate"):
        if (between := range_of_element(value)) is not None:
            return between[0].date(), between
    for _, value in _of_kind(resource, parameters, "date"):
        if (between := range_of_element(value)) is not None:
            return None, between
    return None, None


def _references(resource: Mapping[str, Any], parameters: Mapping[str, Parameter]) -> list[str]:
    tokens: list[str] = []
    for parameter, value in _of_kind(resource, parameters, "ref"):
        found = _RELATIVE.fullmatch(value.get("reference", ""))
        if found and found[1] in parameter.targets:
            reference = f"{found[1]}/{found[2]}"
            tokens.extend((reference, f"{parameter.name}:{reference}"))
    return list(_once(tokens))


def _once(values: Iterable[_T]) -> Iterator[_T]:
    yield from dict.fromkeys(values)
