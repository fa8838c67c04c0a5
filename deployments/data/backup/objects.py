"""One object of a backup: up to a part's bytes, compressed, sealed, bound to its name.

Layout: magic (4), flags (1), key id (8), tag (32), sealed seed (80), then a sealed stream
(deployments/data/seal/framing.py) whose context is the name and all of that. So an object that was
changed, cut, renamed or swapped does not open, and a stream's last part says that it is the last.
"""

from __future__ import annotations

import hmac
import zlib
from dataclasses import dataclass

from deployments.data.backup.errors import Damaged
from deployments.data.backup.keys import ID_BYTES, SEALED_SEED_BYTES, BackupKey, WriterKey
from deployments.data.seal import framing
from deployments.data.seal.errors import SealBroken

# Of a stream's plain bytes: as large as a WAL segment.
PART = 16 * 2**20
TAG_BYTES = 32
_MAGIC = b"MRB\x01"
_COMPRESSED, _LAST = 1, 2
_TAG_AT = len(_MAGIC) + 1 + ID_BYTES
_SEED_AT = _TAG_AT + TAG_BYTES
HEADER = _SEED_AT + SEALED_SEED_BYTES
# zlib's fastest: a segment that archive_timeout closed early is zeros for the most part.
_LEVEL = 1
# Nothing that we seal whole is larger than the largest WAL segment that PostgreSQL can have.
_MOST = 2**30


@dataclass(frozen=True, slots=True)
class Opened:
    """What an object held."""

    plain: bytes
    is_last: bool


def seal(
    key: WriterKey, name: str, plain: bytes, *, last: bool = True, compress: bool = True
) -> bytes:
    """The object's bytes."""
    flags = _LAST if last else 0
    body = zlib.compress(plain, _LEVEL) if compress else plain
    if compress and len(body) < len(plain):
        flags |= _COMPRESSED
    else:
        body = plain
    data_key, seed = key.new_data_key()
    header = _MAGIC + bytes([flags]) + key.id + key.tag(name, plain) + seed
    sealer = framing.StreamSealer(data_key, _context(name, header))
    return b"".join([header, sealer.header, *sealer.feed(body), sealer.finish()])


def open_sealed(key: BackupKey, name: str, data: bytes) -> Opened:
    """The object's content. Raises `Damaged`, which names the object."""
    header, rest = data[:HEADER], memoryview(data)[HEADER:]
    if len(rest) < framing.HEADER + framing.TAG_BYTES or not header.startswith(_MAGIC):
        raise Damaged(f"{name} is cut off, or no object of a backup")
    if header[len(_MAGIC) + 1 : _TAG_AT] != key.writer.id:
        raise Damaged(f"{name} is sealed under another backup key than this one")
    flags = header[len(_MAGIC)]
    try:
        body = _stream(key.data_key(header[_SEED_AT:]), _context(name, header), rest)
        plain = _decompressed(body) if flags & _COMPRESSED else body
    except (SealBroken, Damaged, zlib.error):
        raise Damaged(f"{name} was changed, moved or damaged: it does not open") from None
    return Opened(plain, bool(flags & _LAST))


def has_content(key: WriterKey, name: str, plain: bytes, start: bytes) -> bool:
    """Whether the object that begins with `start` was made of `plain`, as far as its header tells."""
    return hmac.compare_digest(start[_TAG_AT:_SEED_AT], key.tag(name, plain))


def says_last(start: bytes) -> bool:
    """Whether the object that begins with `start` says that it is the last of its stream."""
    return len(start) >= HEADER and bool(start[len(_MAGIC)] & _LAST)


def _stream(data_key: bytes, context: bytes, sealed: memoryview) -> bytes:
    chunks = max(1, -(-(len(sealed) - framing.HEADER) // framing.FRAME))
    opener = framing.StreamOpener(data_key, context, bytes(sealed[: framing.HEADER]), chunks)
    ends = [framing.offset_of(number) for number in range(chunks + 1)]
    return b"".join(
        opener.open(number, bytes(sealed[ends[number] : ends[number + 1]]))
        for number in range(chunks)
    )


def _decompressed(body: bytes) -> bytes:
    expander = zlib.decompressobj()
    plain = expander.decompress(body, _MOST)
    if expander.unconsumed_tail or not expander.eof:
        raise Damaged("more than an object holds")
    return plain


def _context(name: str, header: bytes) -> bytes:
    return len(name.encode()).to_bytes(4, "big") + name.encode() + header
