"""The switch that turns AI off, for the whole site or for one capability, at once and everywhere.

Every replica asks the database for the switches twice a second and keeps the last answer in a file,
so that an AI that was switched off stays off while the database is away and after a restart. Who
has never had an answer, on a machine without the file, refuses: it cannot know.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from deployments.data.audit.entry import entry_of
from deployments.data.database import Database
from deployments.data.durable import replace_file
from deployments.data.errors import DataError, Invalid
from deployments.data.interactions.ledger import AuditTrail
from deployments.data.principal import Caller
from deployments.data.repeating import repeated

SITE = "site"
# In the home: what was last known, for a replica that starts while the database is away.
FILE = "ai_switches.json"
CAPABILITIES = (SITE, "chat")
POLL_PERIOD_S = 0.5
POLL_DEADLINE_S = 2.0

_REASON = re.compile(r"[a-z0-9-]{1,64}")
_log = logging.getLogger("medrec.interactions")

_SET = """
INSERT INTO interactions.switch (organization, capability, enabled, account, reason, at)
VALUES (%s, %s, %s, %s, %s, %s) RETURNING version
"""
_LIST = """
SELECT DISTINCT ON (capability) capability, enabled, account, reason, at
FROM interactions.switch WHERE organization = %s ORDER BY capability, version DESC
"""
_ALL = "SELECT organization, capability, enabled FROM interactions.switches()"


class SwitchedOff(DataError):
    """Somebody's decision: AI is off here, or nobody can tell whether it is."""

    status = 503
    code = "ai_switched_off"
    issue = "transient"


@dataclass(frozen=True, slots=True)
class Switch:
    """One switch as it stands. Nobody has moved it where `at` is None."""

    capability: str
    enabled: bool = True
    account: str | None = None
    reason: str | None = None
    at: datetime | None = None


_Off = frozenset[tuple[str, str]]  # (organization, capability)


class Switches:
    """The switches, as one replica knows them. Start and close it on one event loop."""

    def __init__(self, database: Database, audit: AuditTrail, file: Path) -> None:
        """`file` lies in a private folder of this machine; all its replicas may share it."""
        self._database = database
        self._audit = audit
        self._file = file
        self._off = _read(file)
        self._turn = asyncio.Lock()
        self._poller: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to follow the database."""
        self._poller = asyncio.create_task(self._follow())

    async def close(self) -> None:
        """Stop following."""
        if self._poller is not None:
            self._poller.cancel()
            with suppress(asyncio.CancelledError):
                await self._poller
            self._poller = None

    def check(self, organization: str, capability: str) -> None:
        """Raise `SwitchedOff` unless the capability is known to be on; never waits."""
        off = self._off
        if off is None:
            message = "Whether AI is switched on is not known yet; try again."
            raise SwitchedOff(message, code="ai_switch_unknown", retry_after_s=1.0)
        for name in (SITE, capability):
            if (organization, name) in off:
                what = "AI" if name == SITE else f"The capability '{name}'"
                raise SwitchedOff(f"{what} has been switched off here.", retry_after_s=60.0)

    @repeated
    async def set(self, caller: Caller, capability: str, *, enabled: bool, reason: str) -> Switch:
        """Move a switch; this replica follows at once, the others within a second.

        Raises `Invalid` for an unknown capability or a reason that is not a short code.
        """
        check_words(capability, reason)
        who = caller.principal
        now = datetime.now(UTC)
        entry = entry_of(caller, "ai-switch", capability=capability, enabled=enabled, reason=reason)
        async with self._database.transaction(
            deadline=caller.deadline, organization=who.organization, durable=False
        ) as connection:
            values = (who.organization, capability, enabled, who.id, reason, now)
            await connection.execute(_SET, values)
            staged = await self._audit.stage(connection, entry)
        await self._audit.settle([staged], deadline=caller.deadline)
        with suppress(DataError, OSError):  # the switch has been moved: the next look will tell
            await self.refresh(caller.deadline)
        return Switch(capability, enabled, who.id, reason, now)

    @repeated
    async def all(self, caller: Caller) -> list[Switch]:
        """Every switch of the caller's organisation, those that nobody has moved too."""
        organization = caller.principal.organization
        async with self._database.transaction(
            deadline=caller.deadline, organization=organization, read_only=True
        ) as connection:
            found = await connection.execute(_LIST, (organization,))
            moved = {row[0]: Switch(*row) for row in await found.fetchall()}
        return [moved.get(name, Switch(name)) for name in CAPABILITIES]

    async def refresh(self, deadline: float) -> None:
        """Ask the database now. One at a time: an older answer never overtakes a newer one."""
        async with self._turn:
            async with self._database.transaction(deadline=deadline, read_only=True) as connection:
                found = await connection.execute(_ALL)
                rows = await found.fetchall()
            off = frozenset((row[0], row[1]) for row in rows if not row[2])
            changed, self._off = off != self._off, off
            if changed or not self._file.exists():
                await asyncio.to_thread(_write, self._file, off)

    async def _follow(self) -> None:
        healthy = True
        while True:
            try:
                await self.refresh(time.monotonic() + POLL_DEADLINE_S)
                healthy = True
            except Exception as error:  # without this task a switch would never be heard again
                if healthy:
                    _log.warning("the AI switches stay as known: %s", type(error).__name__)
                healthy = False
            await asyncio.sleep(POLL_PERIOD_S)


def check_words(capability: str, reason: str) -> None:
    """Raise `Invalid` unless both are words that may be kept and shown."""
    if capability not in CAPABILITIES:
        names = ", ".join(CAPABILITIES)
        raise Invalid(f"There is no such capability; there are {names}.", param="capability")
    if not _REASON.fullmatch(reason):
        message = "The reason is a code of 1 to 64 small letters, digits and hyphens."
        raise Invalid(message, param="reason")


def _read(file: Path) -> _Off | None:
    try:
        pairs = json.loads(file.read_text(encoding="utf-8"))["off"]
        return frozenset((str(organization), str(name)) for organization, name in pairs)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(file: Path, off: _Off) -> None:
    replace_file(file, json.dumps({"off": sorted(off)}).encode())
