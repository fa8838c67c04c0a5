"""Whether a resource may be kept: R4's structure by fhir.resources, what its models leave open, and
the rules of this place. The first problem is told, in a fixed order, and never a value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from deployments.data.errors import Invalid, Unsupported
from deployments.data.records.elements import elements_of, model_of
from deployments.data.records.rules import check_rules
from deployments.data.records.shapes import TYPES
from deployments.data.records.structure import Walk, against, malformed

_SERVERS = ("versionId", "lastUpdated")


def preload() -> None:
    """Import the models of every type held here, which the first requests would wait for."""
    for type in TYPES:
        elements_of(model_of(type))


def validate(type: str, resource: Any, systems: Mapping[Any, str]) -> dict[str, Any]:
    """The resource as it is to be kept: as it came, but for what only the server says of it.

    `systems` are the configured `identifier_systems`. Raises `Invalid` for what is not R4's
    structure, `Unprocessable` for what breaks a rule; `param` is the FHIRPath.
    """
    if type not in TYPES:
        raise Unsupported("Resources of this type are not held here.", param="resourceType")
    if not isinstance(resource, dict):
        raise Invalid("A resource is a JSON object.", param=type)
    if resource.get("resourceType") != type:
        raise Invalid(f"This must be a resource of type {type}.", param="resourceType")
    kept = _without_servers_part(resource)
    model = model_of(type)
    walk = Walk(systems, _contained_ids(kept))
    walk.object(kept, model, type)
    _check_contained_used(kept, walk, type)
    _check_by_model(kept, model, type)
    check_rules(type, kept)
    return kept


def _without_servers_part(resource: dict[str, Any]) -> dict[str, Any]:
    meta = resource.get("meta")
    if not isinstance(meta, dict):
        return dict(resource)
    own = {name: value for name, value in meta.items() if name.lstrip("_") not in _SERVERS}
    kept = {name: value for name, value in resource.items() if name != "meta"}
    return kept | ({"meta": own} if own else {})


def _contained_ids(resource: Mapping[str, Any]) -> frozenset[str]:
    contained = resource.get("contained")
    if not isinstance(contained, list):
        return frozenset()
    ids = [each.get("id") for each in contained if isinstance(each, dict)]
    return frozenset(each for each in ids if isinstance(each, str))


def _check_contained_used(resource: Mapping[str, Any], walk: Walk, type: str) -> None:
    contained = resource.get("contained", ())
    ids = [each["id"] for each in contained]
    for position, each in enumerate(ids):
        path = f"{type}.contained[{position}]"
        if each in ids[:position]:
            raise against(path, "has the id of another one")
        if each not in walk.local:
            raise against(path, "is referred to by nothing in the resource (dom-3)")


def _check_by_model(resource: dict[str, Any], model: Any, type: str) -> None:
    try:
        model.model_validate(resource)
    except ValidationError as failed:
        # Only the place and the kind of the first problem: pydantic's texts quote what they met.
        first = failed.errors(include_url=False, include_context=False, include_input=False)[0]
        path = _path(type, first["loc"])
        if "missing" in first["type"]:
            raise malformed(path, "is required") from None
        if first["type"] == "value_error" and "one field value" in first["msg"]:
            raise malformed(
                path, "has several values where FHIR R4 takes one of a choice"
            ) from None
        if first["type"] == "value_error" and "Expect any of" in first["msg"]:
            raise malformed(path, "lacks a value that FHIR R4 requires, one of a choice") from None
        raise malformed(path, "is not as FHIR R4 defines it") from None


def _path(type: str, place: tuple[int | str, ...]) -> str:
    path = type
    for step in place:
        path += f"[{step}]" if isinstance(step, int) else f".{step}"
    return path
