from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from deployments.data.audit.chain import Audit
from deployments.data.database import Database
from deployments.data.errors import DataError, Invalid
from deployments.data.interactions.switches import SwitchedOff, Switches
from tests.deployments.data.interactions.conftest import again, eventually
from tests.deployments.data.records import people
from tests.deployments.data.records.conftest import Owner

ADMIN = people.caller("admin")
HERE = people.ORGANIZATION


@asynccontextmanager
async def replica(database: Database, audit: Audit, file: Path) -> AsyncIterator[Switches]:
    """The switches as one replica follows them."""
    made = Switches(database, audit, file)
    await made.start()
    try:
        yield made
    finally:
        await made.close()


def is_off(switches: Switches, capability: str = "chat", organization: str = HERE) -> bool:
    try:
        switches.check(organization, capability)
    except SwitchedOff as off:
        return off.status == 503 and off.code == "ai_switched_off"
    return False


def is_known(switches: Switches) -> bool:
    try:
        switches.check(HERE, "chat")
    except SwitchedOff as off:
        return off.code != "ai_switch_unknown"
    return True


async def test_a_switch_moved_at_one_replica_holds_at_every_other_within_a_second(
    database: Database, audit: Audit, tmp_path: Path, owner: Owner
) -> None:
    file = tmp_path / "switches.json"
    async with replica(database, audit, file) as one, replica(database, audit, file) as two:
        await eventually(lambda: is_known(one) and is_known(two))
        moved = await one.set(again(ADMIN), "chat", enabled=False, reason="drift")
        assert is_off(one)
        await eventually(lambda: is_off(two), timeout_s=1.5)
        assert not is_off(one, organization="elsewhere")
        assert (await two.all(again(ADMIN)))[1] == moved
        await two.set(again(ADMIN), "chat", enabled=True, reason="checked")
        await eventually(lambda: not is_off(one), timeout_s=1.5)
    told = [entry["details"] for entry in owner.entries("ai-switch")]
    assert told == [
        {"capability": "chat", "enabled": False, "reason": "drift"},
        {"capability": "chat", "enabled": True, "reason": "checked"},
    ]


async def test_the_sites_switch_holds_for_every_capability(
    database: Database, audit: Audit, tmp_path: Path
) -> None:
    async with replica(database, audit, tmp_path / "f") as switches:
        await switches.set(again(ADMIN), "site", enabled=False, reason="incident")
        assert is_off(switches, "chat")
        await switches.set(again(ADMIN), "chat", enabled=True, reason="try")
        assert is_off(switches, "chat")


async def test_what_was_off_stays_off_while_the_database_is_away_and_after_a_restart(
    database: Database, audit: Audit, tmp_path: Path
) -> None:
    file = tmp_path / "switches.json"
    async with replica(database, audit, file) as switches:
        await switches.set(again(ADMIN), "chat", enabled=False, reason="drift")
    nowhere = Database(f"host={tmp_path} dbname=none", connections=2)
    await nowhere.open()
    try:
        async with replica(nowhere, audit, file) as restarted:
            await asyncio.sleep(1.2)
            assert is_off(restarted)
    finally:
        await nowhere.close()


async def test_who_was_never_told_refuses_until_the_database_answers(
    database: Database, audit: Audit, tmp_path: Path
) -> None:
    file = tmp_path / "switches.json"
    assert not is_known(Switches(database, audit, file))
    file.write_text('{"off": "all')
    assert not is_known(Switches(database, audit, file))
    async with replica(database, audit, file) as switches:
        await eventually(lambda: is_known(switches))
        assert not is_off(switches)
    assert is_known(Switches(database, audit, file))


@pytest.mark.parametrize(
    ("capability", "reason"),
    [("everything", "x"), ("", "x"), ("chat", ""), ("chat", "Maria da Silva"), ("chat", "x" * 65)],
)
async def test_only_known_capabilities_and_short_codes_are_taken(
    database: Database, audit: Audit, tmp_path: Path, capability: str, reason: str
) -> None:
    switches = Switches(database, audit, tmp_path / "f")
    with pytest.raises(Invalid):
        await switches.set(again(ADMIN), capability, enabled=False, reason=reason)


async def test_a_switch_that_cannot_be_recorded_is_not_moved(
    database: Database, audit: Audit, tmp_path: Path, owner: Owner
) -> None:
    late = again(ADMIN, seconds=-1)
    with pytest.raises(DataError):
        await Switches(database, audit, tmp_path / "f").set(late, "chat", enabled=False, reason="x")
    assert owner.rows("SELECT count(*) FROM interactions.switch") == [(0,)]
