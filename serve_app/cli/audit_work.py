"""What `medrec audit` does: on record itself, before it says that it is done."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import orjson
import psycopg
from rich.console import Console

from deployments.cell.state import CellError
from deployments.data.audit import anchor as anchors
from deployments.data.audit.operator import operator_audit, record
from deployments.data.audit.reader import AuditReader, AuditSearch
from deployments.data.audit.verify import Verdict, verify
from deployments.data.durable import synchronise
from deployments.data.errors import DataError
from deployments.data.places import Places
from serve_app.cli.whose import site_of, told_plainly

_SHOWN_FAULTS = 100
_EXPORT_BUFFER = 1 << 20


@dataclass(frozen=True, slots=True)
class Site:
    """Where this site's chain lies, and whose operators act here."""

    places: Places
    organization: str


def site(config: Path | None) -> Site:
    """The site of a config file, of the running cell, or of local.yaml, in that order."""
    args, found = site_of(config)
    return Site(found, args.organization)


def verify_chain(
    config: Path | None,
    first: int,
    files: Sequence[Path],
    public_key: Path | None,
    *,
    as_json: bool,
) -> int:
    """Print the verdict on the chain. Returns the exit status: 0 for a sound one."""
    with _failing_plainly():
        here = site(config)
        kept = _anchors(here, files, public_key)
        verdict = verify(here.places.owner_dsn, first=first, anchors=kept, progress=_progress)
        if sys.stderr.isatty():
            print(file=sys.stderr)
        on_record = _try_to_record(here, verdict)
    if as_json:
        print(orjson.dumps(_as_json(verdict, on_record), option=orjson.OPT_INDENT_2).decode())
    else:
        _print(verdict)
    return 0 if verdict.is_sound and on_record else 1


def sign_head(config: Path | None, out: Path | None) -> None:
    """Sign the head and print or keep the anchor."""
    with _failing_plainly():
        here = site(config)
        key = anchors.load_key(here.places.secrets)
        name = anchors.key_id(key.public_key())
        # First, so that the anchor covers the entry that tells of it.
        record(here.places, "audit-anchor", organization=here.organization, key=name)
        with psycopg.connect(here.places.owner_dsn) as connection:
            head = connection.execute("SELECT seq, hash FROM audit.head").fetchone()
        if head is None:
            raise CellError("the chain has no head: run medrec audit verify")
        anchor = anchors.sign(key, here.organization, head[0], bytes(head[1]))
        if out is None:
            sys.stdout.write(anchor.line().decode())
        else:
            _add_line(out, anchor.line())
            print(f"entry {anchor.seq} signed by {name} into {out}")


def print_public_key(config: Path | None) -> None:
    """Print the key that anchors are checked with; made now, if there is none yet."""
    with _failing_plainly():
        key = anchors.load_key(site(config).places.secrets)
    sys.stdout.write(anchors.public_pem(key))


def export_events(
    config: Path | None,
    out: Path,
    since: datetime | None,
    until: datetime | None,
    patient: str | None,
    organization: str | None,
) -> None:
    """Write AuditEvents to a new file, readable by its owner only."""
    with _failing_plainly():
        here = site(config)
        wanted = AuditSearch(patient=patient, since=_in_utc(since), until=_in_utc(until))
        count = asyncio.run(_export(here, organization or here.organization, wanted, out))
    print(f"{count} AuditEvents in {out}")


async def _export(here: Site, organization: str, wanted: AuditSearch, out: Path) -> int:
    count = 0
    async with operator_audit(here.places, organization) as operator:
        reader = AuditReader(operator.database, operator.audit)
        handle = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb", buffering=_EXPORT_BUFFER) as file:
            async for event in reader.entries(operator.caller, wanted):
                file.write(orjson.dumps(event) + b"\n")
                count += 1
    return count


def _anchors(here: Site, files: Sequence[Path], public_key: Path | None) -> list[anchors.Anchor]:
    if not files:
        return []
    if public_key is not None:
        key = anchors.load_public_key(public_key.read_bytes())
    else:
        key = anchors.load_key(here.places.secrets).public_key()
    return [anchor for file in files for anchor in anchors.read(file.read_bytes(), key)]


def _try_to_record(here: Site, verdict: Verdict) -> bool:
    """Put the verdict on record. A chain that is broken may be past that; the verdict is told."""
    try:
        record(
            here.places,
            "audit-verify",
            "success" if verdict.is_sound else "failed",
            organization=here.organization,
            first=verdict.first,
            head=verdict.head_seq,
            checked=verdict.checked,
            anchors=verdict.anchors,
            found=verdict.found,
        )
    except DataError as error:
        _say(f"[bold red]this verification is not on record:[/] {error.message}")
        return False
    return True


def _print(verdict: Verdict) -> None:
    for fault in verdict.faults[:_SHOWN_FAULTS]:
        print(f"entry {fault.seq}: {fault.what}: {fault.detail}")
    if verdict.found > _SHOWN_FAULTS:
        print(f"and {verdict.found - _SHOWN_FAULTS} more")
    result = "the chain is whole" if verdict.is_sound else f"THE CHAIN IS BROKEN: {verdict.found}"
    passed = f", {verdict.anchors} anchors passed" if verdict.anchors and verdict.is_sound else ""
    print(
        f"{result} ({verdict.checked} entries from {verdict.first}, head {verdict.head_seq} "
        f"{verdict.head_hash.hex()[:16]}{passed})"
    )


def _as_json(verdict: Verdict, on_record: bool) -> dict[str, object]:
    return {
        "sound": verdict.is_sound,
        "first": verdict.first,
        "checked": verdict.checked,
        "head": {"seq": verdict.head_seq, "hash": verdict.head_hash.hex()},
        "anchors": verdict.anchors,
        "found": verdict.found,
        "faults": [asdict(fault) for fault in verdict.faults],
        "on_record": on_record,
    }


def _progress(checked: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{checked} entries ", end="", file=sys.stderr, flush=True)


def _add_line(path: Path, line: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    with os.fdopen(handle, "ab") as file:
        file.write(line)
        file.flush()
        synchronise(file.fileno())


def _in_utc(moment: datetime | None) -> datetime | None:
    if moment is None or moment.tzinfo is not None:
        return moment
    return moment.replace(tzinfo=UTC)


def _say(text: str) -> None:
    Console(stderr=True, highlight=False, soft_wrap=True).print(text)


@contextmanager
def _failing_plainly() -> Iterator[None]:
    """What the operator can act on, as the command line's one kind of error."""
    try:
        with told_plainly():
            yield
    except psycopg.Error as error:
        message = f"the database cannot be asked: {type(error).__name__}"
        raise CellError(message) from error
    except OSError as error:
        raise CellError(f"{error.filename or 'a file'}: {error.strerror}") from error
