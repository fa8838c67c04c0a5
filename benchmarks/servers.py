"""The servers that are compared: started for their turn, ready at the first answer, then gone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from benchmarks.credentials import demo_key
from benchmarks.machine import PROJECT_ROOT
from benchmarks.targets import Target
from benchmarks.wire import ChatClient

STOP_TIMEOUT_S = 90.0
_PROBE = [{"role": "user", "content": "Caso 0. Qual é a pressão arterial normal?"}]


class ServerFailed(RuntimeError):
    """A server did not start in time, or ended by itself. The message holds none of its output."""


class Server(Protocol):
    """One side of a comparison."""

    name: str
    model: str

    async def start(self) -> Target:
        """Brings the server up until it has answered; raises `ServerFailed`."""

    async def stop(self) -> None:
        """Returns when no process of the server is left."""


@dataclass(frozen=True, slots=True)
class PeerFlags:
    """How mlx_lm.server is run: BLAS threads, and how many sequences decode and prefill at once."""

    threads: int
    decode_concurrency: int = 32
    prompt_concurrency: int = 8

    def command(self, model: Path, port: int) -> list[str]:
        """The command line; nothing is logged, which saves the peer time."""
        return [
            *(sys.executable, "-m", "benchmarks.peer_launcher", str(self.threads)),
            *("--model", str(model), "--host", "127.0.0.1", "--port", str(port)),
            *("--decode-concurrency", str(self.decode_concurrency)),
            *("--prompt-concurrency", str(self.prompt_concurrency)),
            *("--log-level", "ERROR"),
        ]


class ProcessServer:
    """A server in a process group of its own, which ends with it."""

    name = ""
    model = ""
    start_timeout_s = 120.0
    stop_signal = signal.SIGTERM

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def command(self, port: int) -> list[str]:
        raise NotImplementedError

    def environment(self, port: int) -> dict[str, str]:
        return {**os.environ, "HF_HUB_OFFLINE": "1"}

    async def start(self) -> Target:
        port = free_port()
        self._process = self._spawn(port)
        try:
            return await self._answering(port)
        except BaseException:
            await self.stop()
            raise

    def api_key(self) -> str:
        """The key that the server wants now; a server may make it while it starts."""
        return ""

    def _spawn(self, port: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self.command(port),
            cwd=PROJECT_ROOT,
            env=self.environment(port),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    async def _answering(self, port: int) -> Target:
        """The server, once it has answered a chat."""
        assert self._process is not None
        give_up_at = time.perf_counter() + self.start_timeout_s
        while time.perf_counter() < give_up_at:
            if (code := self._process.poll()) is not None:
                raise ServerFailed(f"{self.name} ended with exit code {code} while starting")
            target = Target("127.0.0.1", port, api_key=self.api_key())
            client = ChatClient(target, self.model, timeout_s=30.0)
            try:
                request = client.encode(_PROBE, max_tokens=2)
                if (await client.chat(request, time.perf_counter())).is_complete:
                    return target
            finally:
                client.close()
            await asyncio.sleep(0.5)
        raise ServerFailed(f"{self.name} gave no answer within {self.start_timeout_s:.0f} s")

    async def stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(self.stop_signal)
        try:
            await asyncio.to_thread(process.wait, STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            pass
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await asyncio.to_thread(process.wait, 10)


class Peer(ProcessServer):
    """mlx_lm.server on a model folder."""

    name = "mlx_lm.server"
    model = "default_model"

    def __init__(self, folder: Path, flags: PeerFlags) -> None:
        super().__init__()
        self.folder = folder
        self.flags = flags

    def command(self, port: int) -> list[str]:
        return self.flags.command(self.folder, port)


class Platform(ProcessServer):
    """This project's platform, as `medrec up` starts it from a config file."""

    name = "medical-record"
    start_timeout_s = 240.0
    stop_signal = signal.SIGINT

    def __init__(self, config: Path, model: str, home: Path) -> None:
        super().__init__()
        self.config = config
        self.model = model
        self.home = home

    def command(self, port: int) -> list[str]:
        up = [sys.executable, "-m", "serve_app.cli", "up", "--port-offset", "auto"]
        return [*up, "--config", str(self.config)]

    def environment(self, port: int) -> dict[str, str]:
        """A home and ports of its own, so that a cell that runs already is left alone."""
        return {**super().environment(port), "PORT": str(port), "MEDREC_HOME": str(self.home)}

    def api_key(self) -> str:
        """The demo key of its home, which the first start makes."""
        return demo_key(self.home)


class Running:
    """A server that somebody else started and stops."""

    name = "running"

    def __init__(self, target: Target, model: str) -> None:
        self.target = target
        self.model = model

    async def start(self) -> Target:
        return self.target

    async def stop(self) -> None:
        return None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
