"""The firewall of a host: nftables on Linux, pf on macOS, of the same table of flows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from deployments.site.flows import VRRP, Flow, into, keeps_to_itself, out_of
from deployments.site.plan import HostPlan, Plan
from deployments.site.templates import filled

_FAMILIES = {4: ("ip", "inet"), 6: ("ip6", "inet6")}


def firewall_files(plan: Plan, host: HostPlan) -> Mapping[Path, str]:
    """The firewall's files of a host by their paths on it."""
    folder = host.folder / "firewall"
    if host.host.platform == "linux":
        return {folder / "nftables.conf": nftables(plan, host)}
    anchor = folder / "medrec.anchor"
    return {
        anchor: pf_anchor(plan, host),
        folder / "pf.conf": filled("pf.conf.j2", host=host.name, anchor=anchor),
    }


def nftables(plan: Plan, host: HostPlan) -> str:
    """A ruleset for `nft -f`."""
    return filled(
        "nftables.conf.j2",
        host=host.name,
        role=host.host.role,
        closed=keeps_to_itself(plan),
        into=_unique(rule for flow in into(plan, host) for rule in _nft(flow, "saddr")),
        out=_unique(rule for flow in out_of(plan, host) for rule in _nft(flow, "daddr")),
    )


def pf_anchor(plan: Plan, host: HostPlan) -> str:
    """Rules for an anchor of pf, the first that fits deciding."""
    return filled(
        "pf.anchor.j2",
        host=host.name,
        role=host.host.role,
        closed=keeps_to_itself(plan),
        into=_unique(rule for flow in into(plan, host) for rule in _pf(flow, "in")),
        out=_unique(rule for flow in out_of(plan, host) for rule in _pf(flow, "out")),
    )


def _nft(flow: Flow, side: str) -> Iterator[str]:
    what = (
        f"meta l4proto {VRRP}" if flow.protocol == "vrrp" else f"{flow.protocol} dport {flow.port}"
    )
    if not flow.networks:
        yield f'{what} accept comment "{flow.why}: by certificate alone"'
    for version, (family, _) in _FAMILIES.items():
        if not (networks := flow.of_version(version)):
            continue
        if _is_everybody(networks):
            yield f'meta nfproto ipv{version} {what} accept comment "{flow.why}"'
        else:
            yield f'{family} {side} {{ {", ".join(networks)} }} {what} accept comment "{flow.why}"'


def _pf(flow: Flow, way: str) -> Iterator[str]:
    what = f"proto {VRRP}" if flow.protocol == "vrrp" else f"proto {flow.protocol}"
    port = "" if flow.protocol == "vrrp" else f" port {flow.port}"
    for version, (_, family) in _FAMILIES.items():
        networks = flow.of_version(version)
        if not networks and flow.networks:
            continue
        other = "any" if not networks or _is_everybody(networks) else f"{{ {', '.join(networks)} }}"
        ends = f"from {other} to any{port}" if way == "in" else f"from any to {other}{port}"
        yield f"pass {way} quick {family} {what} {ends} keep state"


def _is_everybody(networks: Iterable[str]) -> bool:
    return any(network.endswith("/0") for network in networks)


def _unique(rules: Iterable[str]) -> list[str]:
    """Without repetitions, in order."""
    return list(dict.fromkeys(rules))
