"""The walk through a resource: every element is one that R4 defines, in R4's form.

The first problem in the order of the document is raised, with its FHIRPath and without its value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from deployments.data.errors import Invalid, Unprocessable
from deployments.data.records.dates import range_of
from deployments.data.records.elements import CONTAINABLE, Element, elements_of, model_of
from deployments.data.records.formats import FORMATS
from deployments.data.records.narrative import is_narrative
from deployments.data.records.national_ids import CHECKS
from deployments.data.records.shapes import TYPES

MAX_CONTAINED = 16
MAX_ITEMS = 2000

_RELATIVE = re.compile(r"([A-Z][A-Za-z]{1,63})/([A-Za-z0-9.-]{1,64})(?:/_history/[0-9]{1,9})?")
_ABSOLUTE = re.compile(r"https?://[^\s?#]+", re.IGNORECASE)


def malformed(path: str, problem: str) -> Invalid:
    """The error of an element that is not as R4 defines it."""
    return Invalid(f"{path} {problem}.", param=path)


def against(path: str, problem: str) -> Unprocessable:
    """The error of an element that is as R4 defines it, but against a rule."""
    return Unprocessable(f"{path} {problem}.", param=path)


class Walk:
    """One walk; holds what the elements of one resource are checked against."""

    def __init__(self, systems: Mapping[Any, str], contained: frozenset[str]) -> None:
        self._systems = {uri: name for name, uri in systems.items()}
        self._contained = contained
        self.local: set[str] = set()
        """The ids of contained resources that were referred to."""

    def object(self, values: Any, model: Any, path: str, *, nested: bool = False) -> None:
        """Check one object against a class of fhir.resources."""
        if not isinstance(values, dict) or not values:
            raise malformed(path, "must be an object with content")
        elements = elements_of(model)
        for name, value in values.items():
            if name == "resourceType" and model.has_resource_base():
                continue
            element = elements.get(name)
            if element is None:
                raise malformed(path, "has an element that FHIR R4 does not define there")
            here = f"{path}.{name}"
            if name in ("modifierExtension", "implicitRules"):
                raise against(here, "would change the meaning in a way that is not known here")
            if name == "contained":
                self._check_contained(value, here, nested)
                continue
            self._element(value, element, here)
        self._rules_of_type(values, model.get_resource_type(), path)

    def _element(self, value: Any, element: Element, path: str) -> None:
        if not element.many:
            self._item(value, element, path)
            return
        if not isinstance(value, list) or not 0 < len(value) <= MAX_ITEMS:
            raise malformed(path, f"must be a list of 1 to {MAX_ITEMS} items")
        for position, item in enumerate(value):
            here = f"{path}[{position}]"
            # Lists of primitives and of their extensions stand beside each other, filled with null.
            if item is None and (element.kind or path.rpartition(".")[2].startswith("_")):
                continue
            self._item(item, element, here)

    def _item(self, value: Any, element: Element, path: str) -> None:
        if element.model is not None:
            self.object(value, element.model, path)
            if element.model.get_resource_type() == "Reference":
                self._check_reference(value, element.targets, path)
            return
        if not FORMATS[element.kind](value):
            raise malformed(path, f"is not written as FHIR's {element.kind}")
        if element.codes and value not in element.codes:
            raise against(path, "is none of the codes that FHIR R4 allows there")
        if element.kind == "xhtml" and not is_narrative(value):
            raise against(path, "is not XHTML of the kind that FHIR R4 allows in narratives")

    def _check_contained(self, value: Any, path: str, nested: bool) -> None:
        if nested:
            raise against(path, "stands in a contained resource")
        if not isinstance(value, list) or not 0 < len(value) <= MAX_CONTAINED:
            raise malformed(path, f"must be a list of 1 to {MAX_CONTAINED} resources")
        for position, resource in enumerate(value):
            here = f"{path}[{position}]"
            type = resource.get("resourceType") if isinstance(resource, dict) else None
            if type not in CONTAINABLE:
                raise against(here, f"must be one of {', '.join(CONTAINABLE)}")
            if not isinstance(resource.get("id"), str):
                raise malformed(here, "needs an id")
            meta = resource.get("meta")
            if isinstance(meta, dict) and {"versionId", "lastUpdated", "security"} & set(meta):
                raise against(f"{here}.meta", "of a contained resource has a version or labels")
            self.object(resource, model_of(type), here, nested=True)

    def _check_reference(self, values: dict[str, Any], targets: frozenset[str], path: str) -> None:
        stated = values.get("type")
        if stated is not None and targets and stated not in targets:
            raise against(f"{path}.type", "is a type that this element cannot refer to")
        reference = values.get("reference")
        if reference is None:
            if not {"identifier", "display", "extension"} & set(values):
                raise malformed(path, "refers to nothing")
            return
        type = self._referred(reference, f"{path}.reference")
        if type is None:
            return
        if targets and type not in targets:
            raise against(f"{path}.reference", "is of a type that this element cannot refer to")
        if stated not in (None, type):
            raise against(f"{path}.type", "is not the type of the reference")

    def _referred(self, reference: str, path: str) -> str | None:
        """The type that a literal reference tells, None for contained ones and foreign URLs."""
        if reference.startswith("#"):
            if reference != "#" and reference[1:] not in self._contained:
                raise against(path, "refers to a contained resource that is not there")
            self.local.add(reference[1:])
            return None
        if _ABSOLUTE.fullmatch(reference):
            return None
        found = _RELATIVE.fullmatch(reference)
        if found is None:
            raise against(path, "must be Type/id, #id of a contained resource, or an http URL")
        if found[1] not in TYPES:
            raise against(
                path, "is of a type that is not held here; use an identifier or a full URL"
            )
        return found[1]

    def _rules_of_type(self, values: dict[str, Any], type: str, path: str) -> None:
        if type == "Identifier":
            self._check_identifier(values, path)
        elif type == "Extension":
            self._check_extension(values, path)
        elif type == "Period":
            _check_period(values, path)
        elif type in ("Quantity", "Age", "Count", "Distance", "Duration"):
            if "code" in values and "system" not in values:
                raise against(path, "has a code of a unit without its system (qty-3)")
        elif type == "ContactPoint":
            if "value" in values and "system" not in values:
                raise against(path, "has a value without its system (cpt-2)")
        elif type == "Attachment" and "data" in values and "contentType" not in values:
            raise against(path, "has data without their contentType (att-1)")

    def _check_identifier(self, values: dict[str, Any], path: str) -> None:
        name = self._systems.get(values.get("system", ""))
        if name is None or "value" not in values:
            return
        if not CHECKS[name](values["value"]):
            raise against(f"{path}.value", f"is no {name.upper()}: its digits do not fit")

    @staticmethod
    def _check_extension(values: dict[str, Any], path: str) -> None:
        if "url" not in values:
            raise malformed(path, "needs a url")
        chosen = [name for name in values if name.lstrip("_").startswith("value")]
        if bool(chosen) == ("extension" in values):
            raise against(path, "has either a value or extensions of its own (ext-1)")


def _check_period(values: dict[str, Any], path: str) -> None:
    if "start" not in values or "end" not in values:
        return
    if range_of(values["start"])[0] >= range_of(values["end"])[1]:
        raise against(path, "ends before it starts (per-1)")
