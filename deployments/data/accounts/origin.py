"""Where a request comes from, before it is known who makes it; and the audit's entry of it."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any, Protocol

from deployments.data.audit.entry import AuditEntry, Outcome
from deployments.data.principal import Caller, Principal

NOBODY = "nobody"


class Journal(Protocol):
    """What this package needs of the audit: acts that touch no patient."""

    async def journal(self, entry: AuditEntry) -> None:
        """Return once the entry lies durably in the local journal, which the chain takes up."""


@dataclass(frozen=True, slots=True)
class Origin:
    """A request without a caller yet; `deadline` is a moment of `time.monotonic()`."""

    request_id: str
    address: str
    deadline: float
    device: str = ""
    # The name in the client certificate of the person's device, where one was asked for.
    certificate: str = ""

    @classmethod
    def of(cls, caller: Caller) -> Origin:
        """The origin of a known caller's request."""
        return cls(caller.request_id, caller.address, caller.deadline, caller.device)

    @property
    def network(self) -> str:
        """What counts as one address: an IPv4 address, or the /64 that an IPv6 host may roam."""
        try:
            found = ipaddress.ip_address(self.address)
        except ValueError:
            return "unknown"
        if isinstance(found, ipaddress.IPv6Address):
            if found.ipv4_mapped is not None:
                return str(found.ipv4_mapped)
            return str(ipaddress.ip_network((found, 64), strict=False))
        return str(found)

    def entry(
        self, action: str, outcome: Outcome, who: Principal | None, **details: Any
    ) -> AuditEntry:
        """The audit's entry of an act; `who` is None where nobody could be told."""
        return AuditEntry(
            action=action,
            outcome=outcome,
            actor=who.id if who else NOBODY,
            actor_kind=who.kind if who else NOBODY,
            role=who.role if who else NOBODY,
            organization=who.organization if who else "",
            request_id=self.request_id,
            address=self.address,
            device=self.device,
            details=details,
        )
