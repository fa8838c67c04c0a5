"""The journal's bytes: frames that follow from each other by hash, so that a change is seen.

A file is a header of 24 bytes (a word and 16 random bytes), then frames: 4 bytes that mark one, the
body's length (4 bytes, big endian), SHA-256 over the hash before, the length and the body, then the
body. The hash before the first frame is the header's. There is no key in it: it shows damage and
careless changes; what proves the past is the chain, seconds later.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

MAX_BODY = 262_144
HEADER_BYTES = 24
_WORD = b"MEDRECJ1"
_MARK = b"\xa5MRF"
_FRAME_BYTES = 40


@dataclass(frozen=True, slots=True)
class Fault:
    """Bytes of a journal that are no sound frame.

    `torn`: the file ends within a frame, as when its writer was killed; nobody was told that this
    entry was kept. `damaged`: anything else, and so a change from outside or a failing disk.
    """

    kind: Literal["torn", "damaged"]
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Scan:
    """What was found: sound bodies, how many bytes they and the faults take, the last hash."""

    bodies: tuple[bytes, ...]
    length: int
    previous: bytes
    faults: tuple[Fault, ...]


def new_header() -> bytes:
    """The first bytes of a new file."""
    return _WORD + secrets.token_bytes(HEADER_BYTES - len(_WORD))


def seed(header: bytes) -> bytes | None:
    """The hash that the first frame follows; None if these bytes are no header."""
    if len(header) != HEADER_BYTES or not header.startswith(_WORD):
        return None
    return hashlib.sha256(header).digest()


def frames(bodies: Iterable[bytes], previous: bytes) -> tuple[bytes, bytes]:
    """The bytes of these bodies after `previous`, and the hash of the last one."""
    parts: list[bytes] = []
    for body in bodies:
        if not 0 < len(body) <= MAX_BODY:
            raise ValueError(f"a body of {len(body)} bytes does not fit into a frame")
        length = len(body).to_bytes(4, "big")
        previous = hashlib.sha256(previous + length + body).digest()
        parts += (_MARK, length, previous, body)
    return b"".join(parts), previous


def scan(data: bytes, previous: bytes, *, ends: bool) -> Scan:
    """Read frames that follow `previous`; `ends`: whether the file ends where `data` does.

    A damaged frame does not hide what follows it: reading goes on at the next mark, from the hash
    that the damaged frame claims. What does not follow from its neighbour is left out, as a fault.
    """
    bodies: list[bytes] = []
    faults: list[Fault] = []
    at = 0
    while at < len(data):
        body, claimed = _frame(data, at)
        if body is not None and claimed == _hash(previous, body):
            bodies.append(body)
            previous, at = claimed, at + _FRAME_BYTES + len(body)
            continue
        if not ends and len(data) - at < _FRAME_BYTES + MAX_BODY:
            break  # the rest of this frame is yet to be read
        after = _next_mark(data, at, body)
        if after is None:
            faults.append(Fault(_tail_kind(data, at, body), at, len(data) - at))
            at = len(data)
        else:
            faults.append(Fault("damaged", at, after - at))
            previous = claimed if claimed is not None else previous
            at = after
    return Scan(tuple(bodies), at, previous, tuple(faults))


def _frame(data: bytes, at: int) -> tuple[bytes | None, bytes | None]:
    """Body and claimed hash of the frame at `at`; the body is None if it is not all there."""
    if data[at : at + 4] != _MARK or len(data) - at < _FRAME_BYTES:
        return None, None
    length = int.from_bytes(data[at + 4 : at + 8], "big")
    claimed = data[at + 8 : at + _FRAME_BYTES]
    body = data[at + _FRAME_BYTES : at + _FRAME_BYTES + length]
    whole = 0 < length <= MAX_BODY and len(body) == length
    return (body if whole else None), claimed


def _hash(previous: bytes, body: bytes) -> bytes:
    return hashlib.sha256(previous + len(body).to_bytes(4, "big") + body).digest()


def _next_mark(data: bytes, at: int, body: bytes | None) -> int | None:
    """Where the next frame begins after a bad one; after its body, if its length can be trusted."""
    if body is not None and data.startswith(_MARK, at + _FRAME_BYTES + len(body)):
        return at + _FRAME_BYTES + len(body)
    found = data.find(_MARK, at + 1)
    return None if found < 0 else found


def _tail_kind(data: bytes, at: int, body: bytes | None) -> Literal["torn", "damaged"]:
    rest = data[at:]
    if not rest.strip(b"\x00"):  # a file that was made longer before its blocks were written
        return "torn"
    if body is not None or not _MARK.startswith(rest[:4]):
        return "damaged"
    too_long = len(rest) >= 8 and int.from_bytes(rest[4:8], "big") > MAX_BODY
    return "damaged" if too_long else "torn"
