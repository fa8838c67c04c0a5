"""Where objects lie: a folder, or a bucket of Google's or of S3's kind. Written once, never changed.

In a folder an object is on the disk before it has its name; a bucket's service sees to that itself.
"""

from __future__ import annotations

import itertools
import os
import re
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import obstore
from obstore import exceptions
from obstore.store import LocalStore, from_url

from deployments.data import postgres_account
from deployments.data.backup.errors import AlreadyThere, BackupError, NotInBackup
from deployments.data.backup.settings import BackupSettings
from deployments.data.durable import synchronise, synchronise_folder

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_CONNECT_S, _REQUEST_S, _RETRY_S = 5, 60, 15
_RETRIES = 3
_LISTED = 1000
_NO_BUCKET = re.compile("NoSuchBucket|bucket does not exist", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Entry:
    """An object in a list."""

    name: str
    size: int
    modified: datetime


class Store:
    """Objects below `<to>/<prefix>`."""

    def __init__(self, settings: BackupSettings) -> None:
        """Raises `BackupError` where there is no such place; a folder is made by `prepare` alone."""
        self.place = f"{settings.to.rstrip('/')}/{settings.prefix}"
        self._folder = None if settings.is_bucket else Path(self.place)
        if self._folder is not None and not self._folder.is_dir():
            raise BackupError(
                f"{self._folder} is not there: is its disk mounted? (medrec backup init makes it)"
            )
        with self._telling(self.place):
            self._objects = self._opened(settings)

    def _opened(self, settings: BackupSettings) -> ObjectStore:
        if self._folder is not None:
            return LocalStore(self._folder)
        config: Any = {}
        if settings.endpoint:
            name = "base_url" if settings.to.startswith("gs:") else "endpoint"
            config = {name: settings.endpoint}
        return from_url(
            self.place,
            config=config,
            client_options={
                "connect_timeout": timedelta(seconds=_CONNECT_S),
                "timeout": timedelta(seconds=_REQUEST_S),
                # TLS unless the operator himself named an endpoint without.
                "allow_http": settings.endpoint.startswith("http://"),
            },
            retry_config={
                "max_retries": _RETRIES,
                "retry_timeout": timedelta(seconds=_RETRY_S),
            },
        )

    def create(self, name: str, data: bytes) -> None:
        """Write an object, durably and whole or not at all. Raises `AlreadyThere`."""
        with self._telling(name):
            if self._folder is None:
                obstore.put(self._objects, name, data, mode="create", use_multipart=False)
            else:
                _create_file(self._folder, name, data)

    def read(self, name: str) -> bytes:
        """An object's bytes. Raises `NotInBackup`."""
        with self._telling(name):
            return obstore.get(self._objects, name).bytes().to_bytes()

    def read_start(self, name: str, length: int) -> bytes:
        """Its first bytes. Raises `NotInBackup`."""
        with self._telling(name):
            return obstore.get_range(self._objects, name, start=0, length=length).to_bytes()

    def entries(self, below: str, *, after: str | None = None) -> Iterator[Entry]:
        """The objects in a folder of the store and its folders, by name; those behind `after`."""
        with self._telling(below):
            stream = obstore.list(self._objects, below, offset=after, chunk_size=_LISTED)
            for found in _sorted(itertools.chain.from_iterable(stream), self._folder is not None):
                yield Entry(found["path"], found["size"], found["last_modified"])

    def folders(self, below: str) -> list[str]:
        """Names of the folders in a folder of the store."""
        with self._telling(below):
            found = obstore.list_with_delimiter(self._objects, below)
        return sorted(path.rstrip("/").rpartition("/")[2] for path in found["common_prefixes"])

    def delete(self, names: Sequence[str]) -> int:
        """Remove objects; returns how many the place refused to remove (a retention policy's)."""
        refused = 0
        for name in names:
            try:
                with self._telling(name):
                    obstore.delete(self._objects, name)
            except NotInBackup:
                continue
            except BackupError:
                refused += 1
        return refused

    @contextmanager
    def _telling(self, name: str) -> Iterator[None]:
        try:
            yield
        except (exceptions.AlreadyExistsError, FileExistsError):
            raise AlreadyThere(f"{name} is in the backup already") from None
        except (exceptions.NotFoundError, FileNotFoundError) as error:
            # Must not look like an object that is not there: recovery would end at once.
            if _NO_BUCKET.search(str(error)):
                raise BackupError(f"{self.place}: there is no such bucket") from None
            raise NotInBackup(f"{name} is not in the backup") from None
        except OSError as error:
            raise BackupError(f"{self.place} cannot be used: {error.strerror or error}") from None
        except (exceptions.BaseError, ValueError) as error:
            if _NO_BUCKET.search(str(error)):
                raise BackupError(f"{self.place}: there is no such bucket") from None
            reason = " ".join(str(error).split())[:200]
            raise BackupError(f"{self.place} cannot be used: {reason}") from None


def prepare(settings: BackupSettings) -> None:
    """Make the folder that backups go to, for the archiver's account too. A bucket must exist."""
    if not settings.is_bucket:
        base = Path(settings.to) / settings.prefix
        _make_folders(base.parent, base)
        _make_folders(base, base / settings.site)


def _sorted(found: Iterator[Any], needed: bool) -> Iterator[Any]:
    """Buckets list by name already; a file system does not."""
    return iter(sorted(found, key=lambda each: each["path"])) if needed else found


def _create_file(root: Path, name: str, data: bytes) -> None:
    target = root / name
    _make_folders(root, target.parent)
    # A name that obstore does not list.
    draft = target.with_name(f"{target.name}#{uuid.uuid4().int}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            synchronise(stream.fileno())
        postgres_account.give(draft)
        os.link(draft, target)
    finally:
        draft.unlink(missing_ok=True)
    synchronise_folder(target.parent)


def _make_folders(root: Path, folder: Path) -> None:
    """Folders from below `root` to `folder`, the archiver's own where we are root."""
    if folder.is_dir():
        return
    if folder != root:
        _make_folders(root, folder.parent)
    try:
        folder.mkdir(parents=folder == root, mode=0o700)
    except FileExistsError:
        return
    postgres_account.hand_over(folder)
    synchronise_folder(folder.parent)
