"""What R4 allows in each element, read off the models of fhir.resources once for each class.

The models are those of R4B. For the types served here it differs from R4 in what stands in
`_NOT_IN_R4`, and the models leave codes of required bindings unchecked or cut short: `_CODES`.
"""

from __future__ import annotations

import importlib
import inspect
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any

# Types that a resource may carry inside itself.
CONTAINABLE = (
    *("Medication", "Organization", "Practitioner", "PractitionerRole", "Location", "Device"),
    "Specimen",
)
_NOT_IN_R4 = ("CodeableReference", "RatioRange")

_ENCOUNTER = (
    *("planned", "arrived", "triaged", "in-progress", "onleave", "finished", "cancelled"),
    *("entered-in-error", "unknown"),
)
_COMPARATOR = ("<", "<=", ">=", ">")
_CODES: Mapping[tuple[str, str], tuple[str, ...]] = MappingProxyType(
    {
        ("Encounter", "status"): _ENCOUNTER,
        ("EncounterStatusHistory", "status"): _ENCOUNTER,
        ("Observation", "status"): (
            *("registered", "preliminary", "final", "amended", "corrected", "cancelled"),
            *("entered-in-error", "unknown"),
        ),
        ("DiagnosticReport", "status"): (
            *("registered", "partial", "preliminary", "final", "amended", "corrected"),
            *("appended", "cancelled", "entered-in-error", "unknown"),
        ),
        **{
            (name, "comparator"): _COMPARATOR
            for name in ("Quantity", "Age", "Count", "Distance", "Duration")
        },
        ("TimingRepeat", "when"): (
            *("MORN", "MORN.early", "MORN.late", "NOON", "AFT", "AFT.early", "AFT.late", "EVE"),
            *("EVE.early", "EVE.late", "NIGHT", "PHS", "HS", "WAKE", "C", "CM", "CD", "CV"),
            *("AC", "ACM", "ACD", "ACV", "PC", "PCM", "PCD", "PCV"),
        ),
    }
)


@dataclass(frozen=True, slots=True)
class Element:
    """One element of a class: a primitive `kind`, or the `model` of its parts.

    `codes` are the only ones allowed, where a required binding says so; `targets` the types that a
    reference may have, empty for any.
    """

    kind: str
    model: Any
    many: bool
    codes: frozenset[str]
    targets: frozenset[str]


def model_of(type: str) -> Any:
    """The model class of a resource type. Its module is imported when first asked for."""
    return getattr(importlib.import_module(f"fhir.resources.R4B.{type.lower()}"), type)


@lru_cache(maxsize=512)
def elements_of(model: Any) -> Mapping[str, Element]:
    """By JSON name, the elements that R4 defines for a class."""
    found = {}
    for name, field in model.model_fields.items():
        if name == "fhir_comments":
            continue
        element = _element(model.get_resource_type(), field)
        if element is not None:
            found[field.alias or name] = element
    return MappingProxyType(found)


def _element(owner: str, field: Any) -> Element | None:
    details = field.json_schema_extra or {}
    kinds = list(_kinds(field.annotation))
    name = field.alias or ""
    many = "List[" in str(field.annotation)
    codes = _CODES.get((owner, name)) or tuple(details.get("enum_values", ()))
    targets = frozenset(details.get("enum_reference_types", ())) - {"Resource"}
    for kind in kinds:
        if inspect.isclass(kind) and hasattr(kind, "get_model_klass"):
            if kind.__name__.removesuffix("Type") in _NOT_IN_R4:
                return None
            # A contained resource is known by its own resourceType.
            model = None if kind.__name__ == "ResourceType" else kind.get_model_klass()
            return Element("", model, many, frozenset(codes), targets)
    return Element(_primitive(kinds), None, many, frozenset(codes), frozenset())


def _kinds(annotation: Any) -> Iterator[Any]:
    origin = typing.get_origin(annotation)
    if origin is None or origin is typing.Annotated:
        yield annotation
        return
    for argument in typing.get_args(annotation):
        yield from _kinds(argument)


def _primitive(kinds: list[Any]) -> str:
    for kind in kinds:
        if kind is bool:
            return "boolean"
        for mark in getattr(kind, "__metadata__", ()):
            name = getattr(mark, "__visit_name__", None)
            if name is not None:
                return str(name)
            if type(mark).__name__ == "EncodedBytes":
                return "base64Binary"
            if type(mark).__name__ == "UuidVersion":
                return "uuid"
    return "string"
