"""Sealed streams: chunks of AES-256-GCM, so that a file is sealed and opened without being held.

The STREAM construction (Hoang, Reyhanitabar, Rogaway, Vizár, CRYPTO 2015): a chunk's nonce is a
random prefix of 56 bits, the chunk's number of 32 and one byte that marks the last one. Hence no
chunk can be changed, moved, repeated or left out, and a stream cannot end early, without the reader
noticing. A key seals one stream, so no nonce repeats.

Layout: 5 bytes format, 7 bytes prefix, then chunks of `CHUNK` bytes and a tag each; the last one is
shorter or whole, and empty only in an empty stream.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from deployments.data.seal.errors import SealBroken

CHUNK = 256 * 1024
TAG_BYTES = 16
FRAME = CHUNK + TAG_BYTES
_FORMAT = b"MRS\x01\x12"  # the last byte: log2 of the chunk
_PREFIX_BYTES = 7
HEADER = len(_FORMAT) + _PREFIX_BYTES
_DOMAIN = b"medrec/stream/1\0"
_MAX_CHUNKS = 2**32


def sealed_size(plain_size: int) -> int:
    """Bytes that a stream of `plain_size` bytes takes when it is sealed."""
    return HEADER + plain_size + TAG_BYTES * chunks_of(plain_size)


def chunks_of(plain_size: int) -> int:
    """The number of its chunks; an empty stream has one."""
    return max(1, -(-plain_size // CHUNK))


class StreamSealer:
    """Seals one stream, fed in pieces of any size. `header` goes in front of what it yields."""

    def __init__(self, key: bytes, context: bytes) -> None:
        prefix = os.urandom(_PREFIX_BYTES)
        self.header = _FORMAT + prefix
        self._cipher = AESGCM(key)
        self._aad = _DOMAIN + self.header + context
        self._prefix = prefix
        self._number = 0
        self._pending = bytearray()

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """The sealed chunks that `piece` completes. A whole chunk waits until more follows."""
        view = memoryview(piece)
        while len(view):
            if len(self._pending) == CHUNK:
                yield self._sealed(last=False)
            taken = CHUNK - len(self._pending)
            self._pending += view[:taken]
            view = view[taken:]

    def finish(self) -> bytes:
        """The last sealed chunk."""
        return self._sealed(last=True)

    def _sealed(self, *, last: bool) -> bytes:
        nonce = _nonce(self._prefix, self._number, last)
        data = self._cipher.encrypt(nonce, bytes(self._pending), self._aad)
        self._number += 1
        self._pending.clear()
        return data


class StreamOpener:
    """Opens the chunks of one stream in any order, given how many there are."""

    def __init__(self, key: bytes, context: bytes, header: bytes, chunks: int) -> None:
        """Raises `SealBroken` if the header is not of this format."""
        if len(header) != HEADER or not header.startswith(_FORMAT):
            raise SealBroken("A sealed stream has a header of another format.")
        self._cipher = AESGCM(key)
        self._aad = _DOMAIN + header + context
        self._prefix = header[len(_FORMAT) :]
        self._chunks = chunks

    def open(self, number: int, data: bytes) -> bytes:
        """The plain bytes of a chunk; raises `SealBroken` unless it is that chunk of that stream."""
        nonce = _nonce(self._prefix, number, number == self._chunks - 1)
        try:
            return self._cipher.decrypt(nonce, data, self._aad)
        except (InvalidTag, ValueError):
            raise SealBroken("A chunk of a sealed stream is damaged or out of place.") from None


def offset_of(number: int) -> int:
    """Where a chunk begins in the sealed stream."""
    return HEADER + number * FRAME


def _nonce(prefix: bytes, number: int, last: bool) -> bytes:
    if not 0 <= number < _MAX_CHUNKS:
        raise ValueError("a stream has at most 2**32 chunks")
    return prefix + number.to_bytes(4, "big") + (b"\1" if last else b"\0")
