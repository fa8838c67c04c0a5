"""Proves that blobs stream through bounded memory, come out as they went in, and leave no rest."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import signal
import subprocess
import sys
import time
import tracemalloc
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from configs.args import RecordsArgs
from configs.reader import PROJECT_ROOT
from deployments.data.blobs import BlobRef, Blobs, Draft, erase, files
from deployments.data.blobs.disk import PARTS, Disk, part_name
from deployments.data.blobs.sweep import sweep
from deployments.data.database import Database
from deployments.data.errors import DiskFull, Gone, NotFound, TooLarge
from deployments.data.seal import framing, keys
from deployments.data.seal.errors import SealBroken
from deployments.data.seal.sealer import Sealer

MB = 2**20
GB = 2**30


@pytest.fixture
def sealer(tmp_path: Path) -> Sealer:
    keys.create(tmp_path / "secrets")
    return Sealer.load(tmp_path / "secrets")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "blobs"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture
async def blobs(sealer: Sealer, folder: Path) -> AsyncIterator[Blobs]:
    made = Blobs(sealer, folder, RecordsArgs(max_upload_mb=512, disk_reserve_gb=0.0))
    yield made
    await made.close()


async def stream(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


def left_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def ref_of(draft: Draft, sealer: Sealer) -> BlobRef:
    key_id, wrapped = sealer.wrap(draft.key)
    return BlobRef(draft.name, draft.id, draft.size, "text/plain", draft.sha256, key_id, wrapped)


async def read(blobs: Blobs, ref: BlobRef, start: int = 0, end: int | None = None) -> bytes:
    return b"".join([piece async for piece in blobs.open(ref, start, end)])


@pytest.mark.parametrize(
    "size", [0, 1, framing.CHUNK - 1, framing.CHUNK, framing.CHUNK + 1, 3 * framing.CHUNK]
)
async def test_content_comes_out_as_it_went_in_under_the_hash_of_what_is_stored(
    blobs: Blobs, sealer: Sealer, folder: Path, size: int
) -> None:
    plain = os.urandom(size)
    draft = await blobs.put(stream(plain[:1000], plain[1000:]), announced=size)
    path = folder / draft.name[:2] / draft.name[2:4] / draft.name
    stored = path.read_bytes()
    assert hashlib.sha256(stored).hexdigest() == draft.name
    assert draft.sha256 == hashlib.sha256(plain).hexdigest()
    assert (draft.size, draft.stored_size) == (size, len(stored))
    assert len(stored) == framing.sealed_size(size)
    assert plain[:64] not in stored or size < 64
    assert path.stat().st_mode & 0o077 == 0
    assert await read(blobs, ref_of(draft, sealer)) == plain
    assert left_in(folder) == [path]


async def test_equal_content_is_stored_differently_each_time(blobs: Blobs) -> None:
    one = await blobs.put(stream(b"equal"), announced=None)
    two = await blobs.put(stream(b"equal"), announced=None)
    assert one.sha256 == two.sha256
    assert one.name != two.name


async def test_any_range_is_the_slice_of_the_whole(blobs: Blobs, sealer: Sealer) -> None:
    size = 2 * framing.CHUNK + 77
    plain = os.urandom(size)
    ref = ref_of(await blobs.put(stream(plain), announced=size), sealer)
    edges = (0, 1, framing.CHUNK - 1, framing.CHUNK, framing.CHUNK + 1, size - 1, size)
    for start in edges:
        for end in edges:
            if start < end:
                assert await read(blobs, ref, start, end) == plain[start:end], (start, end)
    assert await read(blobs, ref, size - 5, size + 100) == plain[-5:]


async def test_a_file_that_the_disk_does_not_give_back_is_damaged_and_no_other_failure_is(
    blobs: Blobs, sealer: Sealer, monkeypatch: pytest.MonkeyPatch
) -> None:
    draft = await blobs.put(stream(b"content"), announced=None)
    ref = ref_of(draft, sealer)

    def failing(number: int) -> Callable[..., Any]:
        def fail(*_: object) -> None:
            raise OSError(number, os.strerror(number))

        return fail

    with monkeypatch.context() as patched:
        patched.setattr(hashlib, "file_digest", failing(errno.EIO))
        assert not await blobs.verify(draft.name)
        patched.setattr(hashlib, "file_digest", failing(errno.EMFILE))
        with pytest.raises(OSError, match="open files"):
            await blobs.verify(draft.name)
    with monkeypatch.context() as patched:
        header = os.pread

        def pread(handle: int, size: int, at: int) -> bytes:
            return header(handle, size, at) if at == 0 else failing(errno.EIO)()

        patched.setattr(os, "pread", pread)
        with pytest.raises(SealBroken, match="does not give"):
            await read(blobs, ref)


@pytest.mark.parametrize("how", ["flipped", "cut", "cut at a chunk", "longer", "gone", "other"])
async def test_damaged_content_is_never_served_as_whole(
    blobs: Blobs, sealer: Sealer, folder: Path, how: str
) -> None:
    plain = os.urandom(2 * framing.CHUNK + 10)
    draft = await blobs.put(stream(plain), announced=None)
    ref = ref_of(draft, sealer)
    path = files.path_of(folder, draft.name)
    data = path.read_bytes()
    assert await blobs.verify(draft.name)
    if how == "gone":
        path.unlink()
        with pytest.raises(files.BlobLost):
            await read(blobs, ref)
        with pytest.raises(files.BlobLost):
            await blobs.verify(draft.name)
        return
    middle = framing.offset_of(1) + 5
    changed = {
        "flipped": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :],
        "cut": data[:-3],
        "cut at a chunk": data[: framing.offset_of(2)],
        "longer": data + b"x",
        "other": files.path_of(
            folder, (await blobs.put(stream(bytes(len(plain))), announced=None)).name
        ).read_bytes(),
    }[how]
    path.write_bytes(changed)
    assert not await blobs.verify(draft.name)
    got = bytearray()

    async def download() -> None:
        async for piece in blobs.open(ref):
            got.extend(piece)

    with pytest.raises(SealBroken):
        await download()
    # What left before the damaged chunk was verified and right.
    assert bytes(got) == plain[: len(got)]
    assert len(got) < len(plain)


async def test_200_mb_go_in_and_out_without_being_held(
    blobs: Blobs, sealer: Sealer, folder: Path
) -> None:
    piece = os.urandom(64 * 1024)
    count = 200 * MB // len(piece)

    async def source() -> AsyncIterator[bytes]:
        for _ in range(count):
            yield bytes(piece)

    tracemalloc.start()
    try:
        draft = await blobs.put(source(), announced=count * len(piece))
        put_peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        digest = hashlib.sha256()
        async for part in blobs.open(ref_of(draft, sealer)):
            digest.update(part)
        open_peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert draft.size == 200 * MB
    assert digest.hexdigest() == draft.sha256
    # A few chunks of 256 KiB; the bound leaves room for what else the process allocates.
    assert put_peak < 6 * MB
    assert open_peak < 6 * MB


async def test_more_than_the_limit_is_refused_announced_or_not_and_nothing_stays(
    sealer: Sealer, folder: Path
) -> None:
    blobs = Blobs(sealer, folder, RecordsArgs(max_upload_mb=1, disk_reserve_gb=0.0))
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 64 * 1024
            yield bytes(64 * 1024)

    with pytest.raises(TooLarge):
        await blobs.put(endless(), announced=MB + 1)
    assert sent == 0
    with pytest.raises(TooLarge):
        await blobs.put(endless(), announced=None)
    assert MB < sent <= 2 * MB
    exact = await blobs.put(stream(bytes(MB)), announced=MB)
    assert exact.size == MB
    assert left_in(folder) == [files.path_of(folder, exact.name)]
    await blobs.close()


async def test_a_sender_that_fails_or_is_cancelled_leaves_nothing(
    blobs: Blobs, folder: Path
) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield bytes(framing.CHUNK * 2)
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await blobs.put(broken(), announced=MB * 5)
    assert left_in(folder) == []

    arrived = asyncio.Event()

    async def stalled() -> AsyncIterator[bytes]:
        yield bytes(framing.CHUNK * 2)
        arrived.set()
        await asyncio.Event().wait()

    upload = asyncio.create_task(blobs.put(stalled(), announced=None))
    await arrived.wait()
    assert len(left_in(folder)) == 1
    upload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upload
    assert left_in(folder) == []


def statvfs_of(free: int) -> os.statvfs_result:
    return os.statvfs_result((4096, 4096, 10**9, free // 4096, free // 4096, 1, 1, 1, 0, 255))


class FakeDisk:
    """A file system of which everything but the blobs' own bytes is made up."""

    def __init__(self, folder: Path, free: int) -> None:
        self.folder, self.free = folder, free

    def __call__(self, path: Path) -> os.statvfs_result:
        used = sum(file.stat().st_size for file in left_in(self.folder))
        return statvfs_of(max(0, self.free - used))


async def test_uploads_are_refused_before_the_disk_is_full(sealer: Sealer, folder: Path) -> None:
    args = RecordsArgs(max_upload_mb=512, disk_reserve_gb=1.0)
    blobs = Blobs(sealer, folder, args, statvfs=FakeDisk(folder, GB + 20 * MB))
    # Announced: refused before a byte is read.
    with pytest.raises(DiskFull) as refused:
        await blobs.put(stream(), announced=21 * MB)
    assert refused.value.status == 507

    async def much() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield bytes(MB)

    # Not announced: refused on the way, and the room is given back.
    with pytest.raises(DiskFull):
        await blobs.put(much(), announced=None)
    assert left_in(folder) == []
    assert (await blobs.put(stream(bytes(MB)), announced=MB)).size == MB
    await blobs.close()


async def test_uploads_at_once_are_not_promised_the_same_room(sealer: Sealer, folder: Path) -> None:
    args = RecordsArgs(max_upload_mb=512, disk_reserve_gb=1.0)
    disk = FakeDisk(folder, GB + 20 * MB)
    one, two = (Blobs(sealer, folder, args, statvfs=disk) for _ in range(2))
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield bytes(MB)
        begun.set()
        await go_on.wait()
        yield bytes(14 * MB)

    first = asyncio.create_task(one.put(slow(), announced=15 * MB))
    await begun.wait()
    # Another process would see the same: the promise lies in the folder.
    with pytest.raises(DiskFull):
        await two.put(stream(bytes(15 * MB)), announced=15 * MB)
    small = await two.put(stream(bytes(MB)), announced=MB)
    go_on.set()
    assert (await first).size == 15 * MB
    assert small.size == MB
    for made in (one, two):
        await made.close()


def test_a_dead_uploads_promise_does_not_count(folder: Path) -> None:
    disk = Disk(folder, GB, lambda _: statvfs_of(2 * GB))
    disk.parts.mkdir()
    (disk.parts / part_name("dead", 10 * GB)).write_bytes(b"x")
    assert disk.promised() == 0
    disk.check(GB - MB)


CALLER = {"organization": "hospital", "practitioner": "p1", "compartment": "care"}


def deadline() -> float:
    return time.monotonic() + 10


def add_version(owner_dsn: str, patient: str = "pat1", id: str = "bin1", version: int = 1) -> None:
    """As the store of the records leaves it, with a care relationship of p1."""
    with psycopg.connect(owner_dsn, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO records.history (organization, type, id, version, updated_at, method,"
            " patient, content) VALUES ('hospital', 'Binary', %s, %s, now(), 'POST', %s, '{}')",
            (id, version, patient),
        )
        connection.execute(
            "INSERT INTO records.care (organization, practitioner, patient, basis, source)"
            " VALUES ('hospital', 'p1', %s, 'encounter', 'e') ON CONFLICT DO NOTHING",
            (patient,),
        )


async def keep(blobs: Blobs, database: Database, draft: Draft, id: str = "bin1") -> None:
    async with database.transaction(deadline=deadline(), **CALLER) as connection:  # type: ignore[arg-type]
        await blobs.keep(
            connection,
            draft,
            organization="hospital",
            resource=("Binary", id, 1),
            patient="pat1",
            content_type="application/pdf",
        )


async def find(blobs: Blobs, database: Database, **settings: str) -> BlobRef:
    found = CALLER | settings
    async with database.transaction(deadline=deadline(), **found) as connection:  # type: ignore[arg-type]
        return await blobs.find(connection, "Binary", "bin1", 1)


async def test_a_row_is_seen_by_whoever_sees_its_version_and_by_nobody_else(
    blobs: Blobs, database: Database, dsns: tuple[str, str]
) -> None:
    add_version(dsns[1])
    draft = await blobs.put(stream(b"content"), announced=None)
    await keep(blobs, database, draft)
    ref = await find(blobs, database)
    assert await read(blobs, ref) == b"content"
    assert (ref.name, ref.content_type, ref.size) == (draft.name, "application/pdf", 7)
    assert (await find(blobs, database, compartment="all", practitioner="")).name == draft.name
    for other in ({"practitioner": "p2"}, {"compartment": "none"}, {"organization": "elsewhere"}):
        with pytest.raises(NotFound):
            await find(blobs, database, **other)


async def test_the_application_can_neither_change_nor_remove_a_row(
    blobs: Blobs, database: Database, dsns: tuple[str, str]
) -> None:
    add_version(dsns[1])
    await keep(blobs, database, await blobs.put(stream(b"content"), announced=None))
    for statement in (
        b"UPDATE records.blob SET size = 1",
        b"DELETE FROM records.blob",
        b"SELECT * FROM records.escrow",
    ):
        with psycopg.connect(dsns[0]) as connection:
            connection.execute("SET medrec.organization = 'hospital'")
            connection.execute("SET medrec.compartment = 'all'")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)


async def test_erasing_destroys_key_and_file_and_says_so_ever_after(
    blobs: Blobs, database: Database, dsns: tuple[str, str], folder: Path
) -> None:
    add_version(dsns[1])
    draft = await blobs.put(stream(b"content"), announced=None)
    await keep(blobs, database, draft)
    async with await psycopg.AsyncConnection.connect(dsns[1], autocommit=True) as owner:
        assert await erase(owner, folder, draft.name)
        assert not await erase(owner, folder, draft.name)
        row = await (
            await owner.execute("SELECT wrapped_key, key_id, sha256, erased_at FROM records.blob")
        ).fetchone()
    assert row is not None
    assert row[:3] == (None, None, None)
    assert row[3] is not None
    assert left_in(folder) == []
    with pytest.raises(Gone):
        await find(blobs, database)


async def test_sweeping_removes_rests_and_leaves_what_is_owned_or_young(
    blobs: Blobs, database: Database, dsns: tuple[str, str], folder: Path
) -> None:
    add_version(dsns[1])
    owned = await blobs.put(stream(b"owned"), announced=None)
    await keep(blobs, database, owned)
    orphan = await blobs.put(stream(b"orphan"), announced=None)
    young = await blobs.put(stream(b"young"), announced=None)
    for draft in (owned, orphan):
        os.utime(files.path_of(folder, draft.name), (1, 1))
    stale = folder / PARTS / part_name("stale", 100)
    stale.write_bytes(b"x")
    os.utime(stale, (1, 1))
    (folder / files.CORRUPT).mkdir()
    for name, moment in (("long mended", 1.0), ("just mended", time.time())):
        (folder / files.CORRUPT / name).write_bytes(b"x")
        os.utime(folder / files.CORRUPT / name, (moment, moment))

    swept = await sweep(database, folder, deadline=deadline(), settle_s=0)
    assert (swept.looked_at, swept.parts, swept.orphans, swept.refused) == (2, 1, 1, "")
    names = {path.name for path in left_in(folder)}
    assert names == {owned.name, young.name, "just mended"}
    again = await sweep(database, folder, deadline=deadline(), settle_s=0)
    assert (again.parts, again.orphans) == (0, 0)


async def test_sweeping_spares_an_upload_whose_row_comes_while_a_clock_has_jumped(
    blobs: Blobs, database: Database, dsns: tuple[str, str], folder: Path
) -> None:
    add_version(dsns[1])
    draft = await blobs.put(stream(b"content"), announced=None)
    # As a clock that is hours ahead sees it.
    sweeping = asyncio.create_task(
        sweep(database, folder, deadline=deadline(), older_than_s=-7200.0, settle_s=0.5)
    )
    await asyncio.sleep(0.2)
    await keep(blobs, database, draft)
    assert (await sweeping).orphans == 0
    assert [path.name for path in left_in(folder)] == [draft.name]


async def test_sweeping_leaves_everything_if_the_database_looks_like_another_one(
    database: Database, folder: Path
) -> None:
    for _ in range(20):
        path = files.path_of(folder, uuid.uuid4().hex * 2)
        path.parent.mkdir(parents=True)
        path.write_bytes(b"x")
        os.utime(path, (1, 1))
    swept = await sweep(database, folder, deadline=deadline(), settle_s=0)
    assert swept.refused == "20 of 20 blobs have no row: is this their database?"
    assert len(left_in(folder)) == 20


UPLOADER = """
import asyncio, sys
from pathlib import Path
from configs.args import RecordsArgs
from deployments.data.blobs import Blobs
from deployments.data.seal.sealer import Sealer

async def pieces():
    for _ in range(30):
        yield bytes(2**20)
    print("half", flush=True)
    await asyncio.sleep(60)

home = Path(sys.argv[1])
blobs = Blobs(Sealer.load(home / "secrets"), home / "blobs", RecordsArgs(disk_reserve_gb=0.0))
asyncio.run(blobs.put(pieces(), announced=60 * 2**20))
"""


async def test_kill_9_in_mid_upload_leaves_a_rest_that_frees_its_promise_and_is_swept(
    sealer: Sealer, folder: Path, tmp_path: Path, database: Database
) -> None:
    process = subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", UPLOADER, str(tmp_path)],
        cwd=PROJECT_ROOT,
        stdout=subprocess.PIPE,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"half\n"
        disk = Disk(folder, 0)
        assert disk.promised() > 25 * MB
        # Somebody writes it: however old it looks, it stays.
        (part,) = left_in(folder)
        os.utime(part, (1, 1))
        assert (await sweep(database, folder, deadline=deadline(), settle_s=0)).parts == 0
        process.send_signal(signal.SIGKILL)
    assert disk.promised() == 0
    assert (await sweep(database, folder, deadline=deadline(), settle_s=0)).parts == 1
    assert left_in(folder) == []
