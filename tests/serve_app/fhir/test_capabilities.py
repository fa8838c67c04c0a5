"""/metadata is a valid CapabilityStatement and says what the server does, no more and no less."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest
from fhir.resources.R4B.capabilitystatement import CapabilityStatement

from configs.args import RecordsArgs
from configs.reader import PROJECT_ROOT
from deployments.data.records.parameters import PARAMETERS
from deployments.data.records.shapes import TYPES
from serve_app.fhir.capabilities import capability_statement

STATEMENT = capability_statement("http://records.test/fhir", RecordsArgs())
RESOURCES = {each["type"]: each for each in STATEMENT["rest"][0]["resource"]}
VALUES = {"token": "a", "string": "abc", "date": "2026", "reference": "1"}


def test_it_is_valid_and_names_every_type() -> None:
    CapabilityStatement.model_validate(STATEMENT)
    assert set(RESOURCES) == {*TYPES, "AuditEvent"}
    assert STATEMENT["fhirVersion"] == "4.0.1"


def _searches() -> list[tuple[str, str, str]]:
    return [
        (type, each["name"], each["type"])
        for type, statement in RESOURCES.items()
        if type != "AuditEvent"
        for each in statement.get("searchParam", ())
    ]


async def test_every_parameter_that_it_names_is_answered(physician: httpx.AsyncClient) -> None:
    for type, name, kind in _searches():
        answer = await physician.get(f"/{type}", params={name: VALUES[kind]})
        assert answer.status_code == 200, (type, name, answer.text)


async def test_every_include_that_it_names_is_answered(physician: httpx.AsyncClient) -> None:
    for type, statement in RESOURCES.items():
        for include in statement.get("searchInclude", ()):
            answer = await physician.get(f"/{type}", params={"_include": include})
            assert answer.status_code == 200, include


async def test_no_parameter_of_another_type_is_answered(physician: httpx.AsyncClient) -> None:
    everything = {(name, kind) for _, name, kind in _searches()}
    for type in PARAMETERS:
        own = {each["name"] for each in RESOURCES[type]["searchParam"]}
        for name, kind in everything:
            if name not in own:
                answer = await physician.get(f"/{type}", params={name: VALUES[kind]})
                issue = answer.json()["issue"][0]
                assert (answer.status_code, issue["code"]) == (400, "not-supported")
                assert issue["expression"] == [name]


@pytest.mark.parametrize("type", ["Patient", "Observation", "AuditEvent"])
def test_interactions_that_are_not_offered_are_not_named(type: str) -> None:
    codes = {each["code"] for each in RESOURCES[type]["interaction"]}
    offered: dict[str, set[str]] = {
        "AuditEvent": {"read", "search-type"},
    }
    usual = {"read", "vread", "history-instance", "create", "update", "delete", "search-type"}
    assert codes == offered.get(type, usual)


async def test_it_is_served_to_everybody_with_the_address_that_was_asked(
    physician: httpx.AsyncClient,
) -> None:
    answer: dict[str, Any] = (await physician.get("/metadata")).json()
    assert answer == STATEMENT


def test_the_documentation_has_the_same_parameters() -> None:
    page = (PROJECT_ROOT / "docs" / "fhir.md").read_text(encoding="utf-8")
    told = {
        found[1]: set(re.findall(r"`([^`]+)`", found[2]))
        for found in re.finditer(r"^\| ([A-Z]\w+) \| (`.*`) \|$", page, re.MULTILINE)
    }
    assert told == {
        type: {name for name in parameters if not name.startswith("_")}
        for type, parameters in PARAMETERS.items()
    }
