"""Judges an Observation by the limits of configs/alert_rules.yaml. Pure: no database, no clock."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from configs.alert_rules import Rule
from deployments.data.records.dates import range_of

_LOINC = "http://loinc.org"
# http://hl7.org/fhir/R4/valueset-observation-status.html: what was measured and stands.
_STANDS = frozenset(("preliminary", "final", "amended", "corrected"))


@dataclass(frozen=True, slots=True)
class Finding:
    """A value beyond a rule's limits, in the unit that it was written in."""

    rule: Rule
    value: float
    unit: str

    @property
    def text(self) -> str:
        """What an alert says of it; sealed before it is kept."""
        return f"{self.rule.code} {self.value:g} {self.unit}"


def findings(
    resource: Mapping[str, Any], rules: Sequence[Rule], *, now: datetime, fresh_s: float
) -> list[Finding]:
    """What in a whole Observation raises an alert: each rule once, by its first value.

    One that does not stand, or was measured more than `fresh_s` seconds before `now`, raises none.
    """
    if resource.get("status") not in _STANDS or _age_s(resource, now) > fresh_s:
        return []
    found: dict[str, Finding] = {}
    for codes, quantity in _measured(resource):
        for rule in rules:
            if rule.code not in found and codes.intersection(rule.loinc):
                finding = _judged(rule, quantity)
                if finding is not None:
                    found[rule.code] = finding
    return list(found.values())


def _measured(resource: Mapping[str, Any]) -> Iterator[tuple[set[str], Mapping[str, Any]]]:
    """LOINC codes and quantity of the Observation itself and of its components."""
    for part in (resource, *(resource.get("component") or ())):
        quantity = part.get("valueQuantity")
        if isinstance(quantity, Mapping):
            coding = (part.get("code") or {}).get("coding") or ()
            yield {each.get("code") for each in coding if each.get("system") == _LOINC}, quantity


def _judged(rule: Rule, quantity: Mapping[str, Any]) -> Finding | None:
    """A finding if the value is beyond the limits; None also for a unit that is not known."""
    try:
        value = float(quantity["value"])
    except (KeyError, TypeError, ValueError):
        return None
    words = [str(quantity[name]) for name in ("code", "unit") if quantity.get(name)]
    factors = [rule.units[word.lower()] for word in words if word.lower() in rule.units]
    if words and not factors:
        return None
    # "<" and ">" say that the value lies further out; the limit is judged by the number.
    if not rule.is_beyond(value * (factors[0] if factors else 1.0)):
        return None
    return Finding(rule, value, words[-1] if words else rule.unit)


def _age_s(resource: Mapping[str, Any], now: datetime) -> float:
    """Seconds since it was measured, by the end of the time it names; 0 where it names none."""
    period = resource.get("effectivePeriod") or {}
    for text in (
        resource.get("effectiveDateTime"),
        resource.get("effectiveInstant"),
        period.get("end") or period.get("start"),
        resource.get("issued"),
    ):
        if isinstance(text, str):
            try:
                return (now - range_of(text)[1]).total_seconds()
            except ValueError:
                continue
    return 0.0
