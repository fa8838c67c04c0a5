"""Patroni's and etcd's files as text; that they run is shown in test_database_failover.py."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from configs.reader import PROJECT_ROOT
from configs.site import load_site
from deployments.cell.state import CellError
from deployments.data import postgres_account
from deployments.data.durable import replace_file
from deployments.site import passwords
from deployments.site.etcd import etcd_config
from deployments.site.passwords import FILE, Passwords
from deployments.site.patroni import patroni_config, pgpass
from deployments.site.patroni_files import put
from deployments.site.plan import Plan, on_hosts, on_this_machine
from tests.deployments.site.authority import certify

SECRETS = Passwords("s-1", "o-2", "a-3", "r-4", "w-5", "c-6")


@pytest.fixture
def real() -> Plan:
    """The plan of configs/site.yaml."""
    return on_hosts(load_site(PROJECT_ROOT / "configs" / "site.yaml"))


def _patroni(plan: Plan, name: str, **words: Any) -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load(patroni_config(plan, plan.hosts[name], SECRETS, **words))
    return read


def test_etcd_asks_every_client_and_member_for_a_certificate(real: Plan) -> None:
    witness = yaml.safe_load(etcd_config(real, real.hosts["witness"]))
    assert witness["client-transport-security"]["client-cert-auth"]
    assert witness["peer-transport-security"]["client-cert-auth"]
    assert witness["initial-cluster"] == (
        "edge-1=https://10.20.0.21:2380,edge-2=https://10.20.0.22:2380,"
        "witness=https://10.20.0.23:2380"
    )
    assert witness["listen-client-urls"] == "https://10.20.0.23:2379"
    assert witness["strict-reconfig-check"]
    with pytest.raises(ValueError, match="mac-a runs no etcd"):
        etcd_config(real, real.hosts["mac-a"])


def test_patroni_has_the_settings_of_the_site_file(real: Plan) -> None:
    found = _patroni(real, "mac-a")
    dcs = found["bootstrap"]["dcs"]
    assert (dcs["ttl"], dcs["loop_wait"], dcs["retry_timeout"]) == (20, 3, 5)
    assert dcs["primary_start_timeout"] == 10
    assert (dcs["synchronous_mode"], dcs["synchronous_mode_strict"]) == (True, False)
    assert dcs["failsafe_mode"]
    assert dcs["postgresql"]["use_pg_rewind"]
    assert "data-checksums" in found["bootstrap"]["initdb"]
    assert found["restapi"]["verify_client"] == "required"
    assert found["restapi"]["allowlist"] == [
        "10.20.0.11", "10.20.0.12", "10.20.0.21", "10.20.0.22", "127.0.0.1",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="edge-1 runs no Patroni"):
        patroni_config(real, real.hosts["edge-1"], SECRETS)


def test_each_postgresql_is_known_by_one_address_on_every_host(real: Plan) -> None:
    addresses = []
    for host in real.cells:
        found = _patroni(real, host.name)["postgresql"]
        assert found["listen"] == found["connect_address"]
        addresses.append(found["connect_address"])
    assert addresses == ["127.0.0.1:15432", "127.0.0.1:15433"]


def test_what_members_must_have_alike_is_in_the_part_that_etcd_keeps(real: Plan) -> None:
    found = _patroni(
        real,
        "mac-b",
        archive={"archive_mode": "on", "archive_command": "true %p"},
        parameters={"max_worker_processes": "12"},
        slots={"copy": {"type": "logical", "database": "medrec", "plugin": "pgoutput"}},
    )
    shared = found["bootstrap"]["dcs"]["postgresql"]["parameters"]
    own = found["postgresql"]["parameters"]
    assert shared["wal_level"] == "logical"
    assert shared["max_worker_processes"] == "12"
    assert own["archive_command"] == "true %p"
    assert not shared.keys() & own.keys()
    assert found["bootstrap"]["dcs"]["slots"]["copy"]["plugin"] == "pgoutput"
    # Of the Mac Studio's data node, not of the machine that renders.
    assert own["shared_buffers"] == "12800MB"


def test_archiving_never_lowers_the_level_that_the_emergency_copy_needs(real: Plan) -> None:
    found = _patroni(real, "mac-a", archive={"archive_mode": "on", "wal_level": "replica"})
    assert found["bootstrap"]["dcs"]["postgresql"]["parameters"]["wal_level"] == "logical"


def test_a_single_cell_is_synchronous_as_soon_as_there_is_a_second(tmp_path: Path) -> None:
    text = (PROJECT_ROOT / "configs" / "site-local.yaml").read_text()
    file = tmp_path / "site.yaml"
    file.write_text(text.replace("preset: production", "preset: single"))
    plan = on_this_machine(load_site(file), tmp_path, "loopback")
    assert [host.name for host in plan.cells] == ["mac-a"]
    dcs = _patroni(plan, "mac-a")["bootstrap"]["dcs"]
    assert (dcs["synchronous_mode"], dcs["synchronous_mode_strict"]) == (True, False)


def test_a_host_has_the_passwords_of_its_own_roles_only(real: Plan) -> None:
    assert pgpass(real, real.hosts["mac-b"], SECRETS) == (
        "127.0.0.1:*:*:medrec_app:a-3\n127.0.0.1:*:*:medrec_owner:o-2\n"
    )
    assert pgpass(real, real.hosts["cloud"], SECRETS) == "127.0.0.1:*:*:medrec_copy:c-6\n"
    assert pgpass(real, real.hosts["edge-1"], SECRETS) == ""


def test_passwords_are_made_once_and_shown_nowhere(tmp_path: Path) -> None:
    file = tmp_path / FILE
    made = passwords.read_or_make(file)
    assert passwords.read_or_make(file) == made
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert made.owner not in repr(made)
    assert len({made.of(role) for role in ("medrec_owner", "medrec_app", "postgres")}) == 3
    file.write_text('{"owner": "x"}')
    with pytest.raises(CellError, match="cannot be read"):
        passwords.read(file)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """pytest's own folder is closed to other accounts by every session that starts."""
    with tempfile.TemporaryDirectory(prefix="medrec-") as name:
        yield Path(name).resolve()


def test_patroni_validates_the_rendered_file_as_its_own_account(open_folder: Path) -> None:
    """It finds two things: etcd is not there yet, and servers are known by an address of the loopback,
    where the tunnels of the other hosts end."""
    site = load_site(PROJECT_ROOT / "configs" / "site-local.yaml")
    plan = on_this_machine(site, open_folder, "loopback", base=19_200)
    certify(plan, open_folder / "ca")
    host = plan.cells[0]
    put(plan, host, patroni_config(plan, host, SECRETS), SECRETS)
    replace_file(host.passfile, b"")
    done = subprocess.run(
        [sys.executable, "-m", "patroni", "--validate-config", str(host.patroni_config)],
        env={"PATH": os.defpath},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **postgres_account.identity(),
    )
    told = (done.stdout + done.stderr).splitlines()
    assert any(line.startswith("etcd3.hosts.0") for line in told), told
    for line in filter(None, told):
        assert line.endswith("is not reachable") or line.split()[:2] in (
            ["restapi.connect_address", f"127.0.0.1:{host.ports.patroni}"],
            ["postgresql.connect_address", f"127.0.0.1:{host.ports.postgres}"],
        )
    folder = host.patroni_config.parent
    for file in (folder, host.patroni_config, folder / FILE, folder / "tls" / "host.key"):
        assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0
