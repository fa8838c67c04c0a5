"""Sealed objects and streams by name. Names begin with the site, and are bound into what is sealed.

`<site>/<PostgreSQL's system id>/{base,wal}/…`, `<site>/{blobs,keys,secrets}/…`. A stream is a folder
of parts, `000000` and on; in bounded memory, with a few parts on their way at a time.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from deployments.data.backup import keys, objects
from deployments.data.backup.errors import AlreadyThere, BackupError, Damaged, NotInBackup
from deployments.data.backup.objects import Opened
from deployments.data.backup.settings import BackupSettings
from deployments.data.backup.store import Entry, Store

# Compressing, hashing and AES let other threads run, and a bucket's answer takes its time.
_AT_A_TIME = 4


@dataclass(frozen=True, slots=True)
class Stream:
    """What was written: plain and stored bytes, parts, and the SHA-256 of the plain bytes."""

    name: str
    size: int
    stored: int
    parts: int
    sha256: str


class Vault:
    """A store with the key that seals for it, and the key that opens, where that is at hand."""

    def __init__(
        self, settings: BackupSettings, writer: keys.WriterKey, key: keys.BackupKey | None = None
    ) -> None:
        self.site = settings.site
        self.store = Store(settings)
        self._writer = writer
        self._key = key

    @classmethod
    def for_writing(cls, settings: BackupSettings) -> Vault:
        """The archiver's: it cannot open anything. Raises `BackupError`."""
        return cls(settings, keys.read_writer(Path(settings.secrets)))

    @classmethod
    def whole(cls, settings: BackupSettings) -> Vault:
        """With the key that opens. Raises `BackupError`."""
        key = keys.read(Path(settings.secrets))
        return cls(settings, key.writer, key)

    def create(self, name: str, plain: bytes, *, last: bool = True, compress: bool = True) -> int:
        """Write an object; again with the same content is success. Returns its stored bytes.

        Raises `BackupError` if there is one of that name with another content.
        """
        full = f"{self.site}/{name}"
        data = objects.seal(self._writer, full, plain, last=last, compress=compress)
        try:
            self.store.create(full, data)
        except AlreadyThere:
            start = self.store.read_start(full, objects.HEADER)
            if not objects.has_content(self._writer, full, plain, start):
                raise BackupError(f"{full} is in the backup already with another content") from None
        return len(data)

    def read(self, name: str) -> bytes:
        """The content of an object. Raises `NotInBackup` and `Damaged`."""
        return self._opened(name).plain

    def has(self, name: str) -> bool:
        """Whether there is an object of that name."""
        try:
            self.store.read_start(f"{self.site}/{name}", 1)
        except NotInBackup:
            return False
        return True

    def entries(self, below: str, *, after: str | None = None) -> Iterator[Entry]:
        """Objects below a folder by name, the site left off."""
        cut = len(self.site) + 1
        behind = None if after is None else f"{self.site}/{after}"
        for entry in self.store.entries(f"{self.site}/{below}", after=behind):
            yield Entry(entry.name[cut:], entry.size, entry.modified)

    def folders(self) -> list[str]:
        """Names of the site's own folders."""
        return self.store.folders(self.site)

    def delete(self, names: Iterable[str]) -> int:
        """Remove objects; returns how many the place refused to remove."""
        return self.store.delete([f"{self.site}/{name}" for name in names])

    def write_stream(self, name: str, pieces: Iterable[bytes], *, compress: bool = True) -> Stream:
        """Write parts as `pieces` come, whatever their sizes."""
        digest, size, stored, number = hashlib.sha256(), 0, 0, 0
        waiting: deque[Future[int]] = deque()
        with ThreadPoolExecutor(_AT_A_TIME) as pool:
            for part, last in _parts(pieces):
                digest.update(part)
                size += len(part)
                if len(waiting) == _AT_A_TIME:
                    stored += waiting.popleft().result()
                path = part_name(name, number)
                waiting.append(pool.submit(self.create, path, part, last=last, compress=compress))
                number += 1
            stored += sum(future.result() for future in waiting)
        return Stream(name, size, stored, number, digest.hexdigest())

    def read_stream(self, name: str) -> Iterator[bytes]:
        """The parts in order. Raises `NotInBackup` and `Damaged`, also at the end of it."""
        names = self._parts_of(name)
        if names is None:
            raise NotInBackup(f"a part of {name} is missing in the backup")
        if not names:
            raise NotInBackup(f"{name} is not in the backup")
        rest, waiting = iter(names), deque[Future[Opened]]()
        with ThreadPoolExecutor(_AT_A_TIME) as pool:
            is_last = False
            for path in rest:
                waiting.append(pool.submit(self._opened, path))
                if len(waiting) == _AT_A_TIME:
                    opened = waiting.popleft().result()
                    is_last = opened.is_last
                    yield opened.plain
            while waiting:
                opened = waiting.popleft().result()
                is_last = opened.is_last
                yield opened.plain
        if not is_last:
            raise Damaged(f"the end of {name} is missing in the backup")

    def is_whole(self, name: str) -> bool:
        """Whether all of a stream's parts are there: they are written several at a time."""
        names = self._parts_of(name)
        if not names:
            return False
        return objects.says_last(self.store.read_start(f"{self.site}/{names[-1]}", objects.HEADER))

    def _parts_of(self, name: str) -> list[str] | None:
        """The names of a stream's parts; None where one before the last is missing."""
        names = [entry.name for entry in self.entries(name)]
        wanted = [part_name(name, number) for number in range(len(names))]
        return names if names == wanted else None

    def _opened(self, name: str) -> Opened:
        if self._key is None:
            raise BackupError("this needs the key that opens backups")
        full = f"{self.site}/{name}"
        return objects.open_sealed(self._key, full, self.store.read(full))


def part_name(name: str, number: int) -> str:
    """Name of a stream's part."""
    return f"{name}/{number:06d}"


def parts_of(size: int) -> int:
    """How many parts a stream of that many bytes has."""
    return max(1, -(-size // objects.PART))


def _parts(pieces: Iterable[bytes]) -> Iterator[tuple[bytes, bool]]:
    """The same bytes in parts, and whether a part is the last; an empty stream has one."""
    pending = bytearray()
    for piece in pieces:
        pending += piece
        while len(pending) > objects.PART:
            yield bytes(pending[: objects.PART]), False
            del pending[: objects.PART]
    yield bytes(pending), True
