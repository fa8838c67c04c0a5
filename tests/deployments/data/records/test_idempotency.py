"""Proves that a repeated request happens once: in order, at once, and after a lost commit."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deployments.data.database import Database
from deployments.data.errors import Conflict, Invalid, PreconditionFailed, Unprocessable
from deployments.data.records.housekeeping import purge
from deployments.data.records.store import Written
from tests.deployments.data.records import people
from tests.deployments.data.records.conftest import House, Owner
from tests.deployments.data.records.people import again


async def test_a_repeat_gets_the_first_answer(house: House, owner: Owner) -> None:
    first = await house.records.create(
        again(house.physician, key="one"), "Patient", people.patient()
    )
    second = await house.records.create(
        again(house.physician, key="one"), "Patient", people.patient()
    )
    assert (first.replayed, second.replayed) == (False, True)
    assert second.stored == first.stored
    assert second.created
    assert owner.rows("SELECT count(*) FROM records.history WHERE type = 'Patient'") == [(1,)]
    id = first.stored.id
    body = {**people.patient(gender="male"), "id": id}
    for _ in range(2):
        done = await house.records.update(
            again(house.physician, key="two"), "Patient", id, body, if_match=1
        )
        assert done.stored.version == 2
    for replayed in (False, True):
        gone = await house.records.delete(again(house.physician, key="three"), "Patient", id)
        assert (gone.stored.version, gone.replayed) == (3, replayed)


async def test_a_key_names_one_request_of_one_principal(house: House) -> None:
    await house.records.create(again(house.physician, key="one"), "Patient", people.patient())
    with pytest.raises(Unprocessable) as refused:
        await house.records.create(
            again(house.physician, key="one"), "Patient", people.patient(gender="male")
        )
    assert refused.value.code == "idempotency_mismatch"
    other = await house.records.create(
        again(house.colleague, key="one"), "Patient", people.patient(gender="male")
    )
    assert not other.replayed


async def test_a_refused_request_leaves_its_key_free(house: House) -> None:
    id = await house.patient()
    body = {**people.patient(), "id": id}
    with pytest.raises(PreconditionFailed):
        await house.records.update(
            again(house.physician, key="one"), "Patient", id, body, if_match=7
        )
    done = await house.records.update(
        again(house.physician, key="one"), "Patient", id, body, if_match=1
    )
    assert not done.replayed


@pytest.mark.parametrize("key", ["", "a" * 256, "a\nb", "é"])
async def test_keys_are_short_and_printable(house: House, key: str) -> None:
    with pytest.raises(Invalid) as refused:
        await house.records.create(again(house.physician, key=key), "Patient", people.patient())
    assert refused.value.param == "Idempotency-Key"


async def test_of_the_same_request_at_once_one_happens(house: House, owner: Owner) -> None:
    async def create() -> Written:
        return await house.records.create(
            again(house.physician, key="same"), "Patient", people.patient()
        )

    done = await asyncio.gather(*(create() for _ in range(8)), return_exceptions=True)
    written = [each for each in done if isinstance(each, Written)]
    assert all(isinstance(each, Written | Conflict) for each in done)
    assert len({each.stored.id for each in written}) == 1
    assert [each.replayed for each in written].count(False) == 1
    assert owner.rows("SELECT count(*) FROM records.history WHERE type = 'Patient'") == [(1,)]


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(requests=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 3)), min_size=2, max_size=8))
async def test_any_mixture_of_repeats_keeps_one_line_of_versions(
    house: House, requests: list[tuple[int, int]]
) -> None:
    """Updates of one resource with some keys and If-Match, all at once: every acknowledged one is
    a version of its own, a repeated key never makes a second, and no version is skipped."""
    id = await house.patient()
    genders = ("male", "female", "other")

    async def update(name: int, if_match: int) -> Any:
        body = {**people.patient(gender=genders[name]), "id": id}
        key = f"{id}/{name}/{if_match}"
        return await house.records.update(
            again(house.physician, key=key), "Patient", id, body, if_match=if_match
        )

    done = await asyncio.gather(
        *(update(name, if_match) for name, if_match in requests), return_exceptions=True
    )
    by_key: dict[tuple[int, int], set[int]] = {}
    for request, result in zip(requests, done, strict=True):
        if isinstance(result, Written):
            by_key.setdefault(request, set()).add(result.stored.version)
        else:
            assert isinstance(result, PreconditionFailed), result
    assert all(len(versions) == 1 for versions in by_key.values())
    made = sorted(version for versions in by_key.values() for version in versions)
    assert made == sorted(set(made))
    history = await house.records.history(again(house.physician), "Patient", id, count=100)
    assert [each.version for each in history] == list(range(len(made) + 1, 0, -1))
    assert made == list(range(2, len(made) + 2))


async def test_old_keys_and_ended_care_are_forgotten(
    house: House, owner: Owner, database: Database
) -> None:
    await house.records.create(again(house.physician, key="old"), "Patient", people.patient())
    owner.rows("UPDATE records.idempotency SET created_at = now() - interval '49 hours'")
    await house.records.create(again(house.physician, key="new"), "Patient", people.patient())
    owner.rows(
        "UPDATE records.care SET ends_at = now() - interval '91 days'"
        " WHERE ctid = (SELECT min(ctid) FROM records.care)"
    )
    gone = await purge(database, deadline=again(house.physician).deadline)
    assert (gone.keys, gone.relationships) == (1, 1)
    assert owner.rows("SELECT key FROM records.idempotency") == [("new",)]
