"""Ends the lease of a PostgreSQL leader that is gone, as if it had run out: its standby leads now."""

from __future__ import annotations

import base64

from deployments.site.calling import Caller, CallFailed
from deployments.site.patroni import leader_key
from deployments.site.plan import HostPlan, Plan

_TIMEOUT_S = 1.5


async def end_lease(caller: Caller, plan: Plan, leader: str) -> None:
    """Revoke the lease that `leader` holds Patroni's leader key by; nothing where another leads by now.

    The lease, not the key: a Patroni that comes back still trusts a lease that lives. Without a quorum
    etcd answers neither call. Raises `CallFailed` if no member did it.
    """
    failed = CallFailed("the site has no etcd")
    for member in plan.etcd:
        try:
            await _revoke(caller, member, leader_key(plan), leader)
            return
        except CallFailed as error:
            failed = error
    raise failed


async def _revoke(caller: Caller, member: HostPlan, key: str, leader: str) -> None:
    port = member.ports.etcd_client
    body = {"key": base64.b64encode(key.encode()).decode()}
    found = await caller.ask(member, port, "/v3/kv/range", timeout_s=_TIMEOUT_S, body=body)
    for entry in found.get("kvs", ()):
        if base64.b64decode(entry["value"]).decode() == leader and entry.get("lease"):
            lease = {"ID": entry["lease"]}
            await caller.ask(member, port, "/v3/lease/revoke", timeout_s=_TIMEOUT_S, body=lease)
