"""Everything that is held about a person, as files that a person and a program can read."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import psycopg

from configs.args import RecordsArgs
from deployments.data.alerts.alert import read
from deployments.data.alerts.statements import COLUMNS
from deployments.data.audit.operator import Operator, operator_audit
from deployments.data.audit.reader import AuditReader, AuditSearch
from deployments.data.blobs.store import Blobs
from deployments.data.errors import Conflict, Gone, NotFound
from deployments.data.interactions.decisions import Decision, Interaction
from deployments.data.interactions.ledger import text_context
from deployments.data.interactions.subject import Subject
from deployments.data.places import Places
from deployments.data.principal import Caller
from deployments.data.records.store import Records
from deployments.data.seal.sealer import Sealed, Sealer

DEADLINE_S = 900.0
_INTERACTIONS = """
SELECT id, patient, account, model, weights_sha256, prompt_version, input_sha256, output_sha256,
    started_at, ended_at, outcome FROM interactions.interaction
WHERE patient = %s AND organization = %s ORDER BY started_at, id
"""
_DECISIONS = """
SELECT d.id, d.interaction, d.decision, d.account, d.at, d.output_sha256, d.reason
FROM interactions.decision AS d JOIN interactions.interaction AS i ON i.id = d.interaction
WHERE i.patient = %s AND i.organization = %s ORDER BY d.number
"""
_TEXTS = """
SELECT id, kind, part, interaction, created_at, expires_at, key_id, wrapped_key, data
FROM interactions.short_lived WHERE patient = %s AND organization = %s ORDER BY created_at, id
"""
_ALERTS = f"""
SELECT {COLUMNS} FROM alerts.alert AS a
WHERE a.patient = %s AND a.organization = %s ORDER BY a.raised_at, a.id
"""
_BLOBS = """
SELECT type, resource, version, name FROM records.blob
WHERE patient = %s AND organization = %s AND erased_at IS NULL ORDER BY created_at, name
"""

Lines = AsyncIterator[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class _Work:
    """One export under way."""

    operator: Operator
    caller: Caller
    subject: Subject
    folder: Path

    def reading(self) -> AbstractAsyncContextManager[psycopg.AsyncConnection[tuple[Any, ...]]]:
        return self.operator.database.transaction(
            deadline=self.caller.deadline,
            organization=self.subject.organization,
            compartment="all",
            read_only=True,
        )

    async def rows(self, query: str) -> list[tuple[Any, ...]]:
        async with self.reading() as connection:
            values = (self.subject.patient, self.subject.organization)
            return await (await connection.execute(query.encode(), values)).fetchall()


class SubjectExport:
    """The operator's export: resources with every version, AI interactions, texts, alerts, audit,
    files."""

    def __init__(self, places: Places, args: RecordsArgs) -> None:
        self._places = places
        self._args = args
        self._sealer = Sealer.load(places.secrets)

    async def run(self, subject: Subject, folder: Path) -> dict[str, Any]:
        """Write into the new `folder` (0700) and return its manifest.

        On record before the first line is written, and with its counts at the end. `Conflict` if
        the folder exists, `NotFound` for an unknown patient.
        """
        async with operator_audit(self._places, subject.organization) as operator:
            work = _Work(operator, _reader_of(operator), subject, folder)
            records = Records(operator.database, self._sealer, operator.audit, self._args)
            with suppress(Gone):  # a deleted patient's record is held all the same
                await records.ai_refused(work.caller, subject.patient)
            await operator.record("export", patient=subject.patient, step="begin")
            await asyncio.to_thread(_make, folder)
            audit = AuditReader(operator.database, operator.audit)
            search = AuditSearch(patient=subject.patient)
            parts: dict[str, Lines] = {
                "records": _resources(records, work),
                "interactions": self._interactions(work),
                "texts": self._texts(work),
                "alerts": self._alerts(work),
                "audit": audit.entries(work.caller, search),
            }
            counts = {}
            for name, lines in parts.items():
                counts[name] = await _write(folder / f"{name}.ndjson", lines)
            counts["documents"] = await self._documents(work)
            manifest = _manifest(subject, folder, counts)
            await operator.record("export", patient=subject.patient, step="end", counts=counts)
            (folder / "manifest.json").write_bytes(
                orjson.dumps(manifest, option=orjson.OPT_INDENT_2)
            )
            return manifest

    async def _interactions(self, work: _Work) -> Lines:
        decisions: dict[str, list[dict[str, Any]]] = {}
        for row in await work.rows(_DECISIONS):
            decisions.setdefault(row[1], []).append(asdict(Decision(*row)))
        for row in await work.rows(_INTERACTIONS):
            fields = asdict(Interaction(*row))
            del fields["decision"]
            yield fields | {"decisions": decisions.get(row[0], [])}

    async def _texts(self, work: _Work) -> Lines:
        for id, kind, part, interaction, created, expires, *sealed in await work.rows(_TEXTS):
            key, wrapped, data = sealed
            line = {"id": id, "kind": kind, "part": part, "interaction": interaction}
            line |= {"created_at": created, "expires_at": expires}
            if kind == "chat":
                context = text_context(interaction, part)
                opened = self._sealer.open(Sealed(key, bytes(wrapped), bytes(data)), context)
                yield line | {"content": orjson.loads(opened)}
            else:
                # Sealed by whoever keeps this kind; its bytes are handed over as they are kept.
                yield line | {"sealed_base64": base64.b64encode(bytes(data)).decode()}

    async def _alerts(self, work: _Work) -> Lines:
        for row in await work.rows(_ALERTS):
            yield asdict(read(self._sealer, row))

    async def _documents(self, work: _Work) -> int:
        blobs = Blobs(self._sealer, self._places.blobs, self._args)
        written = 0
        try:
            for type, id, version, name in await work.rows(_BLOBS):
                target = work.folder / "documents"
                target.mkdir(mode=0o700, exist_ok=True)
                try:
                    async with work.reading() as connection:
                        ref = await blobs.find(connection, type, id, version)
                except (NotFound, Gone):
                    continue
                with (target / name).open("xb") as stream:
                    async for piece in blobs.open(ref):
                        stream.write(piece)
                written += 1
        finally:
            await blobs.close()
        return written


def _reader_of(operator: Operator) -> Caller:
    """The operator, with the right to read whatever is held of a person."""
    principal = replace(
        operator.caller.principal,
        scopes=operator.caller.principal.scopes | {"system/*.rs"},
    )
    deadline = time.monotonic() + DEADLINE_S
    return replace(operator.caller, principal=principal, purpose="PATRQT", deadline=deadline)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        raise Conflict("The folder is there already.", code="exists") from None


async def _resources(records: Records, work: _Work) -> Lines:
    async for stored in records.export(work.caller, work.subject.patient):
        yield {
            "type": stored.type,
            "id": stored.id,
            "version": stored.version,
            "updated_at": stored.updated_at,
            "method": stored.method,
            "resource": stored.resource,
        }


async def _write(path: Path, lines: Lines) -> int:
    count = 0
    with path.open("xb") as stream:
        async for line in lines:
            stream.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
            count += 1
    return count


def _manifest(subject: Subject, folder: Path, counts: Mapping[str, int]) -> dict[str, Any]:
    hashes = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256")
            hashes[str(path.relative_to(folder))] = digest.hexdigest()
    return {
        "patient": f"Patient/{subject.patient}",
        "organization": subject.organization,
        "exported_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "counts": dict(counts),
        "sha256": hashes,
    }
