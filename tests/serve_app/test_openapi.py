from __future__ import annotations

import json
from typing import Any

import pytest

from configs.args import Limits
from serve_app.chat.schema import ChatBody
from serve_app.shapes import ErrorBody
from serve_app.surface import create_app
from tests.serve_app.fake_language import FakeLanguage, app_of, http_client
from tests.serve_app.fake_security import services_of

METHODS = {"get", "post", "put", "patch", "delete"}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return create_app(services_of(FakeLanguage()), Limits()).openapi()


def operations(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{method} {path}", operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if method in METHODS
    ]


async def test_the_document_is_served() -> None:
    async with http_client(app_of(FakeLanguage())) as client:
        answer = await client.get("/openapi.json")
    assert answer.status_code == 200
    assert answer.json()["openapi"].startswith("3.1")


def test_every_route_is_in_the_document(document: dict[str, Any]) -> None:
    assert sorted(name for name, _ in operations(document)) == [
        "get /health/live",
        "get /health/ready",
        "get /metrics",
        "get /v1/models",
        "get /v1/models/{model}",
        "post /v1/chat/completions",
    ]


def test_every_error_of_every_route_is_the_one_error_shape(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        statuses = set(operation["responses"])
        assert {"200", "405", "431", "500"} <= statuses, name
        assert "422" not in statuses, name
        for status in statuses - {"200"}:
            content = operation["responses"][status]["content"]
            schema = content["application/json"]["schema"]
            assert schema == {"$ref": "#/components/schemas/ErrorBody"}, (name, status)


def test_the_chat_documents_every_status_that_it_can_answer(document: dict[str, Any]) -> None:
    responses = document["paths"]["/v1/chat/completions"]["post"]["responses"]
    expected = {200, 400, 401, 403, 404, 405, 408, 413, 415, 429, 431, 500, 503, 504}
    assert set(responses) == {str(status) for status in expected}
    assert set(responses["200"]["content"]) == {"application/json", "text/event-stream"}
    assert "retry-after" in responses["429"]["headers"]


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    text = json.dumps(document)
    for part in text.split('"#/components/schemas/')[1:]:
        assert part.split('"')[0] in schemas


def test_the_request_schema_is_the_one_that_is_enforced(document: dict[str, Any]) -> None:
    body = document["paths"]["/v1/chat/completions"]["post"]["requestBody"]
    reference = body["content"]["application/json"]["schema"]["$ref"]
    schema = document["components"]["schemas"][reference.rsplit("/", 1)[-1]]
    assert set(schema["properties"]) == set(ChatBody.model_fields)
    assert schema["additionalProperties"] is False
    assert schema["required"] == ["model", "messages"]
    assert schema["properties"]["n"]["anyOf"][0]["maximum"] == 8


def test_the_error_schema_is_closed(document: dict[str, Any]) -> None:
    schema = document["components"]["schemas"]["ErrorObject"]
    assert set(schema["required"]) == {"message", "type", "param", "code"}
    assert set(ErrorBody.model_fields) == {"error"}
