"""The routes of passkeys: registered by who is signed in freshly, then the preferred way in."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter, Request, Response

from deployments.data import scopes
from deployments.data.accounts.wiring import Accounts
from serve_app.auth import bodies, described, oauth
from serve_app.auth.guard import origin_of, require_step_up
from serve_app.auth.people import local_only, person_of
from serve_app.auth.shapes import (
    ChallengeAnswer,
    PasskeyCard,
    PasskeyList,
    PasskeyRegistration,
    PasskeySignIn,
    TokenAnswer,
)


def add_passkeys(router: APIRouter, accounts: Accounts) -> None:
    """`/v1/auth/passkeys…`."""
    _add_sign_in(router, accounts)
    _add_own(router, accounts)


def _add_sign_in(router: APIRouter, accounts: Accounts) -> None:
    @router.post(
        "/v1/auth/passkeys/challenge",
        summary="Begin to sign in with a passkey",
        response_model=ChallengeAnswer,
        responses=described.problems(403, 429),
        openapi_extra={"security": []},
    )
    async def challenge(request: Request) -> Response:
        local_only(accounts)
        made = await accounts.passkeys.begin_sign_in(origin_of(request.scope))
        return bodies.answer(ChallengeAnswer(challenge_id=made.id, options=made.options))

    @router.post(
        "/v1/auth/passkeys/sign-in",
        summary="Sign in with a passkey",
        response_model=TokenAnswer,
        responses=described.problems(403, body=True),
        openapi_extra=described.json_body(PasskeySignIn, signed_in=False),
    )
    async def sign_in(request: Request) -> Response:
        local_only(accounts)
        body = await bodies.read(request, PasskeySignIn)
        asked = scopes.parse(body.scope) if body.scope and body.scope.strip() else None
        grant = await accounts.passkeys.sign_in(
            body.challenge_id, body.credential, asked, origin_of(request.scope)
        )
        return oauth.granted(grant)


def _add_own(router: APIRouter, accounts: Accounts) -> None:
    @router.post(
        "/v1/auth/passkeys/registration",
        summary="Begin to register a passkey; needs a fresh sign-in",
        response_model=ChallengeAnswer,
        responses=described.problems(403, 409),
    )
    async def registration(request: Request) -> Response:
        caller = person_of(request, accounts)
        require_step_up(caller, accounts.settings.step_up_s)
        name = await accounts.sign_ins.username(caller)
        made = await accounts.passkeys.begin_registration(caller, name)
        return bodies.answer(ChallengeAnswer(challenge_id=made.id, options=made.options))

    @router.post(
        "/v1/auth/passkeys",
        summary="Keep the new passkey",
        status_code=201,
        response_model=PasskeyCard,
        responses=described.problems(403, 409, body=True),
        openapi_extra=described.json_body(PasskeyRegistration),
    )
    async def register(request: Request) -> Response:
        caller = person_of(request, accounts)
        require_step_up(caller, accounts.settings.step_up_s)
        body = await bodies.read(request, PasskeyRegistration)
        made = await accounts.passkeys.register(
            caller, body.challenge_id, body.credential, body.name
        )
        return bodies.answer(PasskeyCard(**asdict(made)), 201)

    @router.get(
        "/v1/auth/passkeys",
        summary="The caller's passkeys",
        response_model=PasskeyList,
        responses=described.problems(403),
    )
    async def passkeys(request: Request) -> Response:
        caller = person_of(request, accounts)
        found = await accounts.passkeys.list(caller)
        return bodies.answer(PasskeyList(passkeys=[PasskeyCard(**asdict(key)) for key in found]))

    @router.delete(
        "/v1/auth/passkeys/{passkey}",
        summary="Forget one of the caller's passkeys; needs a fresh sign-in",
        status_code=204,
        responses=described.problems(403, 404),
        openapi_extra={
            "parameters": [
                {"name": "passkey", "in": "path", "required": True, "schema": {"type": "string"}}
            ]
        },
    )
    async def remove(request: Request) -> Response:
        caller = person_of(request, accounts)
        require_step_up(caller, accounts.settings.step_up_s)
        await accounts.passkeys.remove(caller, request.path_params["passkey"])
        return bodies.no_content()
