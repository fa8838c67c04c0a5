"""keepalived accepts its files; the check tells a frozen HAProxy from one that answers."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from configs.reader import PROJECT_ROOT
from configs.site import Site, load_site
from deployments.cell.state import CellError
from deployments.site.keepalived import CHECK, keepalived_files
from deployments.site.plan import Plan, on_hosts, on_this_machine, program
from deployments.site.templates import filled


def _site(file: str, folder: Path, **changed: str) -> Site:
    text = (PROJECT_ROOT / "configs" / file).read_text()
    for key, value in changed.items():
        text = text.replace("role: edge,", f"role: edge, {key}: {value},")
    (folder / "site.yaml").write_text(text)
    return load_site(folder / "site.yaml")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """pytest's own folder is closed to other accounts."""
    with tempfile.TemporaryDirectory(prefix="medrec-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def _written(plan: Plan, name: str) -> Path:
    for path, text in keepalived_files(plan, plan.hosts[name]).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755 if path.name == CHECK else 0o644)
    return plan.hosts[name].keepalived_config


@pytest.mark.parametrize("ground", ["hosts", "namespaces"])
@pytest.mark.parametrize("name", ["edge-1", "edge-2"])
def test_keepalived_accepts_the_file(ground: str, name: str, open_folder: Path) -> None:
    try:
        keepalived = program("keepalived")
    except CellError:
        pytest.skip("keepalived is not installed")
    if ground == "hosts":
        # An account that this machine has.
        site = _site("site.yaml", open_folder, user="nobody", home=str(open_folder / name))
        plan, complaints = on_hosts(site), ""
    else:
        plan = on_this_machine(_site("site-local.yaml", open_folder), open_folder, "namespaces")
        # Below a temporary folder no script can be root's alone; it runs nevertheless.
        complaints = (
            "SECURITY VIOLATION - scripts are being executed but script_security not enabled."
        )
    config = _written(plan, name)
    line = [keepalived, "--config-test", "--use-file", str(config)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=20, check=False)
    assert done.stderr.strip() == complaints
    config.write_text(config.read_text().replace("advert_int", "advert_interval"))
    done = subprocess.run(line, capture_output=True, text=True, timeout=20, check=False)
    assert "Unknown keyword 'advert_interval'" in done.stderr


def test_both_edges_wait_and_keep_the_address_once_they_have_it() -> None:
    plan = on_hosts(load_site(PROJECT_ROOT / "configs" / "site.yaml"))
    one, two = (
        keepalived_files(plan, edge)[edge.keepalived_config].splitlines() for edge in plan.edges
    )
    for lines in (one, two):
        assert {"    state BACKUP", "    nopreempt", "    advert_int 0.5"} <= set(lines)
        assert "        10.20.0.10/24 dev eth0" in lines
    assert {"    priority 150", "    unicast_src_ip 10.20.0.21", "        10.20.0.22"} <= set(one)
    assert {"    priority 100", "    unicast_src_ip 10.20.0.22", "        10.20.0.21"} <= set(two)


def test_only_an_edge_that_shares_an_address_has_files(tmp_path: Path) -> None:
    text = (PROJECT_ROOT / "configs" / "site.yaml").read_text()
    (tmp_path / "site.yaml").write_text(text.replace("  address: 10.20.0.10/24\n", ""))
    plan = on_hosts(load_site(tmp_path / "site.yaml"))
    assert keepalived_files(plan, plan.hosts["edge-1"]) == {}
    with pytest.raises(ValueError, match="mac-a runs no keepalived"):
        keepalived_files(plan, plan.hosts["mac-a"])


@pytest.mark.parametrize(
    ("answer", "passes"),
    [
        (b"HTTP/1.1 308 Permanent Redirect\r\n\r\n", True),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", False),
        (b"", False),
    ],
)
def test_the_check_passes_for_an_answer_alone(answer: bytes, passes: bool, tmp_path: Path) -> None:
    """An empty answer stands for a frozen process: the kernel takes the connection, nobody answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        if answer:
            threading.Thread(target=_answer, args=(listener, answer), daemon=True).start()
        assert (_checked(port, tmp_path) == 0) == passes


def test_the_check_fails_where_nobody_listens(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        assert _checked(taken.getsockname()[1], tmp_path) != 0


@pytest.mark.parametrize(("age_s", "passes"), [(0.0, False), (60.0, True)])
def test_the_check_fails_while_the_steward_gives_the_address_up(
    age_s: float, passes: bool, tmp_path: Path
) -> None:
    (tmp_path / "gives-up").touch()
    os.utime(tmp_path / "gives-up", (time.time() - age_s,) * 2)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        answer = b"HTTP/1.1 308 Permanent Redirect\r\n\r\n"
        threading.Thread(target=_answer, args=(listener, answer), daemon=True).start()
        assert (_checked(listener.getsockname()[1], tmp_path) == 0) == passes
        socket.create_connection(listener.getsockname()).close()


def _answer(listener: socket.socket, answer: bytes) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.recv(1024)
        connection.sendall(answer)


def _checked(port: int, folder: Path) -> int:
    script = folder / CHECK
    gives_up = folder / "gives-up"
    script.write_text(
        filled("check_haproxy.sh.j2", address="127.0.0.1", port=port, gives_up=gives_up)
    )
    script.chmod(0o755)
    return subprocess.run([script], capture_output=True, timeout=10, check=False).returncode
