"""The other cell's store, over HTTP: its manifests and files, each checked before it is believed."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import BinaryIO, Self

import httpx

from deployments.site.models.errors import PeerError, StoreError
from deployments.site.models.manifest import MAX_BYTES, Entry, Manifest, parse

PATH = "/internal/models"
TIMEOUT = httpx.Timeout(20.0, connect=5.0)
# A long file outlasts the API's limit of a request, or a fail-over: it goes on where it broke off.
ATTEMPTS = 5
PAUSE_S = 1.0
# One file has a minute, and a second more for each megabyte.
GRACE_S = 60.0
LEAST_BYTES_PER_S = 2**20


@dataclass
class _Progress:
    """How far one file has come; the hash is of what was written."""

    deadline_s: float
    total: hashlib._Hash = field(default_factory=hashlib.sha256)
    size: int = 0


class Peer:
    """One other cell. Close it, or use it in a `with`."""

    def __init__(
        self, base_url: str, host: str | None = None, transport: httpx.BaseTransport | None = None
    ) -> None:
        """`base_url` and `host` are `records.others.peer` and `host`. Connects to nothing."""
        self.base_url = base_url
        self._client = httpx.Client(
            base_url=base_url,
            # The other cell's HAProxy replaces it by the name in our certificate.
            headers={"x-medrec-host": host} if host else {},
            timeout=TIMEOUT,
            transport=transport,
            trust_env=False,  # a proxy of the network has no business between two cells
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give up the connections."""
        self._client.close()

    def manifest(self, name: str, version: str) -> Manifest:
        """The manifest of a version, or of the one that is `current` there. Raises `PeerError`."""
        what = f"the manifest of {name} at {self.base_url}"
        data = bytearray()
        try:
            with self._client.stream("GET", f"{PATH}/{name}/{version}/manifest") as answer:
                if answer.status_code != httpx.codes.OK:
                    raise PeerError(f"{what}: {_told(answer.status_code)}")
                for piece in answer.iter_bytes():
                    data += piece
                    if len(data) > MAX_BYTES:
                        raise PeerError(f"{what} is larger than a manifest can be")
        except httpx.HTTPError as error:
            raise PeerError(f"{what}: {_words(error)}") from error
        try:
            found = parse(bytes(data), what)
        except StoreError as error:
            raise PeerError(str(error)) from error
        if version not in ("current", found.version):
            raise PeerError(f"{what} is of another version")
        return found

    def fetch(self, name: str, version: str, entry: Entry, into: BinaryIO) -> None:
        """Write one file's content to `into`; whole and right, or `PeerError`."""
        progress = _Progress(time.monotonic() + GRACE_S + entry.size / LEAST_BYTES_PER_S)
        failures, problem = 0, ""
        while progress.size < entry.size or failures == 0:
            before = progress.size
            try:
                self._go_on(name, version, entry, into, progress)
                break
            except httpx.HTTPError as error:
                problem = _words(error)
            failures = 1 if progress.size > before else failures + 1
            if failures >= ATTEMPTS:
                raise PeerError(f"{entry.path} of {name} at {self.base_url}: {problem}")
            time.sleep(PAUSE_S)
        if progress.size != entry.size or progress.total.hexdigest() != entry.sha256:
            raise PeerError(f"{entry.path} of {name} is damaged at {self.base_url} as well")

    def _go_on(
        self, name: str, version: str, entry: Entry, into: BinaryIO, progress: _Progress
    ) -> None:
        headers = {"range": f"bytes={progress.size}-"} if progress.size else {}
        wanted = httpx.codes.PARTIAL_CONTENT if progress.size else httpx.codes.OK
        path = f"{PATH}/{name}/{version}/files/{entry.path}"
        with self._client.stream("GET", path, headers=headers) as answer:
            if answer.status_code in (429, 502, 503, 504):
                raise httpx.ReadError(_told(answer.status_code))
            if answer.status_code != wanted:
                what = f"{entry.path} of {name} at {self.base_url}"
                raise PeerError(f"{what}: {_told(answer.status_code)}")
            for piece in answer.iter_raw():
                progress.total.update(piece)
                progress.size += len(piece)
                if progress.size > entry.size:
                    raise PeerError(f"{entry.path} of {name} is longer at {self.base_url}")
                if time.monotonic() > progress.deadline_s:
                    raise PeerError(f"{entry.path} of {name} comes too slowly from {self.base_url}")
                into.write(piece)


def _told(status: int) -> str:
    if status == httpx.codes.NOT_FOUND:
        return "it is not there, or this cell is not known there (404)"
    return f"answered {status}"


def _words(error: httpx.HTTPError) -> str:
    return str(error) or type(error).__name__
