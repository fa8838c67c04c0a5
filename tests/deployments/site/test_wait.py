"""What launchd has no order for: a program starts when what it needs is there."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading

import pytest

from configs.reader import PROJECT_ROOT
from deployments.data.postgres import LocalServer
from deployments.site.wait import is_there, main


def _answering(answer: bytes) -> socket.socket:
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(8)
            connection.sendall(answer)

    threading.Thread(target=serve, daemon=True).start()
    return listener


@pytest.mark.parametrize(
    ("answer", "there"), [(b"N", True), (b"S", True), (b"HTTP", False), (b"", False)]
)
def test_a_postgresql_is_known_by_its_answer(answer: bytes, there: bool) -> None:
    """A proxy takes connections before there is a server behind it."""
    with _answering(answer) as listener:
        assert is_there(f"postgres:127.0.0.1:{listener.getsockname()[1]}") == there


def test_a_real_postgresql_gives_that_answer(postgres: LocalServer) -> None:
    """The fixture's server has no TCP: its socket is asked the same question."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(postgres.sockets / ".s.PGSQL.5432"))
        connection.sendall(b"\x00\x00\x00\x08\x04\xd2\x16\x2f")
        assert connection.recv(1) == b"N"


def test_an_address_is_there_once_it_can_be_bound() -> None:
    assert is_there("address:127.0.0.1")
    assert not is_there("address:192.0.2.1")


def test_the_command_runs_when_the_need_is_met() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        need = f"tcp:127.0.0.1:{taken.getsockname()[1]}"
        line = [sys.executable, "-m", "deployments.site.wait", need, "--", "/bin/echo", "begun"]
        waiting = subprocess.Popen(
            line,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(PROJECT_ROOT)},
            cwd=PROJECT_ROOT,
        )
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.communicate(timeout=1.0)
        taken.listen()
        said, _ = waiting.communicate(timeout=10)
    assert said == b"begun\n"
    assert waiting.returncode == 0


def test_a_need_that_does_not_come_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        need = f"tcp:127.0.0.1:{taken.getsockname()[1]}"
        assert main([need], longest_s=0.1, every_s=0.05) == 1
    assert f"{need} was not there within 0.1 s" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["tcp:127.0.0.1"], ["udp:127.0.0.1:1"], ["address:x", "--"]])
def test_misuse_is_told(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert "usage: wait" in capsys.readouterr().err
