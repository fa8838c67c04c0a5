"""The firewalls: nothing that a site's programs need is closed, and what they do not need is."""

from __future__ import annotations

import ipaddress
import os
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from configs.reader import PROJECT_ROOT
from configs.site import load_site
from deployments.cell.state import CellError
from deployments.site.edge_config import write_haproxy
from deployments.site.etcd import etcd_config
from deployments.site.firewall import firewall_files, nftables, pf_anchor
from deployments.site.flows import into, out_of
from deployments.site.passwords import Passwords
from deployments.site.patroni import patroni_config
from deployments.site.plan import HostPlan, Plan, on_hosts, on_this_machine, program

ROOT_ONLY = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("ip") is None or shutil.which("nft") is None,
    reason="needs root, iproute2 and nftables",
)


def _plan(preset: str, folder: Path, file: str = "site.yaml") -> Plan:
    text = (PROJECT_ROOT / "configs" / file).read_text()
    text = text.replace("preset: production", f"preset: {preset}")
    text = text.replace("emergency.hospital.internal", "10.20.0.31")
    (folder / "site.yaml").write_text(text)
    site = load_site(folder / "site.yaml")
    return on_hosts(site) if file == "site.yaml" else on_this_machine(site, folder, "namespaces")


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """configs/site.yaml, with a number for the emergency host's address."""
    return _plan("production", tmp_path)


def _is_open(plan: Plan, source: HostPlan, target: HostPlan, port: int) -> bool:
    """Whether `source` may open it, and `target` takes it."""
    takes = any(
        flow.protocol == "tcp"
        and flow.port == port
        and any(_inside(source.address, network) for network in flow.networks)
        for flow in into(plan, target)
    )
    opens = any(
        flow.protocol == "tcp"
        and flow.port == port
        and any(_inside(target.address, network) for network in flow.networks)
        for flow in out_of(plan, source)
    )
    return takes and opens


def _inside(address: str, network: str) -> bool:
    return ipaddress.ip_address(address) in ipaddress.ip_network(network)


def _needed(plan: Plan, host: HostPlan, folder: Path) -> Iterator[tuple[str, int]]:
    """Every address and port of another host in the host's own rendered files."""
    text = ""
    if host.host.role != "witness":
        text += write_haproxy(plan, host, folder=folder).read_text()
    if host in plan.cells:
        secrets = Passwords("a", "b", "c", "d", "e", "f")
        text += "\n".join(yaml.safe_load(patroni_config(plan, host, secrets))["etcd3"]["hosts"])
    if host in plan.etcd:
        text += etcd_config(plan, host)
    for address, port in re.findall(r"(10\.20\.0\.\d+):(\d+)", text):
        yield address, int(port)
    for address, port in re.findall(r"addr (10\.20\.0\.\d+) port (\d+)", text):
        yield address, int(port)


@pytest.mark.parametrize("name", ["mac-a", "mac-b", "edge-1", "edge-2", "witness", "cloud"])
def test_whatever_a_hosts_files_lead_to_is_open_to_it(
    plan: Plan, name: str, tmp_path: Path
) -> None:
    host = plan.hosts[name]
    by_address = {each.address: each for each in plan.hosts.values()}
    needed = {
        (by_address[address].name, port)
        for address, port in _needed(plan, host, tmp_path)
        if address in by_address and address != host.address
    }
    assert needed
    closed = {
        (other, port) for other, port in needed if not _is_open(plan, host, plan.hosts[other], port)
    }
    assert not closed


def test_devices_and_strangers_reach_the_edges_public_ports_alone(plan: Plan) -> None:
    for host in plan.hosts.values():
        ports = {
            flow.port
            for flow in into(plan, host)
            if any(_inside("10.30.0.5", network) for network in flow.networks)
        }
        assert ports == ({443, 80} if host in plan.edges else set())


def test_the_database_is_reached_by_cells_and_edges_alone(plan: Plan) -> None:
    for target in plan.cells:
        for source in plan.hosts.values():
            if source != target:
                expected = source in plan.cells or source in plan.edges
                assert _is_open(plan, source, target, target.ports.postgres_tls) == expected


@pytest.mark.parametrize("preset", ["production", "mvp"])
def test_nft_accepts_the_ruleset_of_every_host(preset: str, tmp_path: Path) -> None:
    try:
        nft = program("nft")
    except CellError:
        pytest.skip("nft is not installed")
    if os.geteuid() != 0:
        pytest.skip("nft checks as root only")
    plan = _plan(preset, tmp_path)
    for host in plan.hosts.values():
        done = subprocess.run(
            [nft, "-c", "-f", "-"],
            input=nftables(plan, host),
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        assert done.returncode == 0, done.stderr


def test_an_mvp_site_opens_nothing_to_the_outside(tmp_path: Path) -> None:
    plan = _plan("mvp", tmp_path)
    members = [each.address for each in plan.hosts.values()]
    for host in plan.hosts.values():
        for flow in out_of(plan, host):
            assert flow.networks
            outside = [n for n in flow.networks if n.partition("/")[0] not in members]
            # Names and time only, from the servers that the site file names.
            assert not outside or (outside == ["10.20.0.1/32"] and flow.port in (53, 67, 123))
        text = nftables(plan, host)
        assert "hook output priority filter; policy drop;" in text
    assert "block drop out all" in pf_anchor(plan, plan.hosts["mac-a"])
    assert "block drop out all" not in pf_anchor(_plan("production", tmp_path), plan.hosts["mac-a"])


def test_an_address_that_is_a_name_is_let_in_by_its_certificate(tmp_path: Path) -> None:
    """A firewall that had to look it up would be missing whenever names are not served."""
    plan = on_hosts(load_site(PROJECT_ROOT / "configs" / "site.yaml"))
    assert 'tcp dport 5444 accept comment "the emergency copy: by certificate alone"' in nftables(
        plan, plan.hosts["edge-1"]
    )
    assert "hospital.internal" not in nftables(plan, plan.hosts["edge-1"])


def test_pf_blocks_first_and_every_rule_is_one_that_pf_knows(plan: Plan) -> None:
    """pf runs on macOS and BSD only: the shape is all that can be held here."""
    files = firewall_files(plan, plan.hosts["mac-a"])
    anchor, main = files.values()
    rules = [line for line in anchor.splitlines() if line and not line.startswith("#")]
    assert rules[:2] == ["pass quick on lo0 all", "block drop in all"]
    network = r"(any|\{ \d[\d./, ]* \})"
    shapes = (
        rf"pass in quick inet6? proto (tcp|udp|112) from {network} to any( port \d+)? keep state",
        r"pass out quick all keep state",
        r"pass in quick inet6? proto icmp6? icmp6?-type ([a-z]+|\{ [a-z, ]+ \})",
    )
    for rule in rules[2:]:
        assert any(re.fullmatch(shape, rule) for shape in shapes), rule
    path = next(iter(files))
    assert f'load anchor "medrec" from "{path}"' in main
    # What macOS itself puts in stays.
    assert 'load anchor "com.apple" from "/etc/pf.anchors/com.apple"' in main


_LISTEN = """
import socket, sys, time
for port in (8443, 9999):
    made = socket.create_server(("10.77.0.11", port)); globals()[f"s{port}"] = made
print("ready", flush=True)
time.sleep(30)
"""
_CONNECT = """
import socket, sys
source, target, port = sys.argv[1:]
try:
    socket.create_connection((target, int(port)), timeout=0.4, source_address=(source, 0))
except OSError as error:
    sys.exit(f"{type(error).__name__}")
"""


@ROOT_ONLY
def test_real_packets_pass_where_they_may_and_nowhere_else(tmp_path: Path) -> None:
    """Two namespaces: a cell, and a cable to an edge that has a stranger's address as well."""
    plan = _plan("mvp", tmp_path, "site-local.yaml")
    digest = uuid.uuid4().hex[:6]
    cell, other = f"fw{digest}-cell", f"fw{digest}-other"
    try:
        _run("ip", "netns", "add", cell)
        _run("ip", "netns", "add", other)
        words = ("type", "veth", "peer", "name", "eth0", "netns", other)
        _run("ip", "-n", cell, "link", "add", "eth0", *words)
        for space, addresses in ((cell, ["10.77.0.11"]), (other, ["10.77.0.21", "10.77.0.99"])):
            for address in addresses:
                _run("ip", "-n", space, "addr", "add", f"{address}/24", "dev", "eth0")
            _run("ip", "-n", space, "link", "set", "eth0", "up")
            _run("ip", "-n", space, "link", "set", "lo", "up")
        rules = tmp_path / "nftables.conf"
        rules.write_text(nftables(plan, plan.hosts["mac-a"]))
        for _ in range(2):  # Loaded again it replaces itself.
            _run("ip", "netns", "exec", cell, "nft", "-f", str(rules))
        listening = subprocess.Popen(
            ["ip", "netns", "exec", cell, sys.executable, "-c", _LISTEN], stdout=subprocess.PIPE
        )
        outside = subprocess.Popen(
            [
                *("ip", "netns", "exec", other, sys.executable, "-c"),
                _LISTEN.replace("10.77.0.11", "10.77.0.99"),
            ],
            stdout=subprocess.PIPE,
        )
        try:
            for each in (listening, outside):
                assert each.stdout is not None
                assert each.stdout.readline() == b"ready\n"
            assert _connects(other, "10.77.0.21", "10.77.0.11", 8443)
            assert not _connects(other, "10.77.0.99", "10.77.0.11", 8443)
            assert not _connects(other, "10.77.0.21", "10.77.0.11", 9999)
            # Outwards, to a port that a cell may open with another cell but not with a stranger.
            assert not _connects(cell, "10.77.0.11", "10.77.0.99", 8443)
        finally:
            for each in (listening, outside):
                each.kill()
                each.communicate()
    finally:
        for space in (cell, other):
            subprocess.run(["ip", "netns", "del", space], check=False, timeout=10)


def _connects(space: str, source: str, target: str, port: int) -> bool:
    line = ["ip", "netns", "exec", space, sys.executable, "-c", _CONNECT]
    done = subprocess.run(
        [*line, source, target, str(port)], capture_output=True, timeout=20, check=False
    )
    return done.returncode == 0


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, done.stderr
