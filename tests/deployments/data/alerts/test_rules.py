"""Which values raise an alert: by code, limit, unit, status and age."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from configs.alert_rules import Rule, alert_rules
from configs.reader import ConfigError
from deployments.data.alerts.rules import findings

NOW = datetime(2026, 11, 2, 12, tzinfo=UTC)
RULES = alert_rules(None)


def observation(loinc: str, value: float, unit: str | None = None, **more: Any) -> dict[str, Any]:
    quantity: dict[str, Any] = {"value": value}
    return {
        "resourceType": "Observation",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": loinc}]},
        "effectiveDateTime": "2026-11-02T11:00:00Z",
        "valueQuantity": quantity | ({"unit": unit} if unit else {}),
        **more,
    }


def raised(resource: dict[str, Any]) -> list[str]:
    found = findings(resource, RULES, now=NOW, fresh_s=86400)
    return [finding.rule.code for finding in found]


@pytest.mark.parametrize(
    ("loinc", "value", "unit", "code"),
    [
        ("2823-3", 6.5, "mmol/L", "potassium"),
        ("2823-3", 6.49, "mmol/L", None),
        ("6298-4", 2.5, "mEq/L", "potassium"),
        ("2823-3", 2.51, None, None),
        ("2823-3", 7, None, "potassium"),
        ("2708-6", 84.9, "%", "oxygen-saturation"),
        ("59408-5", 85, "%", None),
        ("8867-4", 151, "beats/minute", "heart-rate"),
        ("8867-4", 150, "bpm", None),
        ("8867-4", 34, "{beats}/min", "heart-rate"),
        ("8480-6", 79, "mmHg", "systolic-pressure"),
        ("8480-6", 80, "mm[Hg]", None),
        ("2339-0", 39, "mg/dL", "glucose"),
        ("15074-8", 2.2, "mmol/L", "glucose"),
        ("15074-8", 2.3, "mmol/L", None),
        ("9999-9", 1, "mmol/L", None),
    ],
)
def test_values_beyond_the_limits_raise_and_those_within_do_not(
    loinc: str, value: float, unit: str | None, code: str | None
) -> None:
    assert raised(observation(loinc, value, unit)) == ([code] if code else [])


def test_a_component_is_judged_as_the_whole_is() -> None:
    part = observation("8480-6", 70, "mm[Hg]")
    panel = {**observation("85354-9", 0), "component": [part]}
    del panel["valueQuantity"]
    assert raised(panel) == ["systolic-pressure"]


def test_an_unknown_unit_is_not_guessed_at() -> None:
    assert raised(observation("2823-3", 250, "mg/L")) == []
    coded = observation("2823-3", 7, "Millimol")
    coded["valueQuantity"]["code"] = "mmol/L"
    assert raised(coded) == ["potassium"]


@pytest.mark.parametrize(
    "change",
    [
        {"status": "entered-in-error"},
        {"status": "cancelled"},
        {"effectiveDateTime": "2026-10-31T11:00:00Z"},
        {"effectiveDateTime": "2019"},
        {"valueQuantity": {"unit": "mmol/L"}},
        {"code": {"coding": [{"system": "urn:other", "code": "2823-3"}]}},
        {"code": {"text": "potassium"}},
    ],
)
def test_what_does_not_stand_is_old_or_is_no_such_value_raises_nothing(
    change: dict[str, Any],
) -> None:
    assert raised({**observation("2823-3", 7, "mmol/L"), **change}) == []


def test_a_value_without_a_time_is_taken_as_new() -> None:
    undated = observation("2823-3", 7, "mmol/L")
    del undated["effectiveDateTime"]
    assert raised(undated) == ["potassium"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("rules: [{code: a, loinc: [1-1], unit: x, units: {x: 1}}]", "at least one of"),
        ("rules: [{code: a, loinc: [x], unit: x, units: {x: 1}, below: 1}]", "loinc"),
        ("rules: [{code: a, loinc: [1-1], unit: x, units: {X: 1}, below: 1}]", "small letters"),
        ("rules: [{code: a, loinc: [1-1], unit: x, units: {x: 1}, under: 1}]", "under"),
        ("- x", "not a mapping"),
    ],
)
def test_a_file_of_rules_that_cannot_be_used_is_refused_by_name(
    tmp_path: Path, text: str, reason: str
) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=reason):
        alert_rules(str(file))


def test_two_rules_do_not_share_a_code(tmp_path: Path) -> None:
    rule = "{code: a, loinc: [1-1], unit: x, units: {x: 1}, below: 1}"
    file = tmp_path / "rules.yaml"
    file.write_text(f"rules: [{rule}, {rule}]")
    with pytest.raises(ConfigError, match="given twice"):
        alert_rules(str(file))


def test_each_limit_means_what_its_name_says() -> None:
    kept = {"code": "a", "loinc": ["1-1"], "unit": "x", "units": {"x": 1.0}}
    for name, inside, outside in (
        *(("at_most", 2.1, 2.0), ("below", 2.0, 1.9)),
        *(("at_least", 1.9, 2.0), ("above", 2.0, 2.1)),
    ):
        rule = Rule.model_validate({**kept, name: 2.0})
        assert (rule.is_beyond(inside), rule.is_beyond(outside)) == (False, True)
