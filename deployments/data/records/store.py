"""The records: every read, search and write of patients' resources, by right and on record.

A request's way: scopes; a transaction in which row-level security shows the caller's organisation
and patients; the audit; the answer. What a caller may not see does not exist for it, and its asking
is on record as denied. A read is on record before it is returned; a write commits together with its
entry, and both are durable before it is acknowledged.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from configs.args import RecordsArgs
from deployments.data import scopes
from deployments.data.audit.chain import Audit
from deployments.data.database import Database
from deployments.data.errors import Forbidden, Unsupported
from deployments.data.principal import Caller
from deployments.data.records.access import Access, Act
from deployments.data.records.break_glass import BreakGlass
from deployments.data.records.missing import Deleted, Missing
from deployments.data.records.reading import Reader
from deployments.data.records.search import SearchPage, SearchQuery
from deployments.data.records.shapes import COMPARTMENT_TYPES, BundleEntry, Stored, Written
from deployments.data.records.trail import Trail
from deployments.data.records.transactions import Transaction
from deployments.data.records.writes import Beside, Watch, Writes
from deployments.data.records.writing import Writer, check_id
from deployments.data.repeating import repeated
from deployments.data.seal.sealer import Sealer

__all__ = ("BundleEntry", "Records", "SearchPage", "Stored", "Written")

MAX_COUNT = 200
_EXPORT_PAGE = 200


class Records:
    """The records of every organisation, as one process reaches them."""

    def __init__(
        self,
        database: Database,
        sealer: Sealer,
        audit: Audit,
        args: RecordsArgs,
        watch: Watch | None = None,
    ) -> None:
        """`watch` sees every version in the transaction that writes it."""
        self._trail = Trail(audit, enabled=args.audit)
        self._access = Access(database, self._trail)
        self.break_glass = BreakGlass(database, sealer, audit, args)
        self._reader = Reader(sealer)
        self._writes = Writes(Writer(sealer, args), self._reader, self._trail, sealer, watch)

    async def create(
        self,
        caller: Caller,
        type: str,
        resource: dict[str, Any],
        *,
        if_none_exist: SearchQuery | None = None,
        fingerprint: bytes | None = None,
        beside: Beside | None = None,
        action: str = "create",
        details: Mapping[str, Any] | None = None,
    ) -> Written:
        """A new resource under an id of the server's; with `if_none_exist` only if nothing matches.

        `fingerprint` stands for the request instead of the resource, `beside` is awaited in the
        same transaction once it is written (a blob's row), `action` and `details` go into the audit.
        """
        self._access.permit(caller, type, "c")
        if if_none_exist is not None:
            self._access.permit(caller, type, "s")
        draft = self._writes.drafted(type, resource)

        async def work(act: Act) -> Written:
            return await self._writes.create(
                act.connection,
                act.staged,
                caller,
                draft,
                if_none_exist=if_none_exist,
                fingerprint=fingerprint,
                beside=beside,
                action=action,
                details=details or {},
            )

        return await self._access.write(caller, action, work)

    @repeated
    async def read(self, caller: Caller, type: str, id: str, *, action: str = "read") -> Stored:
        """The newest version. Raises `NotFound`, or `Gone` for one that was deleted."""
        self._access.permit(caller, type, "r")
        async with self._access.noticed(caller, action):
            async with self._access.opened(caller, write=False) as connection:
                stored, broke_glass = await self._reader.current(connection, caller, type, id)
            if stored.resource is None:
                raise Deleted(type, id)
        await self._access.show(caller, action, stored, broke_glass)
        return stored

    @repeated
    async def vread(self, caller: Caller, type: str, id: str, version: int) -> Stored:
        """One version. Raises `NotFound`, or `Gone` for the version that says it was deleted."""
        self._access.permit(caller, type, "r")
        async with self._access.noticed(caller, "vread"):
            if not 1 <= version < 2**31:
                raise Missing(type, id)
            async with self._access.opened(caller, write=False) as connection:
                stored, broke_glass = await self._reader.version(
                    connection, caller, type, id, version
                )
            if stored.resource is None:
                raise Deleted(type, id)
        await self._access.show(caller, "vread", stored, broke_glass)
        return stored

    @repeated
    async def history(
        self, caller: Caller, type: str, id: str, *, count: int, before_version: int | None = None
    ) -> list[Stored]:
        """Versions, newest first, deletions too; those before `before_version` if it is given."""
        self._access.permit(caller, type, "r")
        async with (
            self._access.noticed(caller, "history"),
            self._access.opened(caller, write=False) as connection,
        ):
            found, broke_glass = await self._reader.versions(
                connection,
                caller,
                type,
                id,
                count=max(1, min(count, MAX_COUNT)),
                before=before_version,
            )
        await self._trail.saw(
            caller,
            "history",
            resource=f"{type}/{id}" if found else type,
            patients=sorted({each.patient for each in found if each.patient}),
            broke_glass=broke_glass,
            versions=[each.version for each in found],
        )
        return found

    async def update(
        self, caller: Caller, type: str, id: str, resource: dict[str, Any], *, if_match: int | None
    ) -> Written:
        """The next version of what is held; with `if_match` only of that version."""
        self._access.permit(caller, type, "u")
        if type == "Binary":
            raise Unsupported("Content does not change: upload it anew to /fhir/Binary.")
        check_id(resource, id)
        draft = self._writes.drafted(type, resource, id=id)

        async def work(act: Act) -> Written:
            return await self._writes.update(
                act.connection, act.staged, caller, draft, if_match=if_match
            )

        return await self._access.write(caller, "update", work)

    async def delete(self, caller: Caller, type: str, id: str) -> Written:
        """A version that says it is deleted; earlier ones remain. Deleting again changes nothing."""
        self._access.permit(caller, type, "d")

        async def work(act: Act) -> Written:
            return await self._writes.delete(act.connection, act.staged, caller, type, id)

        return await self._access.write(caller, "delete", work)

    @repeated
    async def search(self, caller: Caller, query: SearchQuery) -> SearchPage:
        """One page of what the caller may see."""
        self._access.permit(caller, query.type, "s")
        async with self._access.opened(caller, write=False) as connection:
            seen = await self._reader.search(connection, caller, query)
        await self._access.show_page(
            caller, "search", query.type, seen, parameters=list(query.names)
        )
        return seen.page

    @repeated
    async def everything(
        self, caller: Caller, patient_id: str, *, count: int, cursor: str | None
    ) -> SearchPage:
        """One page of what a patient's compartment holds of the types that the caller may read."""
        self._access.permit(caller, "Patient", "r")
        count = max(1, min(count, MAX_COUNT))
        async with (
            self._access.noticed(caller, "everything"),
            self._access.opened(caller, write=False) as connection,
        ):
            await self._reader.living_patient(connection, caller, patient_id)
            seen = await self._reader.everything(
                connection, caller, patient_id, count=count, cursor=cursor
            )
        await self._access.show_page(caller, "everything", f"Patient/{patient_id}", seen)
        return seen.page

    async def transaction(
        self, caller: Caller, entries: Sequence[BundleEntry]
    ) -> list[Written | SearchPage]:
        """A FHIR transaction: every entry, or none. Results stand in the order of the entries."""
        plan = Transaction(caller, entries, self._writes, self._reader)
        await plan.prepare()

        async def work(act: Act) -> list[Written | SearchPage]:
            return await plan.run(act.connection, act.staged)

        return await self._access.write(caller, "transaction", work)

    @repeated
    async def ai_refused(self, caller: Caller, patient_id: str) -> str | None:
        """The id of an active Consent by which the patient refuses AI; None if there is none.

        Raises `Forbidden` and `NotFound` as `read` does; its caller keeps the audit.
        """
        self._access.permit(caller, "Patient", "r")
        async with self._access.opened(caller, write=False) as connection:
            await self._reader.living_patient(connection, caller, patient_id)
            return await self._reader.refusal_of_ai(connection, caller, patient_id)

    @repeated
    async def may_write(self, caller: Caller, type: str, patient_id: str | None) -> None:
        """Raise what `create` would for this patient, before a long upload is read."""
        self._access.permit(caller, type, "c")
        if patient_id is None:
            if scopes.compartment(caller.principal) != "all":
                raise Forbidden("Only what belongs to a patient can be written with these rights.")
            return
        async with (
            self._access.noticed(caller, "create"),
            self._access.opened(caller, write=False) as connection,
        ):
            await self._reader.living_patient(connection, caller, patient_id)

    async def export(self, caller: Caller, patient_id: str) -> AsyncIterator[Stored]:
        """Every version of everything in a patient's compartment, by type and id, oldest first."""
        for type in COMPARTMENT_TYPES:
            self._access.permit(caller, type, "r")
        after: tuple[str, str, int] = ("", "", 0)
        began = False
        while True:
            async with (
                self._access.noticed(caller, "export"),
                self._access.opened(caller, write=False) as connection,
            ):
                if not began:
                    await self._reader.current(connection, caller, "Patient", patient_id)
                page = await self._reader.compartment(
                    connection, caller, patient_id, after=after, count=_EXPORT_PAGE
                )
            if not began or page:
                await self._trail.saw(
                    caller,
                    "export",
                    resource=f"Patient/{patient_id}",
                    patients=[patient_id],
                    versions_count=len(page),
                )
            began = True
            for stored in page:
                yield stored
            if len(page) < _EXPORT_PAGE:
                return
            after = (page[-1].type, page[-1].id, page[-1].version)
