"""Whether a patient's consent refuses artificial intelligence (CFM Resolution 2.454/2026).

A refusal is an active Consent with a provision of type `deny` that is about `CODE` of `SYSTEM`: in
the Consent's `category`, or in the provision's `code` or `class`. Provisions inside others are read
as well; periods of a provision and of all around it must hold the moment. What cannot be read as a
period does not weaken a refusal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from deployments.data.errors import DataError
from deployments.data.records.dates import range_of

SYSTEM = "urn:medical-record:consent"
CODE = "ai"


def refuses_ai(consent: Mapping[str, Any], now: datetime | None = None) -> bool:
    """Whether this Consent refuses AI at the moment `now` (now, unless given)."""
    if consent.get("resourceType") != "Consent" or consent.get("status") != "active":
        return False
    whole = any(_is_about_ai(concept) for concept in _list(consent.get("category")))
    provision = consent.get("provision")
    return isinstance(provision, Mapping) and _denies(provision, whole, now or datetime.now(UTC))


def _denies(provision: Mapping[str, Any], about_ai: bool, now: datetime) -> bool:
    """`about_ai`: what stands around the provision is about AI already."""
    if not _holds(provision.get("period"), now):
        return False
    about_ai = about_ai or any(_is_about_ai(each) for each in _concepts(provision))
    if provision.get("type") == "deny" and about_ai:
        return True
    # An exception inside a category's permission must name AI itself.
    return any(
        _denies(inner, False, now)
        for inner in _list(provision.get("provision"))
        if isinstance(inner, Mapping)
    )


def _concepts(provision: Mapping[str, Any]) -> Iterator[Any]:
    yield from _list(provision.get("code"))
    yield from ({"coding": [coding]} for coding in _list(provision.get("class")))


def _is_about_ai(concept: Any) -> bool:
    return isinstance(concept, Mapping) and any(
        isinstance(coding, Mapping)
        and coding.get("system") == SYSTEM
        and coding.get("code") == CODE
        for coding in _list(concept.get("coding"))
    )


def _holds(period: Any, now: datetime) -> bool:
    if not isinstance(period, Mapping):
        return True
    start, end = _moments(period.get("start")), _moments(period.get("end"))
    return not ((start and now < start[0]) or (end and now >= end[1]))


def _moments(text: Any) -> tuple[datetime, datetime] | None:
    """First moment and first moment afterwards; None for nothing or nothing readable."""
    if not isinstance(text, str):
        return None
    try:
        first, after = range_of(text)
    except (DataError, ValueError):
        return None
    return first, after


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
