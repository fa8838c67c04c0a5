"""The routes of sign-in: tokens, sessions, the password, who the caller is."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from deployments.data import scopes
from deployments.data.accounts.sessions import Grant
from deployments.data.accounts.wiring import Accounts
from deployments.data.errors import Invalid
from serve_app.auth import bodies, described, oauth
from serve_app.auth.discovery import add_discovery
from serve_app.auth.guard import caller_of, origin_of, require_step_up
from serve_app.auth.passkey_routes import add_passkeys
from serve_app.auth.people import person_of
from serve_app.auth.shapes import (
    Me,
    NewPassword,
    PasswordForm,
    RefreshForm,
    StepUp,
    TokenAnswer,
)


def auth_routes(accounts: Accounts) -> APIRouter:
    """Every route of sign-in, `/.well-known/…` included: to be mounted without a prefix."""
    router = APIRouter(tags=["sign-in"])
    _add_tokens(router, accounts)
    _add_session(router, accounts)
    add_passkeys(router, accounts)
    add_discovery(router, accounts)
    return router


def _add_tokens(router: APIRouter, accounts: Accounts) -> None:
    @router.post(
        "/v1/auth/token",
        summary="Sign in with a password (OAuth 2.0)",
        response_model=TokenAnswer,
        responses=described.oauth_errors(),
        openapi_extra=described.form(PasswordForm),
    )
    async def token(request: Request) -> Response:
        async def work() -> Grant:
            if accounts.provider is not None:
                raise oauth.unsupported_grant()
            fields = await oauth.read_form(request.scope, request.receive)
            match oauth.needed(fields, "grant_type"):
                case "password":
                    return await accounts.sign_ins.by_password(
                        oauth.needed(fields, "username"),
                        oauth.needed(fields, "password"),
                        oauth.asked_scopes(fields),
                        origin_of(request.scope),
                    )
                case "refresh_token":
                    return await _refreshed(request, fields)
                case _:
                    raise oauth.unsupported_grant()

        return await oauth.answered(request, work)

    @router.post(
        "/v1/auth/refresh",
        summary="Carry a session on with its refresh token, which is used up",
        response_model=TokenAnswer,
        responses=described.oauth_errors(),
        openapi_extra=described.form(RefreshForm, json_too=True),
    )
    async def refresh(request: Request) -> Response:
        async def work() -> Grant:
            fields = await oauth.read_form_or_json(request.scope, request.receive)
            if fields.get("grant_type", "refresh_token") != "refresh_token":
                raise oauth.unsupported_grant()
            return await _refreshed(request, fields)

        return await oauth.answered(request, work)

    async def _refreshed(request: Request, fields: dict[str, str]) -> Grant:
        if accounts.provider is not None:
            raise oauth.unsupported_grant()
        return await accounts.sessions.refresh(
            oauth.needed(fields, "refresh_token"),
            oauth.asked_scopes(fields),
            origin_of(request.scope),
        )


def _add_session(router: APIRouter, accounts: Accounts) -> None:
    @router.get(
        "/v1/auth/me",
        summary="Who the caller is and what they may do",
        response_model=Me,
        responses=described.problems(),
    )
    async def me(request: Request) -> Response:
        caller = caller_of(request.scope)
        who = caller.principal
        name = await accounts.sign_ins.username(caller) if who.kind == "account" else None
        values = Me(
            id=who.id,
            kind=who.kind,
            username=name,
            role=who.role,
            organization=who.organization,
            practitioner=who.practitioner,
            scopes=scopes.text_of(who.scopes).split(),
            session=who.session,
            methods=list(who.methods),
            authenticated_at=who.authenticated_at,
            demo=who.demo,
        )
        return bodies.answer(values)

    @router.post(
        "/v1/auth/logout",
        summary="End the caller's session",
        status_code=204,
        responses=described.problems(403),
    )
    async def logout(request: Request) -> Response:
        caller = person_of(request, accounts)
        await accounts.sign_ins.sign_out(caller)
        if caller.principal.session is not None:
            accounts.authority.session_ended(caller.principal.session)
        return bodies.no_content()

    @router.post(
        "/v1/auth/step-up",
        summary="Prove again who one is: a fresh access token for sensitive acts",
        response_model=TokenAnswer,
        responses=described.problems(403, 429, body=True),
        openapi_extra=described.json_body(StepUp),
    )
    async def step_up(request: Request) -> Response:
        caller = person_of(request, accounts)
        body = await bodies.read(request, StepUp)
        if (body.password is None) == (body.passkey is None):
            raise Invalid("Give either password or passkey.", code="invalid_body")
        if body.passkey is not None:
            opened = await accounts.passkeys.step_up(
                caller, body.passkey.challenge_id, body.passkey.credential
            )
            return oauth.granted(await accounts.sign_ins.stepped_up(caller, opened))
        return oauth.granted(await accounts.sign_ins.step_up(caller, body.password or ""))

    @router.post(
        "/v1/auth/password",
        summary="Change the password; every other session of the person ends",
        status_code=204,
        responses=described.problems(403, body=True),
        openapi_extra=described.json_body(NewPassword),
    )
    async def password(request: Request) -> Response:
        caller = person_of(request, accounts)
        require_step_up(caller, accounts.settings.step_up_s)
        body = await bodies.read(request, NewPassword)
        await accounts.sign_ins.change_password(caller, body.new_password)
        return bodies.no_content()
