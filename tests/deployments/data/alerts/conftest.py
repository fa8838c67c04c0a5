"""Alerts on a real PostgreSQL, with the real sealer, audit chain and records."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

import pytest

from configs.args import AlertsArgs, RecordsArgs
from deployments.data.alerts.alert import To
from deployments.data.alerts.alerts import Alerts
from deployments.data.alerts.escalation import Escalation
from deployments.data.alerts.watch import RuleWatch
from deployments.data.audit.chain import Audit
from deployments.data.database import Database
from deployments.data.principal import Caller
from deployments.data.records.store import Records
from deployments.data.seal.sealer import Sealer
from tests.deployments.data.records import people
from tests.deployments.data.records.conftest import House, Owner, audit, house, owner, sealer

__all__ = ("audit", "house", "owner", "sealer")

TEXT = f"{people.MARK} fell in the corridor"


@pytest.fixture
def args() -> RecordsArgs:
    """Everything is due at once: a test waits for no clock."""
    return RecordsArgs(alerts=AlertsArgs(critical_s=0.001, high_s=600, again_s=0.001, reminders=2))


@pytest.fixture
def records(database: Database, sealer: Sealer, audit: Audit, args: RecordsArgs) -> Records:
    """Records whose writes are watched."""
    return Records(database, sealer, audit, args, RuleWatch(sealer, audit, args))


@dataclass
class Ward:
    """A house with alerts: a nurse and two physicians, the first of whom has a patient."""

    house: House
    alerts: Alerts
    escalation: Escalation
    owner: Owner
    nurse: Caller
    patient: str

    @property
    def physician(self) -> Caller:
        """The patient's own."""
        return people.again(self.house.physician)

    @property
    def colleague(self) -> Caller:
        """Without a relationship to the patient."""
        return people.again(self.house.colleague)

    async def raised(self, by: Caller | None = None, to: To | None = None, **more: Any) -> str:
        """The id of a new alert, to everyone in the patient's care unless told otherwise."""
        asked = {"severity": "critical", "code": "fall", "patient": self.patient, "text": TEXT}
        who = people.again(by or self.nurse, key=uuid.uuid4().hex)
        alert, fresh = await self.alerts.raise_alert(who, to=to or To("care"), **(asked | more))
        assert fresh
        return alert.id

    async def mine(self, who: Caller, *, every: bool = False) -> list[str]:
        """The ids of somebody's alerts, newest first."""
        found, _ = await self.alerts.listed(people.again(who), every=every, count=100, cursor=None)
        return [alert.id for alert in found]


def add_account(owner: Owner, practitioner: str, role: str = "physician") -> str:
    """Somebody who can sign in as this practitioner."""
    id = str(uuid.uuid4())
    owner.rows(
        "INSERT INTO accounts.account (id, organization, username, role, practitioner, created_by)"
        " VALUES (%s, %s, %s, %s, %s, 'test')",
        *(id, people.ORGANIZATION, id, role, practitioner),
    )
    return id


@pytest.fixture
async def ward(
    house: House,
    database: Database,
    sealer: Sealer,
    audit: Audit,
    owner: Owner,
    args: RecordsArgs,
) -> Ward:
    made = await house.records.create(
        people.again(house.machine), "Practitioner", people.practitioner("Costa")
    )
    patient = await house.patient()
    encounter = people.encounter(patient, [house.physician_id, made.stored.id])
    await house.records.create(people.again(house.physician), "Encounter", encounter)
    return Ward(
        house,
        Alerts(database, sealer, audit, args),
        Escalation(database, audit, args),
        owner,
        people.caller("nurse", practitioner=made.stored.id),
        patient,
    )
