"""/openapi.json describes every FHIR route, its answers, and OperationOutcomes for its errors."""

from __future__ import annotations

from typing import Any

from tests.serve_app.fhir.conftest import Site


def _operations(site: Site) -> list[tuple[str, str, dict[str, Any]]]:
    paths = site.app.openapi()["paths"]
    return [
        (path, method, operation)
        for path, methods in paths.items()
        if path.startswith("/fhir")
        for method, operation in methods.items()
    ]


async def test_every_route_is_described(site: Site) -> None:
    found = {(path, method) for path, method, _ in _operations(site)}
    assert found == {
        ("/fhir", "post"),
        ("/fhir/metadata", "get"),
        ("/fhir/AuditEvent", "get"),
        ("/fhir/AuditEvent/_search", "post"),
        ("/fhir/AuditEvent/{id}", "get"),
        ("/fhir/Patient/{id}/$everything", "get"),
        ("/fhir/{type}", "get"),
        ("/fhir/{type}", "post"),
        ("/fhir/{type}/_search", "post"),
        ("/fhir/{type}/{id}", "get"),
        ("/fhir/{type}/{id}", "put"),
        ("/fhir/{type}/{id}", "delete"),
        ("/fhir/{type}/{id}/_history", "get"),
        ("/fhir/{type}/{id}/_history/{version}", "get"),
    }


async def test_every_error_is_described_as_an_operation_outcome(site: Site) -> None:
    for path, method, operation in _operations(site):
        for status, answer in operation["responses"].items():
            if int(status) >= 400:
                schema = answer["content"]["application/fhir+json"]["schema"]
                kind = schema["properties"]["resourceType"]["const"]
                assert kind == "OperationOutcome", (path, method, status)
        wanted = {part.strip("{}") for part in path.split("/") if part.startswith("{")}
        named = {each["name"] for each in operation["parameters"] if each["in"] == "path"}
        assert named == wanted
