"""Whether the chain is whole, and if not, where: the walk that `verify` and the custodian share.

Hashes are computed here, not by the database that is being checked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import orjson

What = Literal[
    "changed", "moved", "column", "unlinked", "missing", "cut", "beyond-head", "head", "anchor"
]
Row: TypeAlias = Sequence[Any]

GENESIS = bytes(32)
# `at` as the body writes it, so that comparing is comparing texts.
COLUMNS = """seq, id::text,
    to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"'),
    organization, actor, role, patient, action, outcome, resource, request_id, patients,
    body, previous, hash"""
_EXTRACTED = (
    *("id", "at", "organization", "actor", "role", "patient", "action", "outcome", "resource"),
    "request_id",
)
MAX_FAULTS = 1000
_NEIGHBOURS = 1000
_MAX_SEARCHES = 100


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong, at which sequence number; `detail` is a sentence without content of entries."""

    seq: int
    what: What
    detail: str


@dataclass(slots=True)
class Walk:
    """A walk along the chain, row after row; it goes on after a fault, so that all are found.

    `seq` and `hash` are the place reached: the next row must be `seq + 1` and follow `hash`. A hash
    of None takes the next row's word for what it follows (a walk that begins in the middle).
    """

    seq: int = 0
    hash: bytes | None = GENESIS
    checked: int = 0
    found: int = 0
    faults: list[Fault] = field(default_factory=list)
    _searches: int = 0

    def feed(self, rows: Iterable[Row]) -> None:
        """Check rows of `COLUMNS` in order of sequence."""
        for row in rows:
            seq, body, previous, hash = row[0], row[12], bytes(row[13]), bytes(row[14])
            if seq != self.seq + 1:
                self._missing(self.seq + 1, seq - 1)
            elif self.hash is not None and previous != self.hash:
                self._unlinked(seq)
            encoded = body.encode()
            if hashlib.sha256(previous + seq.to_bytes(8, "big") + encoded).digest() != hash:
                self._changed(seq, previous, encoded, hash)
            self._compare(row, encoded)
            self.seq, self.hash = seq, hash
            self.checked += 1

    def end(self, head_seq: int, head_hash: bytes) -> None:
        """The last row has been fed: is it where the head says that the chain ends?"""
        if self.seq < head_seq:
            lost = _numbers(self.seq + 1, head_seq)
            self.note(self.seq + 1, "cut", f"{lost} removed: the head is at {head_seq}")
        elif self.seq > head_seq:
            lost = _numbers(head_seq + 1, self.seq)
            self.note(head_seq + 1, "beyond-head", f"{lost} inserted: the head is at {head_seq}")
        elif self.hash is not None and self.hash != head_hash:
            self.note(self.seq, "head", "the last entry and the head differ: one was rewritten")

    def note(self, seq: int, what: What, detail: str) -> None:
        """Add a fault; beyond a thousand they are only counted."""
        self.found += 1
        if len(self.faults) < MAX_FAULTS:
            self.faults.append(Fault(seq, what, detail))

    def _missing(self, first: int, last: int) -> None:
        self.note(first, "missing", f"{_numbers(first, last)} removed")

    def _unlinked(self, seq: int) -> None:
        self.note(
            seq, "unlinked", f"does not follow from entry {seq - 1}: one of the two was replaced"
        )

    def _changed(self, seq: int, previous: bytes, body: bytes, hash: bytes) -> None:
        origin = self._origin(seq, previous, body, hash)
        if origin is None:
            self.note(seq, "changed", "its body, its hash or what it follows was changed")
        else:
            self.note(seq, "moved", f"it was chained as entry {origin}")

    def _origin(self, seq: int, previous: bytes, body: bytes, hash: bytes) -> int | None:
        """The number near `seq` under which the entry is sound: it was moved from there."""
        self._searches += 1
        if self._searches > _MAX_SEARCHES:
            return None
        for number in range(max(1, seq - _NEIGHBOURS), seq + _NEIGHBOURS + 1):
            if hashlib.sha256(previous + number.to_bytes(8, "big") + body).digest() == hash:
                return number
        return None

    def _compare(self, row: Row, body: bytes) -> None:
        seq = row[0]
        try:
            told = orjson.loads(body)
            wrong = [
                name for at, name in enumerate(_EXTRACTED, 1) if row[at] != told.get(name, ...)
            ]
            patients = told["details"].get("patients")
            if row[11] != (patients if isinstance(patients, list) else None):
                wrong.append("patients")
        except (orjson.JSONDecodeError, AttributeError, KeyError):
            wrong = ["body"]
        for name in wrong:
            self.note(seq, "column", f"the column {name} is not what the body says")


def _numbers(first: int, last: int) -> str:
    return f"entry {first} was" if first == last else f"entries {first} to {last} were"
