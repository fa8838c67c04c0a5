"""Raises an alert in the transaction that writes a critical value: both are kept, or neither."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg

from configs.alert_rules import alert_rules
from configs.args import RecordsArgs
from deployments.data.alerts.alert import RULE, To
from deployments.data.alerts.raising import Draft, raise_
from deployments.data.alerts.rules import findings
from deployments.data.audit.chain import Audit
from deployments.data.principal import Caller
from deployments.data.records.shapes import Stored
from deployments.data.records.trail import Trail
from deployments.data.seal.sealer import Sealer

Connection = psycopg.AsyncConnection[tuple[Any, ...]]


class RuleWatch:
    """Looks at every version of an Observation as it is written (records/writes.py)."""

    def __init__(self, sealer: Sealer, audit: Audit, args: RecordsArgs) -> None:
        """Raises `ConfigError` for rules that cannot be read."""
        self._sealer = sealer
        self._trail = Trail(audit, enabled=args.audit)
        self._args = args.alerts
        self._rules = [
            rule
            for rule in alert_rules(args.alerts.rules)
            if rule.severity in args.alerts.severities
        ]

    async def written(self, connection: Connection, caller: Caller, stored: Stored) -> list[UUID]:
        """Raise what this version calls for; returns the audit entries that were staged."""
        resource, patient = stored.resource, stored.patient
        if stored.type != "Observation" or resource is None or patient is None:
            return []
        staged: list[UUID] = []
        now = datetime.now(UTC)
        for finding in findings(resource, self._rules, now=now, fresh_s=self._args.fresh_s):
            rule = finding.rule
            draft = Draft(
                rule.severity,
                rule.code,
                To("care"),
                raised_by=RULE,
                patient=patient,
                text=finding.text,
                origin="rule",
                resource=stored.reference,
            )
            first_s = self._args.first_s(rule.severity)
            if await raise_(connection, self._sealer, caller.principal, draft, first_s=first_s):
                staged += await self._stage(connection, caller, draft)
        return staged

    async def _stage(self, connection: Connection, caller: Caller, draft: Draft) -> list[UUID]:
        return await self._trail.stage(
            connection,
            caller,
            "alert-raise",
            resource=f"Alert/{draft.id}",
            patients=[draft.patient] if draft.patient else [],
            severity=draft.severity,
            code=draft.code,
            called=draft.to.kind,
            rule=draft.code,
            about=draft.resource,
        )
