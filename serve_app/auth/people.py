"""Who may use the routes of sign-in: people with an account here."""

from __future__ import annotations

from fastapi import Request

from deployments.data.accounts.wiring import Accounts
from deployments.data.errors import Forbidden
from deployments.data.principal import Caller
from serve_app.auth.guard import caller_of


def local_only(accounts: Accounts) -> None:
    """Raise `Forbidden` where a hospital's own provider signs people in instead."""
    if accounts.provider is not None:
        message = "People sign in at the OpenID Connect provider that this site is configured with."
        raise Forbidden(message, code="sign_in_elsewhere")


def person_of(request: Request, accounts: Accounts) -> Caller:
    """The caller, a person with an account and a session here. Raises `Forbidden`."""
    local_only(accounts)
    caller = caller_of(request.scope)
    if caller.principal.kind != "account":
        raise Forbidden("This is for people, not for machines.", code="not_a_person")
    return caller
