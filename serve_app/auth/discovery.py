"""What clients discover: the issuer, its public keys, and what a token may be asked for."""

from __future__ import annotations

from typing import Any

import orjson
from fastapi import APIRouter, Response

from deployments.data import scopes
from deployments.data.accounts.tokens import ALGORITHM
from deployments.data.accounts.wiring import Accounts
from serve_app.openapi import error_responses

_CACHED = {"cache-control": "public, max-age=300"}
_OPEN: dict[str, Any] = {"security": []}


def add_discovery(router: APIRouter, accounts: Accounts) -> None:
    """`/.well-known/…`, and SMART's document below `/fhir` too, where its clients look."""

    @router.get(
        "/.well-known/openid-configuration",
        summary="OpenID Connect discovery",
        response_model=dict[str, Any],
        responses=error_responses(),
        openapi_extra=_OPEN,
    )
    async def openid_configuration() -> Response:
        return _json(openid_document(accounts))

    @router.get(
        "/.well-known/jwks.json",
        summary="The public keys that sign access tokens",
        response_model=dict[str, Any],
        responses=error_responses(),
        openapi_extra=_OPEN,
    )
    async def jwks() -> Response:
        return _json(accounts.keys.jwks())

    @router.get(
        "/.well-known/smart-configuration",
        summary="SMART on FHIR discovery",
        response_model=dict[str, Any],
        responses=error_responses(),
        openapi_extra=_OPEN,
    )
    @router.get("/fhir/.well-known/smart-configuration", include_in_schema=False)
    async def smart_configuration() -> Response:
        return _json(smart_document(accounts))


def openid_document(accounts: Accounts) -> dict[str, Any]:
    """Discovery of this issuer; where a hospital's own provider signs in, its name alone."""
    if accounts.provider is not None:
        return {"issuer": accounts.provider.issuer}
    issuer = accounts.issuer.rstrip("/")
    return {
        "issuer": accounts.issuer,
        "token_endpoint": f"{issuer}/v1/auth/token",
        "jwks_uri": f"{issuer}/.well-known/jwks.json",
        "grant_types_supported": ["password", "refresh_token"],
        "token_endpoint_auth_methods_supported": ["none"],
        "response_types_supported": [],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": [ALGORITHM],
        "scopes_supported": _every_scope(),
        "claims_supported": [
            *("iss", "sub", "aud", "exp", "iat", "jti", "sid", "role", "org", "practitioner"),
            *("scope", "amr", "auth_time"),
        ],
    }


def smart_document(accounts: Accounts) -> dict[str, Any]:
    """SMART App Launch 2, as far as it is offered: permissions and their scopes, no launch."""
    found = openid_document(accounts)
    if accounts.provider is not None:
        return found | {"scopes_supported": _every_scope(), "capabilities": ["permission-v2"]}
    names = ("issuer", "jwks_uri", "token_endpoint", "grant_types_supported", "scopes_supported")
    return {name: found[name] for name in names} | {
        "capabilities": ["permission-v2", "permission-user"]
    }


def _every_scope() -> list[str]:
    return sorted({scope for granted in scopes.ROLE_SCOPES.values() for scope in granted})


def _json(values: dict[str, Any]) -> Response:
    return Response(orjson.dumps(values), media_type="application/json", headers=_CACHED)
