"""How Ray is started: with budgets, token, and ports of its own."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from configs.budgets import ray_resources, scaled
from configs.machine import machine
from deployments.cell import head
from deployments.cell.ports import Ports
from deployments.cell.state import CellError, Home

PORTS = Ports().shifted(3000)


def options(line: list[str]) -> dict[str, str]:
    return dict(part[2:].split("=", 1) for part in line if part.startswith("--") and "=" in part)


def test_ray_gets_the_budgets_as_custom_resources(tmp_path: Path) -> None:
    given = options(head.command(PORTS, tmp_path))
    assert json.loads(given["resources"]) == ray_resources(scaled(machine()))
    assert given["num-gpus"] == "0"


def test_every_port_of_the_cell_is_given_to_ray_or_serve(tmp_path: Path) -> None:
    text = " ".join(head.command(PORTS, tmp_path)) + str(head.environment(Home(tmp_path), PORTS))
    ours = dict(PORTS.singles())
    del ours["public"], ours["serve"]  # HAProxy's, and the config's
    assert not [name for name, port in ours.items() if str(port) not in text]
    assert str(PORTS.ingress_first) in text
    assert str(PORTS.worker_last) in text


def test_authentication_is_on_and_the_dashboard_on_the_loopback(tmp_path: Path) -> None:
    variables = head.environment(Home(tmp_path), PORTS)
    assert variables["RAY_AUTH_MODE"] == "token"
    assert variables["RAY_AUTH_TOKEN_PATH"] == str(tmp_path / "auth_token")
    assert options(head.command(PORTS, tmp_path))["dashboard-host"] == "127.0.0.1"


def test_the_shell_lines_say_the_same_as_the_command(tmp_path: Path) -> None:
    variables = {"A": "with space", "B": "plain"}
    line = head.command(PORTS, tmp_path / "with space")
    *exports, start = head.shell_lines(variables, line).split("\nray start", 1)
    assert shlex.split(exports[0]) == ["export", "A=with space", "export", "B=plain"]
    assert shlex.split("ray start" + start.replace("\\\n", "")) == line


def test_rays_folder_is_short_and_one_for_each_home(tmp_path: Path) -> None:
    first, second = head.ray_dir(Home(tmp_path / "a")), head.ray_dir(Home(tmp_path / "b"))
    assert first != second
    assert len(str(first).encode()) < 40 or not str(first).startswith("/tmp/")


def test_old_sessions_go_and_the_last_stays(tmp_path: Path) -> None:
    for name in ("session_2026-01-01_x", "session_2026-01-02_x"):
        (tmp_path / name).mkdir()
    head.prepare_ray_dir(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["session_2026-01-02_x"]


def test_a_folder_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(CellError, match="belongs to somebody else"):
        head.prepare_ray_dir(tmp_path / "link")
