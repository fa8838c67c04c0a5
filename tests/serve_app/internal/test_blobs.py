"""Proves that a blob is on both cells before it is acknowledged, and what happens when one is away."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import psycopg
import pytest

from configs.args import OtherHosts, RecordsArgs
from configs.reader import PROJECT_ROOT
from deployments.cell import condition
from deployments.data.blobs import Blobs, erase, files, peer, sweep
from deployments.data.blobs.disk import Disk
from deployments.data.errors import DiskFull
from deployments.data.seal import framing
from deployments.data.seal.sealer import Sealer
from tests.deployments.data.records.conftest import Owner
from tests.serve_app.internal.cells import Pair, until

MB = 2**20
DATA = os.urandom(2 * framing.CHUNK + 99)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer, "ASK_EVERY_S", 0.1)


async def test_an_upload_is_on_both_machines_when_it_is_acknowledged(pair: Pair) -> None:
    id = await pair.a.upload(DATA)
    name = pair.blob()
    assert pair.a.names() == pair.b.names() == {name}
    for cell in (pair.a, pair.b):
        stored = files.path_of(cell.folder, name).read_bytes()
        assert hashlib.sha256(stored).hexdigest() == name
        assert files.path_of(cell.folder, name).stat().st_mode & 0o077 == 0
        assert cell.others() == []
    assert pair.single_on() == [None]
    for cell in (pair.a, pair.b):
        assert (await cell.download(id)).content == DATA


async def test_with_the_other_machine_gone_it_is_single_until_that_one_has_fetched_it(
    pair: Pair,
) -> None:
    await pair.b.end()
    id = await pair.a.upload(DATA)
    assert pair.single_on() == ["mac-a"]
    assert pair.b.names() == set()
    figures = await pair.a.keeper.lap()
    assert (figures["single"], figures["missing"]) == (1, 0)

    await pair.b.begin()
    figures = await pair.b.keeper.lap()
    assert (figures["missing"], figures["single"], figures["fetched"]) == (0, 0, 1)
    assert pair.b.names() == pair.a.names()
    assert pair.single_on() == [None]
    told = condition.read(pair.b.home)["blobs"]
    assert (told["missing"], told["single"], told["corrupt"]) == (0, 0, 0)
    await pair.a.end()
    assert (await pair.b.download(id)).content == DATA


async def test_nobody_waits_again_for_a_machine_that_is_known_to_be_away(pair: Pair) -> None:
    other = pair.a.blobs._peer
    assert other is not None
    other._wait_s = 1.0
    async with silent(pair):
        began = time.monotonic()
        await pair.a.upload(DATA)
        assert 1.0 <= time.monotonic() - began < 4
        began = time.monotonic()
        for _ in range(5):
            await pair.a.upload(b"short")
        # Each would have waited a second.
        assert time.monotonic() - began < 4
        assert pair.single_on() == ["mac-a"] * 6
    await pair.b.begin()
    other._wait_s = 10.0
    await until("the other cell is known to be back", lambda: not other.is_away)
    await pair.a.upload(b"on both again")
    assert pair.single_on()[-1] is None


@asynccontextmanager
async def silent(pair: Pair) -> AsyncIterator[None]:
    """The other cell is frozen: its system accepts connections, and nobody ever answers."""
    await pair.b.end()
    with socket.create_server(("127.0.0.1", pair.b.port)):
        yield


async def test_a_machine_without_room_makes_no_upload_fail(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pair.b.blobs.copies, "_disk", FullDisk(pair.b.folder, 0))
    ids = [await pair.a.upload(os.urandom(4 * MB)) for _ in range(2)]
    assert pair.single_on() == ["mac-a"] * 2
    # It is not taken for away: what it has can be fetched, and what it lacks is read from here.
    assert (await pair.a.download(ids[0])).status_code == 200
    other = pair.a.blobs._peer
    assert other is not None
    assert not other.is_away


class FullDisk(Disk):
    """A file system without room."""

    def check(self, further: int = 0) -> None:
        raise DiskFull("There is too little room left for uploads; tell the operator.")


async def test_a_copy_whose_acknowledgement_was_lost_is_no_longer_single_once_it_was_checked(
    pair: Pair, owner: Owner
) -> None:
    await pair.a.upload(DATA)
    owner.rows("UPDATE records.blob SET single_on = 'mac-a'")
    # Its own mark is for the other one to clear.
    assert (await pair.a.keeper.lap())["single"] == 1
    figures = await pair.b.keeper.lap()
    assert (figures["single"], figures["fetched"]) == (0, 0)
    assert pair.single_on() == [None]


async def test_a_reader_on_the_other_machine_never_sees_it_missing(pair: Pair) -> None:
    id = await pair.a.upload(DATA)
    files.path_of(pair.b.folder, pair.blob()).unlink()
    readers = [pair.b.download(id) for _ in range(5)]
    assert [answer.content for answer in await asyncio.gather(*readers)] == [DATA] * 5
    assert pair.b.names() == pair.a.names()
    assert pair.b.blobs.fetched == 1


async def test_a_reader_is_told_what_is_missing_everywhere_and_what_may_be_on_the_other_machine(
    pair: Pair,
) -> None:
    id = await pair.a.upload(DATA)
    for cell in (pair.a, pair.b):
        files.path_of(cell.folder, pair.blob()).unlink()
    answer = await pair.b.download(id)
    assert answer.status_code == 500
    assert answer.json()["issue"][0]["details"]["coding"][0]["code"] == "blob_lost"
    await pair.a.end()
    answer = await pair.b.download(id)
    assert answer.status_code == 503
    assert answer.json()["issue"][0]["details"]["coding"][0]["code"] == "blob_away"
    assert "retry-after" in answer.headers


def damage(path: Path, how: str) -> None:
    data = path.read_bytes()
    middle = framing.offset_of(1) + 5
    flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
    path.write_bytes({"flipped": flipped, "cut": data[:-3], "longer": data + b"x"}[how])


@pytest.mark.parametrize("how", ["flipped", "cut", "longer"])
async def test_a_damaged_file_is_mended_under_its_reader(pair: Pair, how: str) -> None:
    id = await pair.a.upload(DATA)
    name = pair.blob()
    damage(files.path_of(pair.b.folder, name), how)
    assert (await pair.b.download(id)).content == DATA
    assert await pair.b.blobs.verify(name)
    # What was there is kept for who wants to know why.
    assert pair.b.others() == [f"corrupt/{name}"]
    assert pair.a.others() == []


@pytest.mark.parametrize("how", ["flipped", "cut"])
async def test_a_damaged_file_is_found_told_and_fetched_anew_without_a_reader(
    pair: Pair, how: str
) -> None:
    await pair.a.upload(DATA)
    name = pair.blob()
    damage(files.path_of(pair.b.folder, name), how)
    await pair.a.end()
    figures = await pair.b.keeper.lap()
    assert (figures["corrupt"], figures["missing"]) == (1, 0)
    assert condition.read(pair.b.home)["blobs"]["corrupt"] == 1
    # Nobody has a better one yet: what is left of it stays readable.
    assert pair.b.names() == {name}
    # Its peer is known to be away now, and is asked in the background alone.
    await pair.a.begin()
    await until_lap(pair, corrupt=0)
    assert await pair.b.blobs.verify(name)
    assert pair.b.others() == [f"corrupt/{name}"]


async def until_lap(pair: Pair, **wanted: int) -> None:
    """Laps of the second cell until its figures are these."""
    for _ in range(50):
        figures = await pair.b.keeper.lap()
        if wanted.items() <= figures.items():
            return
        await asyncio.sleep(0.1)
    raise AssertionError(figures)


async def test_a_damaged_file_is_never_handed_on(pair: Pair) -> None:
    id = await pair.a.upload(DATA)
    name = pair.blob()
    for cell in (pair.a, pair.b):
        damage(files.path_of(cell.folder, name), "flipped")
    async with pair.a.host("mac-b") as host:
        answer = await host.get(f"/internal/blobs/{name}")
    assert (answer.status_code, answer.json()["code"]) == (500, "blob_corrupt")
    # Both are damaged: the first chunk is verified and right, and nothing after it is told.
    with pytest.raises(httpx.RemoteProtocolError):
        await pair.b.download(id)
    figures = await pair.b.keeper.lap()
    assert (figures["corrupt"], figures["fetched"]) == (1, 0)


async def test_a_new_machine_fetches_everything_and_forgets_what_was_erased_meanwhile(
    pair: Pair, dsns: tuple[str, str]
) -> None:
    ids = [await pair.a.upload(b"document %d" % number) for number in range(12)]
    names = pair.a.names()
    await pair.b.end()
    for name in names:
        files.remove(pair.b.folder, name)
    await pair.b.begin()
    figures = await pair.b.keeper.lap()
    assert (figures["fetched"], figures["missing"], figures["walks"]) == (12, 0, 1)
    assert pair.b.names() == names
    assert (await pair.b.download(ids[3])).content == b"document 3"

    gone = sorted(names)[0]
    async with await psycopg.AsyncConnection.connect(dsns[1], autocommit=True) as owner:
        assert await erase(owner, pair.a.folder, gone)
    assert gone in pair.b.names()
    await pair.b.keeper.lap()
    assert pair.b.names() == pair.a.names() == names - {gone}


async def test_what_was_erased_while_a_machine_was_away_goes_at_its_first_lap(
    pair: Pair, owner: Owner, dsns: tuple[str, str]
) -> None:
    await pair.a.upload(DATA)
    name = pair.blob()
    async with await psycopg.AsyncConnection.connect(dsns[1], autocommit=True) as connection:
        assert await erase(connection, pair.a.folder, name)
    owner.rows(
        "UPDATE records.blob SET erased_at = now() - interval '9 days', created_at = '2020-01-01'"
    )
    await pair.b.keeper.lap()
    assert pair.b.names() == set()


async def test_what_nobody_has_is_told_and_forgotten_with_its_row(pair: Pair, owner: Owner) -> None:
    await pair.a.upload(DATA)
    for cell in (pair.a, pair.b):
        files.path_of(cell.folder, pair.blob()).unlink()
    figures = await pair.b.keeper.lap()
    assert (figures["missing"], figures["lost"]) == (1, 1)
    owner.rows("DELETE FROM records.blob")
    figures = await pair.b.keeper.lap()
    assert (figures["missing"], figures["lost"]) == (0, 0)


async def test_what_a_backup_gave_back_to_one_machine_is_fetched_by_the_other(pair: Pair) -> None:
    await pair.a.upload(DATA)
    file, data = files.path_of(pair.a.folder, pair.blob()), b""
    for cell in (pair.a, pair.b):
        data = files.path_of(cell.folder, pair.blob()).read_bytes()
        files.path_of(cell.folder, pair.blob()).unlink()
    assert (await pair.b.keeper.lap())["lost"] == 1
    file.write_bytes(data)
    figures = await pair.b.keeper.lap()
    assert (figures["missing"], figures["lost"]) == (0, 0)
    assert pair.b.names() == pair.a.names()


async def test_a_host_stores_and_reads_under_the_right_name_only(pair: Pair) -> None:
    data = os.urandom(70_000)
    name = hashlib.sha256(data).hexdigest()
    path = f"/internal/blobs/{name}"
    async with pair.a.host("mac-b") as host:
        assert (await host.head(path)).status_code == 404
        assert (await host.get(path)).status_code == 404
        answer = await host.put(path, content=data[:-1] + b"x")
        assert (answer.status_code, answer.json()["code"]) == (422, "wrong_content")
        assert (await host.put(f"/internal/blobs/{name[:-1]}", content=data)).status_code == 404
        assert (await host.put(f"/internal/blobs/..%2F{name}", content=data)).status_code == 404
        assert pair.a.names() == set()
        assert [(await host.put(path, content=data)).status_code for _ in range(2)] == [201, 200]
        head = await host.head(path)
        assert (head.status_code, head.headers["content-length"]) == (200, "70000")
        assert (await host.get(path)).content == data
    assert pair.a.others() == []


async def test_a_copy_is_bounded_and_announced(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    path = f"/internal/blobs/{'ab' * 32}"

    async def pieces() -> AsyncIterator[bytes]:
        yield b"x"

    async with pair.a.host("mac-b") as host:
        answer = await host.put(path, content=pieces())
        assert (answer.status_code, answer.json()["param"]) == (400, "Content-Length")
        assert await status_of(pair, f"PUT {path}", f"content-length: {300 * MB}") == 413
        monkeypatch.setattr(pair.a.blobs.copies, "_disk", FullDisk(pair.a.folder, 0))
        answer = await host.put(path, content=bytes(10))
        assert (answer.status_code, answer.json()["code"]) == (507, "disk_full")
    assert pair.a.others() == []


async def status_of(pair: Pair, request: str, header: str) -> int:
    """What the first cell answers to a request of which only the head was sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", pair.a.port)
    writer.write(
        f"{request} HTTP/1.1\r\nhost: a\r\nx-medrec-host: mac-b\r\n{header}\r\n\r\n".encode()
    )
    line = await asyncio.wait_for(reader.readline(), 5)
    writer.close()
    return int(line.split()[1])


async def test_strangers_find_nothing(pair: Pair) -> None:
    await pair.a.upload(DATA)
    path = f"/internal/blobs/{pair.blob()}"
    async with pair.a.host("mac-c") as host:
        answers = [
            await host.get(path),
            await host.head(path),
            await host.put(path, content=b"x"),
            await host.get(path, headers={"authorization": "Bearer physician"}),
        ]
    assert [answer.status_code for answer in answers] == [404] * 4
    # A path of this surface without the method is not told apart either.
    async with pair.a.client() as client:
        assert (await client.get(f"{pair.a.url}{path}")).status_code == 404


async def test_a_copy_that_breaks_off_leaves_nothing(pair: Pair) -> None:
    _reader, writer = await asyncio.open_connection("127.0.0.1", pair.b.port)
    head = f"PUT /internal/blobs/{'ab' * 32} HTTP/1.1\r\nhost: b\r\nx-medrec-host: mac-a\r\n"
    writer.write(f"{head}content-length: {4 * MB}\r\n\r\n".encode() + bytes(MB))
    await writer.drain()
    await until("a part is written", lambda: pair.b.others())
    writer.close()
    await until("nothing is left", lambda: not pair.b.others())
    assert pair.b.names() == set()


UPLOADER = """
import asyncio, sys
from pathlib import Path
from configs.args import RecordsArgs
from deployments.data.blobs import Blobs
from deployments.data.seal.sealer import Sealer

async def pieces():
    yield bytes(2**20)

async def upload():
    secrets, folder, args = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    blobs = Blobs(Sealer.load(secrets), folder, RecordsArgs.model_validate_json(args))
    handed_over = blobs._handed_over
    async def before(name, size):
        print("stored", flush=True)
        sys.stdin.readline()
        return await handed_over(name, size)
    blobs._handed_over = before
    await blobs.put(pieces(), announced=2**20)
    print("copied", flush=True)
    sys.stdin.readline()

asyncio.run(upload())
"""


@pytest.mark.parametrize("moment", ["stored", "copied"])
async def test_killed_between_the_copies_or_before_its_row_it_leaves_orphans_that_are_swept(
    pair: Pair, sealer: Sealer, tmp_path: Path, moment: str
) -> None:
    others = OtherHosts(host="mac-a", peer=pair.b.url, copy_wait_s=20.0)
    args = RecordsArgs(disk_reserve_gb=0.0, others=others).model_dump_json()
    process = subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", UPLOADER, str(tmp_path / "secrets"), str(pair.a.folder), args],
        cwd=PROJECT_ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert await asyncio.to_thread(process.stdout.readline) == b"stored\n"
        if moment == "copied":
            process.stdin.write(b"\n")
            process.stdin.flush()
            assert await asyncio.to_thread(process.stdout.readline) == b"copied\n"
        process.send_signal(signal.SIGKILL)
    assert len(pair.a.names()) == 1
    assert pair.b.names() == (pair.a.names() if moment == "copied" else set())
    for cell in (pair.a, pair.b):
        figures = await cell.keeper.lap()
        assert (figures["missing"], figures["single"]) == (0, 0)
        for name in cell.names():
            os.utime(files.path_of(cell.folder, name), (1, 1))
        await sweep.sweep(pair.database, cell.folder, deadline=time.monotonic() + 10, settle_s=0)
        assert cell.names() == set()
        assert cell.others() == []


async def test_200_mb_reach_both_machines_without_being_held(pair: Pair) -> None:
    piece = os.urandom(64 * 1024)

    async def source() -> AsyncIterator[bytes]:
        for _ in range(200 * MB // len(piece)):
            yield bytes(piece)

    pair.a.blobs._peer = peer.Peer(
        pair.b.url, OtherHosts(host="mac-a", peer=pair.b.url, copy_wait_s=30.0)
    )
    tracemalloc.start()
    try:
        draft = await pair.a.blobs.put(source(), announced=200 * MB)
        put_peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert not draft.is_single
    assert pair.a.names() == pair.b.names() == {draft.name}
    # Both ends are in this process.
    assert put_peak < 8 * MB


def test_a_cell_of_its_own_marks_nothing(sealer: Sealer, tmp_path: Path) -> None:
    blobs = Blobs(sealer, tmp_path / "alone", RecordsArgs(disk_reserve_gb=0.0))
    (tmp_path / "alone").mkdir()

    async def once() -> AsyncIterator[bytes]:
        yield b"content"

    async def upload() -> bool:
        draft = await blobs.put(once(), announced=None)
        await blobs.close()
        return draft.is_single

    assert not asyncio.run(upload())
