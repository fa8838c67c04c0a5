"""Who asks: the one record that authentication makes and everything else decides by."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Role = Literal["physician", "nurse", "analyst", "auditor", "admin", "service"]
ROLES: tuple[Role, ...] = ("physician", "nurse", "analyst", "auditor", "admin", "service")


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller whose credentials have been checked.

    `id` is the account's or API key's UUID, `practitioner` the id of the Practitioner resource that
    a person is (None for machines), `scopes` what the token or key grants (deployments/data/scopes.py)
    and `methods` how the person signed in (RFC 8176: `pwd`, `hwk`, …). Nothing here names a patient.
    """

    id: str
    kind: Literal["account", "key", "operator"]
    role: Role
    organization: str
    scopes: frozenset[str]
    practitioner: str | None = None
    session: str | None = None
    methods: tuple[str, ...] = ()
    authenticated_at: float = 0.0
    demo: bool = False


@dataclass(frozen=True, slots=True)
class Caller:
    """A principal and the request that it makes: what access, audit and idempotency need to know.

    `address` is the client's, as the edge tells it; `device` a short name from its headers;
    `purpose` a code of http://terminology.hl7.org/CodeSystem/v3-ActReason (TREAT unless told
    otherwise, BTG under break-glass); `deadline` a moment of `time.monotonic()`.
    """

    principal: Principal
    request_id: str
    address: str
    deadline: float
    device: str = ""
    purpose: str = "TREAT"
    idempotency_key: str | None = field(default=None, repr=False)
