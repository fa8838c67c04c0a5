"""Hosts in network namespaces: they reach each other, nothing else, and what they try is seen."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from configs.reader import PROJECT_ROOT
from configs.site import load_site
from deployments.site.ground import Namespaces, namespaces_are_possible

SITE = load_site(PROJECT_ROOT / "configs" / "site-local.yaml")


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Namespaces]:
    if not namespaces_are_possible():
        pytest.skip("network namespaces need root on Linux")
    made = Namespaces(SITE, tmp_path)
    made.prepare()
    try:
        yield made
    finally:
        made.remove()


def reaches(ground: Namespaces, host: str, address: str) -> bool:
    line = ground.command(host, ["ping", "-c1", "-W1", address], "root")
    return subprocess.run(line, capture_output=True, check=False).returncode == 0


def test_hosts_reach_each_other_until_one_is_cut_off_and_again_once_it_is_mended(
    ground: Namespaces,
) -> None:
    address = SITE.hosts["mac-b"].address
    assert reaches(ground, "mac-a", address)
    ground.cut("mac-b")
    assert not reaches(ground, "mac-a", address)
    ground.mend("mac-b")
    assert reaches(ground, "mac-a", address)


def test_whoever_tries_to_leave_the_site_gets_nowhere_and_is_seen(ground: Namespaces) -> None:
    assert reaches(ground, "edge-1", SITE.hosts["witness"].address)
    assert ground.strayed("edge-1") == []
    assert not reaches(ground, "edge-1", "192.0.2.7")
    assert ground.strayed("edge-1") == ["192.0.2.7"]
    assert ground.strayed("edge-2") == []


def test_hosts_know_each_other_by_name_without_asking_a_name_server(ground: Namespaces) -> None:
    look_up = "import socket, sys; print(socket.getfqdn(sys.argv[1]))"
    line = [sys.executable, "-c", look_up, SITE.hosts["mac-b"].address]
    found = subprocess.run(
        ground.command("mac-a", line, "root"), capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "mac-b"
    assert ground.strayed("mac-a") == []


def test_processes_are_known_by_their_host_and_namespaces_go_without_a_trace(
    ground: Namespaces,
) -> None:
    line = ground.command("witness", ["sleep", "30"], "medrec")
    process = subprocess.Popen(line)
    try:
        deadline = time.monotonic() + 10
        while ground.pids("witness") != {process.pid}:  # it has to get there first
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert ground.pids("mac-a") == set()
    finally:
        process.kill()
        process.wait()
    ground.remove()
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
    assert ground.name("witness") not in listed.stdout
    assert not (Path("/etc/netns") / ground.name("witness")).exists()
