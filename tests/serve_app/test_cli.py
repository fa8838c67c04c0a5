"""`medrec` refuses, with a message and exit status 1, before anything starts."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner

from serve_app.cli import app
from tests.conftest import LOCAL, medrec


def test_a_config_that_is_wrong_is_refused_before_anything_exists(tmp_path: Path) -> None:
    file = tmp_path / "site.yaml"
    file.write_text(LOCAL.read_text().replace("cpu: 0.32", "cpu: 99"))
    done = medrec("up", "--config", str(file), home=tmp_path / "home")
    assert done.returncode == 1
    assert done.stderr.startswith(f"medrec: {file}: applications[0].args.language[0].resources.cpu")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "home").exists()


def test_a_port_that_is_taken_is_named_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        done = medrec(
            *("up", "--port-offset", "auto"), home=tmp_path / "home", variables={"PORT": str(port)}
        )
    assert done.returncode == 1
    assert f"port {port} (public) is taken" in done.stderr
    assert not (tmp_path / "home" / "run" / "state.json").exists()


@pytest.mark.parametrize("port", ["eight", "0", "70000"])
def test_a_port_that_is_none_is_refused(tmp_path: Path, port: str) -> None:
    done = medrec("up", home=tmp_path / "home", variables={"PORT": port})
    assert done.returncode == 1
    assert "PORT" in done.stderr


def test_status_of_no_cell_says_so_with_status_3(tmp_path: Path) -> None:
    done = medrec("status", "--json", home=tmp_path)
    assert done.returncode == 3
    assert json.loads(done.stdout) == {"running": False, "home": str(tmp_path)}


def test_down_without_a_cell_is_no_error(tmp_path: Path) -> None:
    done = medrec("down", home=tmp_path)
    assert done.returncode == 0
    assert done.stdout == f"no cell runs in {tmp_path}\n"


def test_serve_without_a_cell_is_refused(tmp_path: Path) -> None:
    done = medrec("serve", str(LOCAL), home=tmp_path)
    assert done.returncode == 1
    assert "no cell runs" in done.stderr


def test_ray_start_only_prints_when_told_so(tmp_path: Path) -> None:
    done = medrec("ray", "start", "--print", "--port-offset", "2000", home=tmp_path)
    assert done.returncode == 0
    assert "export RAY_AUTH_MODE=token\n" in done.stdout
    assert "--dashboard-port=10265" in done.stdout
    assert "ai_memory_mb" in done.stdout
    assert not (tmp_path / "run" / "state.json").exists()


def test_every_command_explains_itself() -> None:
    shown = CliRunner().invoke(app, ["--help"])
    assert shown.exit_code == 0
    for command in app.registered_commands:
        assert command.callback is not None
        assert command.callback.__doc__
        assert command.callback.__name__ in shown.stdout
