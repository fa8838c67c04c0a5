"""Calls from host to host: HTTPS with the host's certificate, the other's name checked in its own."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import httpx

from deployments.site.plan import HostPlan


class CallFailed(Exception):
    """The other host does not answer, or says no; the words are fit for an operator."""


def context(tls: Path) -> ssl.SSLContext:
    """TLS 1.3 as the host whose certificates lie in `tls`."""
    made = ssl.create_default_context(cafile=str(tls / "ca.crt"))
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.load_cert_chain(str(tls / "host.crt"), str(tls / "host.key"))
    return made


class Caller:
    """One host's way to the others, for one event loop."""

    def __init__(self, tls: Path) -> None:
        self._client = httpx.AsyncClient(verify=context(tls), trust_env=False, timeout=5.0)

    async def close(self) -> None:
        """Give up the connections."""
        await self._client.aclose()

    async def ask(
        self,
        host: HostPlan,
        port: int,
        path: str,
        *,
        timeout_s: float,
        body: Any = None,
        permitted: tuple[int, ...] = (200,),
    ) -> Any:
        """The JSON that the host answers: GET, or POST with a `body`. Raises `CallFailed`."""
        answer = await self._send(host, port, path, body=body, timeout_s=timeout_s)
        try:
            found = answer.json() if answer.content else None
        except ValueError as error:
            raise CallFailed(f"{host.name} answers no JSON") from error
        if answer.status_code not in permitted:
            raise CallFailed(f"{host.name} answers {answer.status_code}: {_words(found)}")
        return found

    async def post_text(
        self, host: HostPlan, port: int, path: str, body: Any, *, timeout_s: float
    ) -> str:
        """POST to something that answers in words, as Patroni does. Raises `CallFailed`."""
        answer = await self._send(host, port, path, body=body, timeout_s=timeout_s)
        if answer.status_code not in (200, 202):
            raise CallFailed(f"{host.name} answers {answer.status_code}: {answer.text.strip()}")
        return answer.text.strip()

    async def _send(
        self, host: HostPlan, port: int, path: str, *, body: Any, timeout_s: float
    ) -> httpx.Response:
        try:
            request = self._client.build_request(
                "GET" if body is None else "POST",
                f"https://{host.address}:{port}{path}",
                json=body,
                timeout=timeout_s,
                # Addresses differ between grounds; the certificate names the host.
                extensions={"sni_hostname": host.name},
                headers={"host": host.name},
            )
            return await self._client.send(request)
        except (httpx.HTTPError, OSError) as error:
            raise CallFailed(f"{host.name} does not answer: {type(error).__name__}") from error


def _words(found: Any) -> str:
    if isinstance(found, dict):
        for key in ("detail", "reason", "message"):
            if isinstance(found.get(key), str):
                return str(found[key])
    return "no reason given"
