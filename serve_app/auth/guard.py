"""The guard before every route: nothing is answered without knowing who asks."""

from __future__ import annotations

from starlette.types import Scope

from deployments.data.errors import Unauthenticated
from deployments.data.principal import Caller

CALLER = "medrec.caller"


def caller_of(scope: Scope) -> Caller:
    """The caller that `SignedIn` put into the scope. Raises `Unauthenticated` on an open path."""
    caller = scope.get(CALLER)
    if not isinstance(caller, Caller):
        raise Unauthenticated("This needs credentials.", code="credentials_required")
    return caller
