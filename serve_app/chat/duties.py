"""What a chat owes the law: whether it may begin, and its two entries in the audit.

The chat handler knows these duties by their protocol alone; `Duties` fulfils them with the records
and the ledger of interactions.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Protocol

from deployments.data.accounts.origin import Journal
from deployments.data.audit.entry import entry_of
from deployments.data.errors import DeadlineExceeded, Forbidden, Gone, NotFound, StoreUnavailable
from deployments.data.interactions.interaction import Answered, Asked
from deployments.data.principal import Caller
from deployments.data.scopes import require
from models.generation import Priority

CAPABILITY = "chat"


class ChatDuties(Protocol):
    """What the chat handler asks."""

    def permit(self, caller: Caller, priority: Priority) -> None:
        """Raise `Forbidden` without the scopes for it, `SwitchedOff` while AI is off."""

    def check_switch(self, caller: Caller) -> None:
        """Raise `SwitchedOff` while AI is off; cheap enough for every batch of an answer."""

    async def begin(self, caller: Caller, asked: Asked) -> None:
        """Put the question on record; no token may be asked of the engine before this returns.

        Raises `Forbidden` or `NotFound` where the patient is not the caller's to see, `Forbidden`
        with the code `consent_refused`, and `StoreUnavailable` where nothing could be recorded.
        """

    async def end(self, caller: Caller, asked: Asked, answered: Answered) -> None:
        """Put the outcome on record; an answer may only end well after this. The same errors."""


class PatientRecords(Protocol):
    """The records, as far as a chat needs them (deployments/data/records/store.py)."""

    async def ai_refused(self, caller: Caller, /, patient_id: str) -> str | None:
        """The id of the Consent that refuses AI. `NotFound` and `Forbidden` as for a read."""


class InteractionLedger(Protocol):
    """Keeps interactions (deployments/data/interactions/ledger.py)."""

    async def begin(self, caller: Caller, asked: Asked) -> None: ...

    async def end(self, caller: Caller, asked: Asked, answered: Answered) -> None: ...


class AiSwitches(Protocol):
    """Knows what is switched off (deployments/data/interactions/switches.py)."""

    def check(self, organization: str, capability: str) -> None: ...


class Duties:
    """`ChatDuties` over the data node's parts. `wait_s` bounds each of its waits for the records."""

    def __init__(
        self,
        audit: Journal,
        records: PatientRecords,
        ledger: InteractionLedger,
        switches: AiSwitches,
        *,
        wait_s: float,
    ) -> None:
        self._audit = audit
        self._records = records
        self._ledger = ledger
        self._switches = switches
        self._wait_s = wait_s

    def permit(self, caller: Caller, priority: Priority) -> None:
        """See `ChatDuties.permit`."""
        require(caller.principal, "ai")
        if priority is Priority.EMERGENCY:
            require(caller.principal, "ai:emergency")
        self.check_switch(caller)

    def check_switch(self, caller: Caller) -> None:
        """See `ChatDuties.check_switch`."""
        self._switches.check(caller.principal.organization, CAPABILITY)

    async def begin(self, caller: Caller, asked: Asked) -> None:
        """See `ChatDuties.begin`."""
        caller = self._in_time(caller)
        try:
            if asked.patient is not None:
                await self._agreed(caller, asked, asked.patient)
            await self._ledger.begin(caller, asked)
        except DeadlineExceeded:
            raise _not_recorded() from None

    async def end(self, caller: Caller, asked: Asked, answered: Answered) -> None:
        """See `ChatDuties.end`."""
        try:
            await self._ledger.end(self._in_time(caller), asked, answered)
        except DeadlineExceeded:
            raise _not_recorded() from None

    async def _agreed(self, caller: Caller, asked: Asked, patient: str) -> None:
        """Return if the caller may see the patient and no consent refuses AI; denials are kept."""
        try:
            consent = await self._records.ai_refused(caller, patient)
        except (Forbidden, NotFound, Gone) as error:
            denial = entry_of(
                caller, "ai-request", "denied", patient=patient, code=error.code, **asked.details()
            )
            await self._audit.journal(denial)
            raise
        if consent is None:
            return
        refusal = entry_of(
            caller,
            "consent-refusal",
            "denied",
            patient=patient,
            resource=f"Consent/{consent}",
            **asked.details(),
        )
        await self._audit.journal(refusal)
        raise Forbidden(
            "This patient refuses the use of AI; nothing was sent to a model.",
            param="metadata.patient",
            code="consent_refused",
        )

    def _in_time(self, caller: Caller) -> Caller:
        return replace(caller, deadline=time.monotonic() + self._wait_s)


def _not_recorded() -> StoreUnavailable:
    message = "The request could not be put on record in time, so it is not answered."
    return StoreUnavailable(message, code="audit_unavailable", retry_after_s=2.0)
