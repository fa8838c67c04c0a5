"""keepalived's files: the edges share an address by VRRP; who is silent or blind gives it up."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from deployments.site.plan import LOOPBACK, HostPlan, Plan
from deployments.site.templates import filled

CHECK = "check_haproxy.sh"


def keepalived_files(plan: Plan, host: HostPlan) -> Mapping[Path, str]:
    """The configuration of an edge and the script that it runs; nothing where no address is shared.

    Raises `ValueError` if the host is no edge.
    """
    if host not in plan.edges:
        raise ValueError(f"{host.name} runs no keepalived")
    rules = plan.site.edge
    if rules.address is None:
        return {}
    script = host.keepalived_config.parent / CHECK
    real = plan.ground == "hosts"
    config = filled(
        "keepalived.conf.j2",
        host=host.name,
        script=script,
        # Root runs no script that another account could change; that account runs its own.
        script_user=host.host.user if real else "root",
        script_security=real,
        interface=host.host.interface,
        router_id=rules.router_id,
        priority=host.host.priority,
        advertise_s=rules.advertise_s,
        address=host.address,
        peers=[edge.address for edge in plan.edges if edge != host],
        shared=rules.address,
    )
    check = filled(
        "check_haproxy.sh.j2", address=LOOPBACK, port=host.ports.http, gives_up=host.gives_up
    )
    return {host.keepalived_config: config, script: check}
