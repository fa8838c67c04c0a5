"""Proves how rows are made: what JSON cannot hold is refused, seals are bound to their version."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from deployments.data.errors import DataError, Invalid
from deployments.data.records.rows import Rows, canonical, moment
from deployments.data.seal.sealer import Sealer
from tests.deployments.data.records import people


@pytest.mark.parametrize("value", ["a\0b", "\ud800", 2**70, Decimal("NaN"), float, b"bytes"])
def test_what_the_database_cannot_hold_is_refused(value: object) -> None:
    with pytest.raises(Invalid):
        canonical({"valueString": [value]})


def test_json_is_the_same_for_the_same_values() -> None:
    assert canonical({"b": Decimal("1.10"), "a": "\\u0000"}) == b'{"a":"\\\\u0000","b":1.10}'


def test_a_row_of_another_version_or_organisation_does_not_open(sealer: Sealer) -> None:
    rows = Rows(sealer)
    encoded = rows.encode("hospital", people.patient(), "Patient/p/1")
    assert encoded.sealed is not None
    assert encoded.content is not None
    assert people.MARK not in encoded.content

    def row(id: str, version: int) -> tuple[object, ...]:
        sealed = encoded.sealed
        assert sealed is not None
        head = ("Patient", id, version, datetime.now(UTC), False, "POST", id)
        return (*head, encoded.content, sealed.data, sealed.key_id, sealed.wrapped_key)

    found = rows.stored("hospital", row("p", 1))
    assert found.resource is not None
    assert found.resource["name"] == people.patient()["name"]
    for organization, id, version in (("hospital", "p", 2), ("hospital", "q", 1), ("o", "p", 1)):
        with pytest.raises(DataError):
            rows.stored(organization, row(id, version))


def test_the_hash_is_of_what_lies_in_the_row(sealer: Sealer) -> None:
    rows = Rows(sealer)
    one = rows.encode("hospital", people.patient(), "Patient/p/1")
    other = rows.encode("hospital", people.patient(), "Patient/p/1")
    assert one.content == other.content
    # Sealed under a key of its own each: equal texts cannot be told by equal hashes.
    assert one.sha256 != other.sha256


def test_moments_never_go_back_and_are_whole_milliseconds() -> None:
    now = moment()
    assert now.microsecond % 1000 == 0
    ahead = now + timedelta(hours=1)
    assert moment(ahead) == ahead + timedelta(milliseconds=1)
    assert moment(now - timedelta(hours=1)) >= now
