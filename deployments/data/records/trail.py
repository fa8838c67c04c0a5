"""How the records speak to the audit: every act by ids, counts and hashes, before its answer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

import psycopg

from deployments.data.audit.chain import Audit
from deployments.data.audit.entry import AuditEntry, entry_of
from deployments.data.principal import Caller

BREAK_GLASS = "BTG"
# The largest page with what it includes: who looked for a patient must be found by that patient.
MAX_PATIENTS = 500
# Ids that this house gives; anything else in a request's path could be text, and is left out.
_OWN_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

Connection = psycopg.AsyncConnection[tuple[Any, ...]]


class Trail:
    """The audit as reads and writes use it; not `enabled`: nothing is kept (benchmarks only)."""

    def __init__(self, audit: Audit, *, enabled: bool) -> None:
        self._audit = audit
        self.enabled = enabled

    async def saw(
        self,
        caller: Caller,
        action: str,
        *,
        resource: str,
        patients: Sequence[str] = (),
        broke_glass: bool = False,
        **details: Any,
    ) -> None:
        """On record, durably, that something is about to be shown; raises if that fails."""
        if self.enabled:
            entry = _entry(caller, action, resource, patients, broke_glass, details)
            await self._audit.record(entry, deadline=caller.deadline)

    async def missed(self, caller: Caller, action: str, type: str, id: str, *, code: str) -> None:
        """On record that something was asked for which is not there, or not for this caller.

        Both look alike to the caller, and so they do here.
        """
        if not self.enabled:
            return
        resource = f"{type}/{id}" if _OWN_ID.fullmatch(id) else type
        patient = id if type == "Patient" and _OWN_ID.fullmatch(id) else None
        entry = entry_of(
            caller,
            action,
            "denied" if code == "not_found" else "failed",
            patient=patient,
            resource=resource,
            code=code,
        )
        await self._audit.journal(entry)

    async def stage(
        self,
        connection: Connection,
        caller: Caller,
        action: str,
        *,
        resource: str,
        patients: Sequence[str] = (),
        broke_glass: bool = False,
        **details: Any,
    ) -> list[UUID]:
        """The entry of a write inside the write's own transaction: both happen, or neither."""
        if not self.enabled:
            return []
        entry = _entry(caller, action, resource, patients, broke_glass, details)
        return [await self._audit.stage(connection, entry)]

    async def settle(self, staged: Sequence[UUID], caller: Caller) -> None:
        """After the commit: returns once writes and entries are durable, together."""
        if self.enabled and staged:
            await self._audit.settle(staged, deadline=caller.deadline)


def _entry(
    caller: Caller,
    action: str,
    resource: str,
    patients: Sequence[str],
    broke_glass: bool,
    details: dict[str, Any],
) -> AuditEntry:
    if len(patients) > 1:
        seen = {"patients": list(patients[:MAX_PATIENTS]), "patients_count": len(patients)}
        details = {**details, **seen}
    who = replace(caller, purpose=BREAK_GLASS) if broke_glass else caller
    patient = patients[0] if len(patients) == 1 else None
    return entry_of(who, action, patient=patient, resource=resource, **details)
