"""`medrec site render`: every file of every host, at its path, with its mode, and an index."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
import yaml

from configs.reader import PROJECT_ROOT
from configs.site import load_site
from deployments.cell.state import Home
from deployments.site import here
from deployments.site.passwords import FILE, read_or_make
from deployments.site.plan import Plan, on_hosts
from deployments.site.render import Secrets, render
from deployments.site.trust.renewal import ensure_site
from serve_app.cli.site_render import run


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """configs/site.yaml with a backup."""
    text = (PROJECT_ROOT / "configs" / "site.yaml").read_text()
    file = tmp_path / "site.yaml"
    file.write_text(text.replace("cloud.yaml", "local.yaml") + "backup: {to: 's3://backups'}\n")
    return file


@pytest.fixture
def plan(site: Path) -> Plan:
    """Its plan."""
    return on_hosts(load_site(site))


@pytest.fixture
def secrets(plan: Plan, tmp_path: Path) -> Path:
    """A folder with the site's authority and passwords."""
    folder = tmp_path / "secrets"
    names: dict[str, list[str]] = {host.name: [] for host in plan.hosts.values()}
    ensure_site(folder / "ca", names, [plan.site.edge.public_name], site=plan.site.name)
    read_or_make(folder / FILE)
    return folder


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_without_secrets_none_is_written_and_the_index_says_what_is_missing(
    plan: Plan, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    written = render(plan, out)
    assert {path.relative_to(out).parts[0] for path in written} == {*plan.hosts, "monitoring"}
    assert set(written) == {path for path in out.rglob("*") if path.is_file()}
    for name in ("patroni.yml", "pgpass", "host.key", FILE):
        assert not list(out.rglob(name))
    index = (out / "mac-a" / "INSTALL.txt").read_text()
    assert "Not here, because there was no secret" in index
    assert "/opt/medical-record/home/site/patroni/patroni.yml" in index


def test_with_secrets_each_host_has_its_own_readable_by_its_owner_alone(
    plan: Plan, secrets: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    render(plan, out, Secrets.of(secrets))
    known = read_or_make(secrets / FILE)
    home = Path("opt/medical-record/home/site")
    for path in out.rglob("*"):
        if not path.is_file():
            continue
        text = path.read_text()
        is_secret = any(
            getattr(known, name) in text
            for name in ("superuser", "owner", "application", "replication", "rewind", "copy")
        )
        if is_secret or "PRIVATE KEY" in text:
            assert _mode(path) == 0o600, path
    mac = out / "mac-a" / home
    patroni = yaml.safe_load((mac / "patroni" / "patroni.yml").read_text())
    own = patroni["postgresql"]["parameters"]
    assert "deployments.data.backup.archive" in own["archive_command"]
    assert own["archive_command"].endswith(" %p %f")
    assert own["archive_timeout"] == "30s"
    assert patroni["restapi"]["certfile"] == "/opt/medical-record/home/site/tls/host.crt"
    assert (out / "edge-1" / home / "tls" / "edge.pem").exists()
    assert not (mac / "tls" / "edge.pem").exists()
    assert known.owner not in "".join(
        path.read_text() for path in (out / "edge-1").rglob("*") if path.is_file()
    )
    assert "Not here" not in (out / "mac-a" / "INSTALL.txt").read_text()
    assert "backup init --to s3://backups" in (out / "mac-a" / "INSTALL.txt").read_text()
    assert _mode(out / "edge-1" / home / "keepalived" / "check_haproxy.sh") == 0o755


def test_the_index_names_every_file_of_the_host(plan: Plan, secrets: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    render(plan, out, Secrets.of(secrets))
    for host in plan.hosts:
        index = (out / host / "INSTALL.txt").read_text()
        for path in (out / host).rglob("*"):
            if path.is_file() and path.name != "INSTALL.txt":
                assert f" /{path.relative_to(out / host)}\n" in index


def test_each_hosts_files_are_those_of_its_role_and_system(plan: Plan, tmp_path: Path) -> None:
    out = tmp_path / "out"
    render(plan, out)

    def names(host: str) -> set[str]:
        return {path.name for path in (out / host).rglob("*") if path.is_file()}

    assert {"haproxy.cfg", "etcd.yml", "keepalived.conf", "nftables.conf"} <= names("edge-1")
    assert {"cell.yaml", "pf.conf", "org.medrec.patroni.plist", "handover.sh"} <= names("mac-b")
    assert {"cell.yaml", "medrec-cell.service", "haproxy.cfg"} <= names("cloud")
    assert {"etcd.yml", "medrec-etcd.service"} <= names("witness")
    assert not {"haproxy.cfg", "cell.yaml"} & names("witness")
    assert not any(name.endswith(".service") for name in names("mac-a"))


def test_a_host_knows_its_site_and_itself_by_the_files(plan: Plan, tmp_path: Path) -> None:
    """What commands on the host read, steward and handover among them."""
    out = tmp_path / "out"
    render(plan, out)
    found = here.find(Home(out / "mac-b" / "opt/medical-record/home"))
    assert found.host.name == "mac-b"
    assert found.plan == plan


def test_the_command_makes_passwords_once_and_says_where_to_start(
    site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, secrets = tmp_path / "out", tmp_path / "new"
    run(site, out, secrets)
    first = (secrets / FILE).read_bytes()
    assert _mode(secrets / FILE) == 0o600
    run(site, out, secrets)
    assert (secrets / FILE).read_bytes() == first
    said = capsys.readouterr().out
    assert f"start with {out / 'edge-1' / 'INSTALL.txt'}" in said
    assert first.decode().split('"')[3] not in said
