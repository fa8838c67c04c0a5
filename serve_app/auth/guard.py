"""The guard before every route: nothing is answered without knowing who asks.

Open are the probes, what describes the API, and what signs somebody in. Below `/internal/` the hosts
of the site are answered, by the name that HAProxy read in their certificates, and nobody else.
Everything else needs credentials, paths that do not exist included, so that nobody learns which do.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import time
import uuid
from typing import Protocol

from starlette.types import ASGIApp, Receive, Scope, Send

from configs.args import RecordsArgs, SignIn
from deployments.data.accounts.origin import Origin
from deployments.data.errors import DeadlineExceeded, Forbidden, Invalid, Unauthenticated
from deployments.data.principal import Caller, Principal
from serve_app.internal.gate import admit, is_internal
from serve_app.trace import Trace

CALLER = "medrec.caller"
CERTIFICATE = b"x-medrec-device"
ASKED_AT = b"x-medrec-asked-at"
DEADLINE_S = RecordsArgs().deadline_s

OPEN_PATHS = frozenset(
    (
        *("/health/live", "/health/ready", "/metrics", "/openapi.json", "/v1/mode"),
        *("/fhir/metadata", "/fhir/.well-known/smart-configuration"),
        *("/v1/auth/token", "/v1/auth/refresh"),
        *("/v1/auth/passkeys/challenge", "/v1/auth/passkeys/sign-in"),
    )
)
# The edge sends a read seven times at most, with 12 s for each: what is older, a clock made so.
_LONGEST_ASKED_S = 84.0
# Left to every try: clocks of two hosts that part cost a wait, not a request.
_LEAST_LEFT_S = 5.0
_OPEN_BELOW = ("/health/", "/.well-known/")
_TOKEN = re.compile(rb"[Bb][Ee][Aa][Rr][Ee][Rr] +([A-Za-z0-9._~+/=-]+)")
_OFFERED = "bearer."
_IDEMPOTENCY_KEY = re.compile(rb"[\x21-\x7e]{1,255}")
_MILLISECONDS = re.compile(rb"[0-9]{1,16}")
_PRODUCT = re.compile(rb"[A-Za-z0-9._-]{1,40}(?:/[A-Za-z0-9._-]{1,20})?")


class Authority(Protocol):
    """Knows credentials; see deployments/data/accounts/authority.py."""

    async def verify(self, token: str) -> Principal:
        """Who a bearer token or API key belongs to. Raises a `DataError`."""


class SignedIn:
    """ASGI middleware: puts the caller into the scope, or raises before any route is looked for."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        authority: Authority,
        deadline_s: float,
        callers: frozenset[str] = frozenset(),
    ) -> None:
        """`callers` are the hosts that may call `/internal/`."""
        self.app = app
        self._authority, self._deadline_s = authority, deadline_s
        self._callers = callers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "lifespan" or (kind == "http" and is_open(scope["path"])):
            await self.app(scope, receive, send)
            return
        if kind == "http" and is_internal(scope["path"]):
            admit(scope, self._callers)
            await self.app(scope, receive, send)
            return
        scope[CALLER] = await self._caller(scope)
        await self.app(scope, receive, send)

    async def _caller(self, scope: Scope) -> Caller:
        token = bearer_of(scope)
        origin = origin_of(scope, deadline_s=self._deadline_s)
        key = _idempotency_key(scope)
        try:
            async with asyncio.timeout(origin.deadline - time.monotonic()):
                principal = await self._authority.verify(token)
        except TimeoutError:
            message = "the time limit passed before it was known who asks"
            raise DeadlineExceeded(message) from None
        return Caller(
            principal=principal,
            request_id=origin.request_id,
            address=origin.address,
            deadline=origin.deadline,
            device=origin.device,
            idempotency_key=key,
        )


def is_open(path: str) -> bool:
    """Whether a path is answered without credentials."""
    return path in OPEN_PATHS or path.startswith(_OPEN_BELOW)


def caller_of(scope: Scope) -> Caller:
    """The caller that `SignedIn` put into the scope. Raises `Unauthenticated` on an open path."""
    caller = scope.get(CALLER)
    if not isinstance(caller, Caller):
        raise _without_credentials()
    return caller


def require_step_up(caller: Caller, within_s: float = SignIn().step_up_s) -> None:
    """Raise `Forbidden` (`step_up_required`) unless the caller signed in `within_s` seconds ago.

    Pass `records.sign_in.step_up_s`. A machine cannot step up; an operator is at the machine.
    """
    who = caller.principal
    if who.kind == "operator":
        return
    if who.kind != "account" or time.time() - who.authenticated_at > within_s:
        message = "This needs a fresh sign-in: POST /v1/auth/step-up, then use its token."
        raise Forbidden(message, code="step_up_required")


def bearer_of(scope: Scope) -> str:
    """The one bearer token of a request. Raises `Unauthenticated`.

    A browser's WebSocket cannot send headers: it may offer the subprotocol `bearer.<token>` instead.
    """
    given = [value for name, value in scope["headers"] if name == b"authorization"]
    if not given and scope["type"] == "websocket":
        offered = [each for each in scope.get("subprotocols") or () if each.startswith(_OFFERED)]
        given = [f"Bearer {each.removeprefix(_OFFERED)}".encode() for each in offered]
    if not given:
        raise _without_credentials()
    found = _TOKEN.fullmatch(given[0].strip()) if len(given) == 1 else None
    if found is None:
        message = "The authorization header must be one Bearer token or API key."
        raise Unauthenticated(message, code="bad_authorization_header")
    return found[1].decode("ascii")


def origin_of(scope: Scope, *, deadline_s: float = DEADLINE_S) -> Origin:
    """Where a request comes from, whoever makes it; its deadline is `deadline_s` after it was asked."""
    trace = scope.get("medrec.trace")
    began = trace.began_s if isinstance(trace, Trace) else time.monotonic()
    return Origin(
        request_id=trace.request_id if isinstance(trace, Trace) else uuid.uuid4().hex,
        address=address_of(scope),
        deadline=began + max(deadline_s - asked_before_s(scope), min(deadline_s, _LEAST_LEFT_S)),
        device=device_of(scope),
        certificate=certificate_of(scope),
    )


def asked_before_s(scope: Scope) -> float:
    """Seconds since the edge was asked, which may have tried another cell, or this one, before.

    HAProxy writes the header, in milliseconds of the edge's clock, and removes what a client sent.
    """
    given = [value for name, value in scope["headers"] if name == ASKED_AT]
    if len(given) != 1 or not _MILLISECONDS.fullmatch(given[0]):
        return 0.0
    past_s = time.time() - int(given[0]) / 1000
    return past_s if 0 < past_s < _LONGEST_ASKED_S else 0.0


def certificate_of(scope: Scope) -> str:
    """The name in the client certificate of a person's device; empty without exactly one.

    HAProxy writes the header once it has seen the certificate, and removes what a client sent.
    """
    given = [value for name, value in scope["headers"] if name == CERTIFICATE]
    try:
        return given[0].decode("utf-8") if len(given) == 1 else ""
    except UnicodeDecodeError:
        return ""


def address_of(scope: Scope) -> str:
    """The client's address: what HAProxy on this machine says, otherwise the connection's own."""
    client = scope.get("client")
    peer = _ip(client[0]) if client else ""
    if peer and not ipaddress.ip_address(peer).is_loopback:
        return peer
    told = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
    # HAProxy removes what a client sent; of several the last was written nearest to us.
    last = told[-1].rpartition(b",")[2].strip().decode("latin-1") if told else ""
    return _ip(last) or peer


def device_of(scope: Scope) -> str:
    """The first product of the user agent, `OpenAI/Python` say; nothing else of it is kept."""
    for name, value in scope["headers"]:
        if name == b"user-agent" and (found := _PRODUCT.match(value)):
            return found[0].decode("ascii")
    return ""


def _ip(text: str) -> str:
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return ""
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(found)


def _idempotency_key(scope: Scope) -> str | None:
    given = [value for name, value in scope["headers"] if name == b"idempotency-key"]
    if not given:
        return None
    if len(given) > 1 or not _IDEMPOTENCY_KEY.fullmatch(given[0]):
        message = "An idempotency-key is given once, 1 to 255 visible ASCII characters."
        raise Invalid(message, param="idempotency-key")
    return str(given[0], "ascii")


def _without_credentials() -> Unauthenticated:
    message = "This needs credentials: a Bearer token of /v1/auth/token, or an API key."
    return Unauthenticated(message, code="credentials_required")
