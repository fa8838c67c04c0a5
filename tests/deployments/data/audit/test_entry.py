"""An entry holds whatever a client sends, in a form that every part of the chain can keep."""

from __future__ import annotations

import time
import uuid

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.data.audit.chain import Audit
from deployments.data.audit.entry import (
    MAX_DETAILS_BYTES,
    MAX_FIELD,
    AuditEntry,
    entry_of,
    time_ordered_id,
)
from deployments.data.audit.verify import verify
from tests.deployments.data.audit.acts import caller, chain, entry, soon

TEXT = st.text(st.characters(), max_size=40)  # surrogates and NUL among them
DETAILS = st.dictionaries(
    TEXT,
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.uuids(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
        max_leaves=6,
    ),
    max_size=4,
)


@given(TEXT, TEXT, TEXT, DETAILS)
def test_every_body_is_json_without_what_postgresql_cannot_hold(
    actor: str, device: str, patient: str, details: dict[str, object]
) -> None:
    one = entry(actor=actor, device=device, patient=patient, details=details)
    body = one.body()
    assert one.body() == body
    assert b"\\u0000" not in body
    assert b"\x00" not in body
    told = orjson.loads(body)
    assert told["id"] == str(one.id)
    assert body == orjson.dumps(told, option=orjson.OPT_SORT_KEYS)


async def test_what_a_client_sends_is_chained(audit: Audit, dsns: tuple[str, str]) -> None:
    nasty = ["\x00", "\ud800", "a" * 100_000, "\\u0000", "'; DROP TABLE audit.entry", "\u202e", ""]
    for number, text in enumerate(nasty):
        one = entry(
            number,
            actor=text,
            device=text,
            patient=text,
            request_id=text,
            details={"text": text, text: [text]},
        )
        await audit.record(one, deadline=soon())
        await audit.journal(entry(number, actor=text, details={"text": text}))
    await audit.close()
    assert len(chain(dsns[1])) == 2 * len(nasty)
    assert verify(dsns[1]).is_sound


def test_long_texts_are_cut_and_large_details_are_told_by_their_hash() -> None:
    one = entry(device="d" * 5000, details={"x": "y" * MAX_DETAILS_BYTES})
    assert len(one.device) == MAX_FIELD
    told = orjson.loads(one.body())
    assert set(told["details"]) == {"cut_bytes", "cut_sha256"}


def test_no_action_is_made_up() -> None:
    with pytest.raises(ValueError, match="no such action"):
        entry(action="look")


def test_ids_are_version_7_and_in_order_of_time() -> None:
    first = time_ordered_id()
    time.sleep(0.002)
    second = time_ordered_id()
    assert (first.version, first.variant) == (7, uuid.RFC_4122)
    assert first < second
    assert abs((first.int >> 80) / 1000 - time.time()) < 5


def test_an_entry_of_a_caller_says_who_asked() -> None:
    one = entry_of(caller(), "search", patient="p1", resource="AuditEvent", found=3)
    assert isinstance(one, AuditEntry)
    assert (one.actor, one.actor_kind, one.role) == ("u1", "account", "auditor")
    assert (one.organization, one.request_id, one.address) == ("hospital", "request-1", "10.0.0.9")
    assert one.details == {"found": 3}
