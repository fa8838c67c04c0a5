"""The steady load of a drill: reads, acknowledged writes, chats, a WebSocket, each at its own pace.

A client here does what docs/http.md asks of every client: it repeats a write with the same key, a chat
that closed without `[DONE]`, and reconnects a WebSocket. Everything else that fails has failed.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import websockets

from deployments.edge.drills.outcome import Kind, Outcome

DEADLINE_S = 35.0
# As docs/http.md asks: a first packet that nobody took is sent again by the system after 1 and 3 s.
_CONNECT_S = 5.0
# An edge that is lost says no goodbye: who has sent everything and waits is told by a probe alone.
_KEEPALIVE = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *(
        (socket.IPPROTO_TCP, getattr(socket, name), value)
        for name, value in (("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 2), ("TCP_KEEPCNT", 3))
        if hasattr(socket, name)
    ),
]
_REPEAT_S = 0.25
_AGAIN = (429, 502, 503, 504)
IDENTIFIER = "urn:medical-record:drill"


@dataclass(frozen=True, slots=True)
class Target:
    """Where the load goes. `address`: what `public_url`'s host name stands for."""

    public_url: str
    address: str
    api_key: str = field(repr=False)
    tls: ssl.SSLContext = field(repr=False)
    model: str = "gemma3-demo"

    @property
    def host(self) -> str:
        """The name that the certificate must have."""
        return httpx.URL(self.public_url).host

    @property
    def port(self) -> int:
        """The port of HTTPS."""
        return httpx.URL(self.public_url).port or 443


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds between two requests of a kind, and how many may be under way; 0.0: none."""

    plain_s: float = 0.1
    record_s: float = 0.5
    write_s: float = 0.5
    chat_s: float = 2.0
    mode_s: float = 0.0
    with_socket: bool = True
    most: int = 64


class Load:
    """A running load, for one event loop. `outcomes` grows; `acknowledged` maps key to id."""

    def __init__(
        self, target: Target, pace: Pace, patient: str, *, mode: str = "emergency"
    ) -> None:
        self.target, self.pace, self.patient = target, pace, patient
        self.outcomes: list[Outcome] = []
        self.acknowledged: dict[str, str] = {}
        self._mode = mode
        self._tasks: set[asyncio.Task[None]] = set()
        self._loops: list[asyncio.Task[None]] = []
        self._client = client_of(target)

    @property
    def kinds(self) -> list[Kind]:
        """What is sent to a site that is well; `mode` waits for another mode."""
        pace = self.pace
        every: list[tuple[Kind, bool]] = [
            ("plain", pace.plain_s > 0),
            ("record", pace.record_s > 0),
            ("write", pace.write_s > 0),
            ("chat", pace.chat_s > 0),
            ("socket", pace.with_socket),
        ]
        return [kind for kind, is_sent in every if is_sent]

    def start(self) -> None:
        """Begin to send."""
        kinds: list[tuple[float, Kind, Callable[[], Awaitable[tuple[int, str]]]]] = [
            (self.pace.plain_s, "plain", self._plain),
            (self.pace.record_s, "record", self._record),
            (self.pace.write_s, "write", self._write),
            (self.pace.chat_s, "chat", self._chat),
            (self.pace.mode_s, "mode", self._asked_mode),
        ]
        self._loops = [
            asyncio.create_task(self._keep_sending(every_s, kind, send))
            for every_s, kind, send in kinds
            if every_s > 0
        ]
        if self.pace.with_socket:
            self._loops.append(asyncio.create_task(self._keep_connected()))

    async def stop(self) -> None:
        """Send nothing more and wait for what is under way, its deadline at most."""
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.aclose()

    async def _keep_sending(
        self, every_s: float, kind: Kind, send: Callable[[], Awaitable[tuple[int, str]]]
    ) -> None:
        under_way: set[asyncio.Task[None]] = set()
        due = time.monotonic()
        while True:
            # What a load that had no processor has missed is not sent all at once.
            due = max(due + every_s, time.monotonic())
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            if len(under_way) < self.pace.most:
                task = asyncio.create_task(self._once(kind, send))
                for tasks in (under_way, self._tasks):
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)

    async def _once(self, kind: Kind, send: Callable[[], Awaitable[tuple[int, str]]]) -> None:
        began = time.monotonic()
        attempts, detail = 0, ""
        try:
            async with asyncio.timeout(DEADLINE_S):
                attempts, detail = await send()
            result = "failed" if detail else "ok"
        except TimeoutError:
            result = "hung"
        except httpx.TransportError as error:
            # Its words are about the connection: whether an answer had begun, say.
            result, detail = "failed", f"{type(error).__name__}: {error}".removesuffix(": ")
        except (httpx.HTTPError, OSError, ValueError, KeyError) as error:
            result, detail = "failed", type(error).__name__
        ended = time.monotonic()
        self.outcomes.append(Outcome(kind, began, ended, result, attempts, detail))  # type: ignore[arg-type]

    async def _plain(self) -> tuple[int, str]:
        answer = await self._client.get("/v1/models")
        return 1, "" if answer.status_code == 200 else str(answer.status_code)

    async def _record(self) -> tuple[int, str]:
        answer = await self._client.get(f"/fhir/Patient/{self.patient}")
        return 1, "" if answer.status_code == 200 else str(answer.status_code)

    async def _asked_mode(self) -> tuple[int, str]:
        answer = await self._client.get("/v1/mode")
        if answer.status_code != 200:
            return 1, str(answer.status_code)
        return 1, "" if answer.json()["mode"] == self._mode else "other mode"

    async def _write(self) -> tuple[int, str]:
        """One observation, until it is acknowledged."""
        key, attempts = uuid.uuid4().hex, 0
        headers = {"content-type": "application/fhir+json", "idempotency-key": key}
        body = json.dumps(observation(self.patient, key))
        while True:
            attempts += 1
            try:
                answer = await self._client.post("/fhir/Observation", content=body, headers=headers)
            except httpx.TransportError:
                await asyncio.sleep(_REPEAT_S)
                continue
            if answer.status_code in (200, 201):
                self.acknowledged[key] = answer.headers["location"]
                return attempts, ""
            if answer.status_code not in _AGAIN:
                return attempts, str(answer.status_code)
            await asyncio.sleep(_REPEAT_S)

    async def _chat(self) -> tuple[int, str]:
        """One short answer, until it ends with `[DONE]`."""
        attempts = 0
        body = {
            "model": self.target.model,
            "stream": True,
            "temperature": 0,
            "max_tokens": 12,
            "messages": [{"role": "user", "content": "Is a heart rate of 128 bpm normal?"}],
        }
        while True:
            attempts += 1
            try:
                async with self._client.stream("POST", "/v1/chat/completions", json=body) as answer:
                    if answer.status_code == 200:
                        async for line in answer.aiter_lines():
                            if line == "data: [DONE]":
                                return attempts, ""
                    elif answer.status_code not in _AGAIN:
                        return attempts, str(answer.status_code)
            except httpx.TransportError:
                pass
            await asyncio.sleep(_REPEAT_S)

    async def _keep_connected(self) -> None:
        """A WebSocket; each time that it is lost, how long until it is there again."""
        target = self.target
        lost = time.monotonic()
        attempts = 0
        while True:
            attempts += 1
            try:
                async with websockets.connect(
                    f"wss://{target.host}:{target.port}/v1/alerts/stream",
                    host=target.address,
                    port=target.port,
                    ssl=target.tls,
                    additional_headers={"authorization": f"Bearer {target.api_key}"},
                    open_timeout=2,
                    ping_interval=1,
                    ping_timeout=2,
                    close_timeout=0.5,
                    proxy=None,
                ) as socket:
                    now = time.monotonic()
                    self.outcomes.append(Outcome("socket", lost, now, "ok", attempts))
                    attempts = 0
                    async for _ in socket:
                        pass
            except (OSError, TimeoutError, websockets.WebSocketException):
                pass
            if attempts == 0:
                lost = time.monotonic()
            await asyncio.sleep(_REPEAT_S)


def client_of(target: Target, certificate: ssl.SSLContext | None = None) -> httpx.AsyncClient:
    """A client of the site by its public name, wherever that name leads."""
    transport = httpx.AsyncHTTPTransport(
        verify=certificate or target.tls,
        http2=False,
        limits=httpx.Limits(max_connections=256, max_keepalive_connections=32),
        socket_options=_KEEPALIVE,
    )
    return httpx.AsyncClient(
        base_url=f"https://{target.address}:{target.port}",
        headers={"authorization": f"Bearer {target.api_key}", "host": target.host},
        transport=_Named(transport, target.host),
        timeout=httpx.Timeout(DEADLINE_S, connect=_CONNECT_S),
        trust_env=False,
    )


class _Named(httpx.AsyncBaseTransport):
    """Checks the certificate against the public name though the address is dialled."""

    def __init__(self, inner: httpx.AsyncHTTPTransport, name: str) -> None:
        self._inner, self._name = inner, name

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        request.extensions = {**request.extensions, "sni_hostname": self._name}
        return await self._inner.handle_async_request(request)

    async def aclose(self) -> None:
        await self._inner.aclose()


def observation(patient: str, key: str) -> dict[str, Any]:
    """A heart rate that carries the key of its write."""
    return {
        "resourceType": "Observation",
        "status": "final",
        "identifier": [{"system": IDENTIFIER, "value": key}],
        "category": [
            {
                "coding": [
                    {
                        "system": "http://terminology.hl7.org/CodeSystem/observation-category",
                        "code": "vital-signs",
                    }
                ]
            }
        ],
        "code": {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]},
        "subject": {"reference": f"Patient/{patient}"},
        "effectiveDateTime": "2026-11-25T10:00:00Z",
        "valueQuantity": {"value": 72, "unit": "/min"},
    }


async def new_patient(target: Target) -> str:
    """A patient for one drill's writes. Raises `httpx.HTTPError`."""
    async with client_of(target) as client:
        answer = await client.post(
            "/fhir/Patient",
            json={"resourceType": "Patient", "birthDate": "1950-01-01"},
            headers={"content-type": "application/fhir+json"},
        )
        answer.raise_for_status()
        return str(answer.headers["location"].split("/Patient/")[1].split("/")[0])


async def held(target: Target, patient: str) -> dict[str, int]:
    """How often each written key is there now. Raises `httpx.HTTPError`."""
    found: dict[str, int] = {}
    async with client_of(target) as client:
        url: str | None = f"/fhir/Observation?patient={patient}&_count=500"
        while url is not None:
            answer = await client.get(url)
            answer.raise_for_status()
            page = answer.json()
            for entry in page.get("entry", []):
                for identifier in entry["resource"].get("identifier", []):
                    if identifier.get("system") == IDENTIFIER:
                        found[identifier["value"]] = found.get(identifier["value"], 0) + 1
            links = {link["relation"]: link["url"] for link in page["link"]}
            following = links.get("next")
            url = None if following is None else str(httpx.URL(following).raw_path, "ascii")
    return found
