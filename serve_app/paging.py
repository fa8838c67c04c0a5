"""Lists over HTTP: `count`, `cursor` and what else a list takes; more is refused, not ignored."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from deployments.data.errors import Invalid, Unsupported

COUNT = 50


@dataclass(frozen=True, slots=True)
class Asked:
    """How many of a list, from where on, and what the list's own parameters say."""

    count: int
    cursor: str | None
    others: Mapping[str, str]


def asked(request: Request, *others: str, most: int) -> Asked:
    """What a list was asked for; `others` names its own parameters, `most` is what `count` may be.

    Raises `Unsupported` and `Invalid`.
    """
    given = request.query_params.multi_items()
    values = dict(given)
    if unknown := set(values) - {*others, "count", "cursor"}:
        named = sorted(name for name in unknown if re.fullmatch(r"[a-z_]{1,32}", name))
        raise Unsupported("This parameter is not offered.", param=named[0] if named else None)
    if len(given) != len(values):
        raise Invalid("A parameter is given more than once.")
    text = values.pop("count", str(COUNT))
    if not re.fullmatch(r"[0-9]{1,3}", text) or not 1 <= int(text) <= most:
        raise Invalid(f"count takes 1 to {most}.", param="count")
    return Asked(int(text), values.pop("cursor", None), values)


def parameters(most: int) -> list[dict[str, Any]]:
    """Both for `/openapi.json`."""
    count = {"type": "integer", "minimum": 1, "maximum": most, "default": COUNT}
    return [
        {"name": "count", "in": "query", "required": False, "schema": count},
        {"name": "cursor", "in": "query", "required": False, "schema": {"type": "string"}},
    ]
