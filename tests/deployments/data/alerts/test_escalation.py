"""Who is called when nobody acknowledges, level by level, and that it ends."""

from __future__ import annotations

import asyncio
import time

from deployments.data.alerts.alert import Alert, To
from deployments.data.alerts.escalation import next_call
from tests.deployments.data.alerts.conftest import Ward, add_account
from tests.deployments.data.records import people


async def escalate(ward: Ward) -> dict[str, int]:
    await asyncio.sleep(0.005)
    return await ward.escalation.run(time.monotonic() + 10)


async def test_a_named_practitioner_then_the_role_in_care_then_every_physician(ward: Ward) -> None:
    absent, other = "absent", people.caller(practitioner="somebody")
    add_account(ward.owner, absent)
    id = await ward.raised(to=To("practitioner", absent))
    assert await ward.mine(ward.physician) == []
    await escalate(ward)
    assert await ward.mine(ward.physician) == [id]
    assert await ward.mine(other) == []
    await escalate(ward)
    alert = await ward.alerts.read(people.again(other), id)
    assert (alert.state, alert.level, alert.to_all) == ("escalated", 2, True)
    assert await ward.mine(people.caller("nurse", practitioner="elsewhere")) == []
    taken = await ward.alerts.acknowledge(people.again(other), id)
    assert (taken.state, taken.due_at) == ("acknowledged", None)
    acts = ward.owner.entries("alert-escalate")
    assert [each["details"]["level"] for each in acts] == [1, 2]
    assert {each["actor"] for each in acts} == {"custodian"}


async def test_reminders_follow_and_end_and_the_figures_tell_what_is_open(ward: Ward) -> None:
    await ward.raised()
    await ward.raised(severity="high")
    figures = [await escalate(ward) for _ in range(6)]
    # One call of the physicians and two reminders; the high alert is not due for minutes.
    assert [each["escalated"] for each in figures] == [1, 2, 3, 3, 3, 3]
    assert (figures[-1]["open_critical"], figures[-1]["open_high"]) == (1, 1)
    kinds = ward.owner.rows("SELECT kind FROM alerts.event ORDER BY seq")
    assert [kind for (kind,) in kinds] == ["raised", "raised", *["escalated"] * 3]
    ward.owner.rows("UPDATE alerts.alert SET raised_at = now() - interval '90 s'")
    assert (await escalate(ward))["unacknowledged_age_s"] >= 90


async def test_two_custodians_call_once(ward: Ward) -> None:
    # Should one of them come after the other, the next call must not be due yet.
    ward.escalation._args = ward.escalation._args.model_copy(update={"again_s": 60.0})
    await ward.raised()
    await asyncio.sleep(0.005)
    ends = time.monotonic() + 10
    await asyncio.gather(
        *(ward.escalation._escalate("hospital", id, ends) for id in await due(ward))
    )
    [count] = ward.owner.rows("SELECT count(*) FROM alerts.event WHERE kind = 'escalated'")
    assert count == (1,)


async def due(ward: Ward) -> list[str]:
    """The one alert, twice: as two custodians would find it."""
    ward.owner.rows("UPDATE alerts.alert SET due_at = now() - interval '1 s'")
    rows = ward.owner.rows("SELECT id::text FROM alerts.due(9)")
    assert len(rows) == 1
    return [rows[0][0]] * 2


def test_every_decision_says_why(ward: Ward) -> None:
    def alert(level: int, escalations: int, to: To) -> Alert:
        from datetime import UTC, datetime

        moment = datetime.now(UTC)
        return Alert(
            *("x", "hospital", "critical", "fall", "staff", "p", None, "a", to),
            to_all=False,
            raised_at=moment,
            state="raised",
            level=level,
            escalations=escalations,
            due_at=moment,
            text=None,
        )

    named = To("practitioner", "p", "physician")
    steps = [
        next_call(alert(level, calls, named), again_s=300, reminders=1)
        for level, calls in ((0, 0), (1, 1), (2, 2))
    ]
    assert [(each.level, each.to_all, each.again_s) for each in steps] == [
        *((1, False, 300), (2, True, 300), (2, True, None)),
    ]
    assert steps[0].reason == "nobody acknowledged in time: the next level is called"
    assert steps[2].reason == "nobody acknowledged in time: everybody is reminded"
    assert next_call(alert(0, 0, To("care")), again_s=300, reminders=0).again_s is None
