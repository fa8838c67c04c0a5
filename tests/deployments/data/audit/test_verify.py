"""Whatever the owner does to the chain behind its triggers is found, and where."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeAlias

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.data.audit import anchor as anchors
from deployments.data.audit.chain import Audit
from deployments.data.audit.verification import GENESIS, Walk
from deployments.data.audit.verify import Verdict, verify
from deployments.data.errors import Invalid
from tests.deployments.data.audit.acts import entry, soon

COUNT = 12
Owner: TypeAlias = psycopg.Connection[Any]


@pytest.fixture
async def owner(audit: Audit, dsns: tuple[str, str]) -> AsyncIterator[Owner]:
    """The owner with the triggers off, on a chain of twelve entries."""
    for number in range(1, COUNT + 1):
        await audit.record(entry(number, patient=f"p{number}"), deadline=soon())
    with psycopg.connect(dsns[1], autocommit=True) as connection:
        for table in ("entry", "head"):
            connection.execute(f"ALTER TABLE audit.{table} DISABLE TRIGGER ALL")
        yield connection


def found(verdict: Verdict) -> list[tuple[int, str]]:
    return [(fault.seq, fault.what) for fault in verdict.faults]


def rehash(owner: Owner, first: int, last: int) -> None:
    """Chain entries anew, as somebody who knows how it is done."""
    for seq in range(first, last + 1):
        before = owner.execute("SELECT hash FROM audit.entry WHERE seq = %s", [seq - 1]).fetchone()
        owner.execute(
            "UPDATE audit.entry SET previous = %(before)s, hash = "
            "sha256(%(before)s || int8send(seq) || convert_to(body, 'UTF8')) WHERE seq = %(seq)s",
            {"before": before[0] if before else bytes(32), "seq": seq},
        )


def change_body(owner: Owner) -> None:
    owner.execute("UPDATE audit.entry SET body = replace(body, 'read', 'Read') WHERE seq = 5")


def change_and_rehash_one(owner: Owner) -> None:
    change_patient_everywhere(owner)
    rehash(owner, 5, 5)


def change_patient_everywhere(owner: Owner) -> None:
    owner.execute(
        "UPDATE audit.entry SET body = replace(body, '\"p5\"', '\"px\"'), patient = 'px' "
        "WHERE seq = 5"
    )


def remove_one(owner: Owner) -> None:
    owner.execute("DELETE FROM audit.entry WHERE seq = 5")


def remove_several(owner: Owner) -> None:
    owner.execute("DELETE FROM audit.entry WHERE seq BETWEEN 4 AND 6")


def remove_first(owner: Owner) -> None:
    owner.execute("DELETE FROM audit.entry WHERE seq = 1")


def remove_and_close_the_gap(owner: Owner) -> None:
    remove_one(owner)
    owner.execute("UPDATE audit.entry SET seq = seq + 1000 WHERE seq > 5")
    owner.execute("UPDATE audit.entry SET seq = seq - 1001 WHERE seq > 1000")


def cut_the_tail(owner: Owner) -> None:
    owner.execute("DELETE FROM audit.entry WHERE seq > 10")


def remove_all(owner: Owner) -> None:
    owner.execute("TRUNCATE audit.entry")


def swap(owner: Owner) -> None:
    owner.execute("UPDATE audit.entry SET seq = 1004 WHERE seq = 4")
    owner.execute("UPDATE audit.entry SET seq = 4 WHERE seq = 7")
    owner.execute("UPDATE audit.entry SET seq = 7 WHERE seq = 1004")


def append_by_hand(owner: Owner) -> None:
    owner.execute("ALTER TABLE audit.entry DROP CONSTRAINT entry_id_key")
    owner.execute(
        "INSERT INTO audit.entry SELECT 13, id, at, organization, actor, role, patient, action, "
        "outcome, resource, request_id, patients, body, hash, hash FROM audit.entry WHERE seq = 12"
    )


def append_soundly_beyond_the_head(owner: Owner) -> None:
    append_by_hand(owner)
    rehash(owner, 13, 13)


def insert_between(owner: Owner) -> None:
    owner.execute("UPDATE audit.entry SET seq = seq + 1000 WHERE seq > 5")
    owner.execute("UPDATE audit.entry SET seq = seq - 999 WHERE seq > 1000")
    owner.execute("ALTER TABLE audit.entry DROP CONSTRAINT entry_id_key")
    owner.execute(
        "INSERT INTO audit.entry SELECT 6, id, at, organization, actor, role, patient, action, "
        "outcome, resource, request_id, patients, body, hash, hash FROM audit.entry WHERE seq = 5"
    )
    rehash(owner, 6, 6)
    owner.execute("UPDATE audit.head SET seq = 13")


def move_the_head_on(owner: Owner) -> None:
    owner.execute("UPDATE audit.head SET seq = seq + 1")


def change_the_head(owner: Owner) -> None:
    owner.execute("UPDATE audit.head SET hash = sha256(hash)")


def remove_the_head(owner: Owner) -> None:
    owner.execute("DELETE FROM audit.head")


MOVED = [(seq, "moved") for seq in range(5, 12)]


@pytest.mark.parametrize(
    ("tamper", "expected"),
    [
        (change_body, [(5, "changed"), (5, "column")]),
        (change_patient_everywhere, [(5, "changed")]),
        (change_and_rehash_one, [(6, "unlinked")]),
        (remove_one, [(5, "missing")]),
        (remove_several, [(4, "missing")]),
        (remove_first, [(1, "missing")]),
        (remove_and_close_the_gap, [(5, "unlinked"), *MOVED, (12, "cut")]),
        (cut_the_tail, [(11, "cut")]),
        (remove_all, [(1, "cut")]),
        (append_by_hand, [(13, "changed"), (13, "beyond-head")]),
        (append_soundly_beyond_the_head, [(13, "beyond-head")]),
        (move_the_head_on, [(13, "cut")]),
        (change_the_head, [(12, "head")]),
        (remove_the_head, [(0, "head"), (1, "beyond-head")]),
    ],
)
def test_tampering_is_found_where_it_is(
    tamper: Callable[[Owner], None],
    expected: list[tuple[int, str]],
    owner: Owner,
    dsns: tuple[str, str],
) -> None:
    assert verify(dsns[1]).is_sound
    tamper(owner)
    assert found(verify(dsns[1])) == expected


def test_a_reordering_is_found_at_both_places(owner: Owner, dsns: tuple[str, str]) -> None:
    swap(owner)
    verdict = verify(dsns[1])
    assert (4, "moved") in found(verdict)
    assert (7, "moved") in found(verdict)
    details = {fault.seq: fault.detail for fault in verdict.faults if fault.what == "moved"}
    assert details == {4: "it was chained as entry 7", 7: "it was chained as entry 4"}


def test_an_entry_inserted_between_others_is_found_there(
    owner: Owner, dsns: tuple[str, str]
) -> None:
    insert_between(owner)
    verdict = verify(dsns[1])
    assert found(verdict)[0] == (7, "unlinked")
    assert [seq for seq, what in found(verdict) if what == "moved"] == list(range(7, 14))


CHANGES = (
    ("id", "gen_random_uuid()"),
    ("at", "at + interval '1 microsecond'"),
    ("organization", "'other'"),
    ("actor", "'other'"),
    ("role", "'admin'"),
    ("patient", "'other'"),
    ("patient", "NULL"),
    ("action", "'search'"),
    ("outcome", "'denied'"),
    ("resource", "NULL"),
    ("request_id", "''"),
    ("patients", "'{p7}'"),
)


def test_a_changed_column_is_found_by_name(owner: Owner, dsns: tuple[str, str]) -> None:
    owner.execute("CREATE TABLE kept AS SELECT * FROM audit.entry WHERE seq = 5")
    for column, value in CHANGES:
        owner.execute(f"UPDATE audit.entry SET {column} = {value} WHERE seq = 5")
        verdict = verify(dsns[1])
        assert found(verdict) == [(5, "column")]
        assert column in verdict.faults[0].detail
        owner.execute(
            f"UPDATE audit.entry SET {column} = (SELECT {column} FROM kept) WHERE seq = 5"
        )
    assert verify(dsns[1]).is_sound


def test_a_chain_replaced_as_a_whole_is_sound_and_only_an_anchor_tells(
    owner: Owner, dsns: tuple[str, str], tmp_path: Path
) -> None:
    key = anchors.load_key(tmp_path)
    before = verify(dsns[1])
    early = anchors.sign(key, "hospital", 3, hash_of(owner, 3))
    late = anchors.sign(key, "hospital", before.head_seq, before.head_hash)
    change_patient_everywhere(owner)
    rehash(owner, 5, COUNT)
    owner.execute("UPDATE audit.head SET hash = (SELECT hash FROM audit.entry WHERE seq = 12)")
    assert verify(dsns[1]).is_sound
    assert verify(dsns[1], anchors=[early]).is_sound
    assert found(verify(dsns[1], anchors=[early, late])) == [(12, "anchor")]


def test_a_tail_cut_together_with_the_head_is_told_by_an_anchor(
    owner: Owner, dsns: tuple[str, str], tmp_path: Path
) -> None:
    before = verify(dsns[1])
    late = anchors.sign(anchors.load_key(tmp_path), "x", before.head_seq, before.head_hash)
    cut_the_tail(owner)
    owner.execute(
        "UPDATE audit.head SET (seq, hash) = (SELECT seq, hash FROM audit.entry WHERE seq = 10)"
    )
    assert verify(dsns[1]).is_sound
    assert found(verify(dsns[1], anchors=[late])) == [(12, "anchor")]


def test_a_walk_from_the_middle_sees_what_is_after_it(owner: Owner, dsns: tuple[str, str]) -> None:
    change_body(owner)
    assert not verify(dsns[1], first=5).is_sound
    later = verify(dsns[1], first=6)
    assert (later.is_sound, later.checked) == (True, 7)
    remove_one(owner)
    assert found(verify(dsns[1], first=5)) == [(5, "missing")]


async def test_a_chain_that_grows_meanwhile_is_walked_in_parts_to_its_end(
    audit: Audit, dsns: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deployments.data.audit.verify._PART", 7)
    for number in range(30):
        await audit.record(entry(number), deadline=soon())
    seen: list[int] = []

    def grow(checked: int) -> None:
        seen.append(checked)
        if len(seen) <= 3:
            with psycopg.connect(dsns[0]) as application:
                body = entry(100 + len(seen)).body().decode()
                application.execute("SELECT audit.append(%s::text[], '{}')", [[body]])

    verdict = verify(dsns[1], progress=grow)
    assert (verdict.faults, verdict.checked, verdict.head_seq) == ((), 33, 33)
    assert seen == [7, 14, 21, 28, 30, 33]


def test_an_empty_chain_is_sound(dsns: tuple[str, str]) -> None:
    verdict = verify(dsns[1])
    assert (verdict.is_sound, verdict.checked, verdict.head_hash) == (True, 0, GENESIS)


def hash_of(owner: Owner, seq: int) -> bytes:
    row = owner.execute("SELECT hash FROM audit.entry WHERE seq = %s", [seq]).fetchone()
    assert row is not None
    return bytes(row[0])


def rows_of(count: int) -> list[list[Any]]:
    """A sound chain as the walk reads it."""
    rows: list[list[Any]] = []
    previous = GENESIS
    for seq in range(1, count + 1):
        one = entry(seq)
        body = one.body()
        hash = hashlib.sha256(previous + seq.to_bytes(8, "big") + body).digest()
        at = body.split(b'"at":"')[1].split(b'"')[0].decode()
        extracted = [str(one.id), at, one.organization, one.actor, one.role, one.patient]
        rest = [one.action, one.outcome, one.resource, one.request_id]
        rows.append([seq, *extracted, *rest, None, body.decode(), previous, hash])
        previous = hash
    return rows


@given(st.data())
def test_any_one_change_anywhere_is_found_at_its_place(data: st.DataObject) -> None:
    rows = rows_of(data.draw(st.integers(1, 12)))
    head_seq, head_hash = len(rows), rows[-1][14]
    at = data.draw(st.integers(0, len(rows) - 1))
    kind = data.draw(st.sampled_from(["bit", "remove", "double", "swap", "hash", "previous"]))
    if kind == "remove":
        rows.pop(at)
    elif kind == "double":
        rows.insert(at, [at + 1, *rows[at][1:]])
        rows[at + 1 :] = [[seq, *row[1:]] for seq, row in enumerate(rows[at + 1 :], at + 2)]
    elif kind == "swap":
        other = data.draw(st.integers(0, len(rows) - 1).filter(lambda n: n != at or len(rows) == 1))
        if other == at:
            return
        rows[at][1:], rows[other][1:] = rows[other][1:], rows[at][1:]
        at = min(at, other)
    elif kind == "bit":
        body = bytearray(str(rows[at][12]).encode())
        place = data.draw(st.integers(0, len(body) - 1))
        body[place] ^= 1 << data.draw(st.integers(0, 5))
        rows[at][12] = body.decode("latin-1")
    else:
        column = 14 if kind == "hash" else 13
        rows[at][column] = hashlib.sha256(bytes(rows[at][column])).digest()
    walk = Walk()
    walk.feed(rows)
    walk.end(head_seq, head_hash)
    assert walk.faults
    assert min(fault.seq for fault in walk.faults) in (at + 1, at + 2)


def test_a_sound_chain_has_no_faults() -> None:
    rows = rows_of(50)
    walk = Walk()
    walk.feed(rows[:20])
    walk.feed(rows[20:])
    walk.end(50, rows[-1][14])
    assert (walk.faults, walk.checked) == ([], 50)


class TestAnchors:
    """Keys and signatures."""

    def test_the_key_is_made_once_for_its_owner_only(self, tmp_path: Path) -> None:
        first = anchors.load_key(tmp_path)
        assert (tmp_path / anchors.KEY_FILE).stat().st_mode & 0o777 == 0o600
        assert anchors.public_pem(anchors.load_key(tmp_path)) == anchors.public_pem(first)

    def test_a_key_that_others_can_read_is_refused(self, tmp_path: Path) -> None:
        anchors.load_key(tmp_path)
        (tmp_path / anchors.KEY_FILE).chmod(0o640)
        with pytest.raises(Invalid, match="chmod 600"):
            anchors.load_key(tmp_path)

    def test_anchors_are_read_back_and_a_changed_one_is_refused(self, tmp_path: Path) -> None:
        key = anchors.load_key(tmp_path)
        public = anchors.load_public_key(anchors.public_pem(key).encode())
        kept = [anchors.sign(key, "hospital", seq, bytes([seq]) * 32) for seq in (1, 2)]
        text = b"".join(anchor.line() for anchor in kept)
        assert anchors.read(text, public) == kept
        for old, new in ((b'"seq":2', b'"seq":3'), (b"02" * 32, b"03" * 32), (b"hosp", b"Hosp")):
            with pytest.raises(Invalid, match="not signed by this key"):
                anchors.read(text.replace(old, new), public)

    def test_the_anchor_of_another_key_is_refused(self, tmp_path: Path) -> None:
        with tempfile.TemporaryDirectory() as other:
            stranger = anchors.load_key(Path(other))
        line = anchors.sign(stranger, "hospital", 1, bytes(32)).line()
        with pytest.raises(Invalid, match="not signed by this key"):
            anchors.read(line, anchors.load_key(tmp_path).public_key())

    @pytest.mark.parametrize("text", [b"", b"\n", b"x", b"{}", b"[]", b'{"seq":"x"}'])
    def test_what_is_no_anchor_is_refused(self, text: bytes, tmp_path: Path) -> None:
        with pytest.raises(Invalid):
            anchors.read(text, anchors.load_key(tmp_path).public_key())
