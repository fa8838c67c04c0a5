"""What sign-in says of itself: every reference resolves, every answer has the shape it announces."""

from __future__ import annotations

import json
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from fastapi import FastAPI

from deployments.data.errors import Invalid
from serve_app import openapi
from serve_app.auth import bodies, described, oauth
from serve_app.auth.routes import auth_routes
from serve_app.auth.shapes import StepUp
from tests.serve_app.auth.conftest import PASSWORD, Surface, bearer


def document_of(surface: Surface) -> dict[str, Any]:
    app = FastAPI(title="t", version="1")
    app.include_router(auth_routes(surface.accounts))
    openapi.install(app)
    return app.openapi()


async def test_every_reference_resolves_in_the_document(surface: Surface) -> None:
    document = document_of(surface)
    names = set(document["components"]["schemas"])

    def check(value: Any) -> None:
        if isinstance(value, dict):
            if "$ref" in value:
                head, _, name = value["$ref"].rpartition("/")
                assert head == "#/components/schemas"
                assert name in names
            for entry in value.values():
                check(entry)
        elif isinstance(value, list):
            for entry in value:
                check(entry)

    check(document)


async def test_answers_have_the_shapes_that_are_announced(surface: Surface) -> None:
    await surface.add("ana")
    document = document_of(surface)
    headers = bearer((await surface.sign_in("ana")).json()["access_token"])
    form = {"grant_type": "password", "username": "ana", "password": "wrong"}
    for method, path, more in (
        ("post", "/v1/auth/token", {"data": form}),
        ("post", "/v1/auth/token", {"data": form | {"password": PASSWORD}}),
        ("post", "/v1/auth/refresh", {"json": {"refresh_token": "rt_x"}}),
        ("get", "/v1/auth/me", {"headers": headers}),
        ("get", "/v1/auth/passkeys", {"headers": headers}),
        ("post", "/v1/auth/passkeys/challenge", {}),
        ("post", "/v1/auth/passkeys/sign-in", {"json": {}}),
        ("post", "/v1/auth/passkeys/registration", {"headers": headers}),
        ("post", "/v1/auth/step-up", {"headers": headers, "json": {"password": "wrong"}}),
        ("post", "/v1/auth/password", {"headers": headers, "json": {"new_password": "short"}}),
        ("post", "/v1/auth/logout", {"headers": headers}),
        ("post", "/v1/auth/logout", {"headers": headers}),
    ):
        answer = await surface.client.request(method.upper(), path, **more)
        told = document["paths"][path][method]["responses"][str(answer.status_code)]
        if answer.status_code == 204:
            assert not answer.content
            continue
        schema = told["content"][answer.headers["content-type"]]["schema"]
        resolvable = json.loads(json.dumps(schema).replace("#/components/schemas", "#/$defs")) | {
            "$defs": document_schemas(document)
        }
        jsonschema.validate(answer.json(), resolvable)


def document_schemas(document: dict[str, Any]) -> dict[str, Any]:
    text = json.dumps(document["components"]["schemas"])
    found: dict[str, Any] = json.loads(text.replace("#/components/schemas", "#/$defs"))
    return found


def test_a_nested_body_is_described_in_place() -> None:
    schema = described.json_body(StepUp)["requestBody"]["content"]["application/json"]["schema"]
    assert "$ref" not in json.dumps(schema)
    assert "challenge_id" in json.dumps(schema)


@pytest.mark.parametrize("body", [b"", b"a=b&a=c", b"a=%00", b"\xff=1"])
def test_an_unreadable_form_is_told_without_its_content(body: bytes) -> None:
    if body == b"":
        assert oauth.parsed(body) == {}
        return
    with pytest.raises(Invalid) as caught:
        oauth.parsed(body)
    assert caught.value.code == "invalid_request"


def test_the_answers_are_kept_by_no_cache() -> None:
    assert bodies.no_content().headers["cache-control"] == "no-store"
