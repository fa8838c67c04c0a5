from __future__ import annotations

import asyncio
import time

import httpx
import pytest

from configs.args import Limits
from serve_app import exposition as exposition_module
from serve_app.exposition import Exposition, MetricsUnavailable, agent_address
from serve_app.surface import create_app
from tests.serve_app.fake_language import FakeLanguage, http_client
from tests.serve_app.fake_security import services_of

TEXT = b'# TYPE ray_medrec_chat_tokens counter\nray_medrec_chat_tokens{model="m"} 3\n'


class Agent(httpx.AsyncBaseTransport):
    """A metrics agent that answers with `status` and `body`, after `delay_s`."""

    def __init__(self, body: bytes = TEXT, status: int = 200, delay_s: float = 0) -> None:
        self.body, self.status, self.delay_s = body, status, delay_s
        self.asked: list[str] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(str(request.url))
        await asyncio.sleep(self.delay_s)
        headers = {"content-type": "text/plain; version=0.0.4; charset=utf-8"}
        return httpx.Response(self.status, headers=headers, content=self.body)


def relay(agent: Agent) -> Exposition:
    return Exposition(lambda: "127.0.0.1:9", agent)


async def test_the_agents_text_is_relayed_under_our_own_names() -> None:
    agent = Agent()
    app = create_app(services_of(FakeLanguage()), Limits(), exposition=relay(agent))
    async with http_client(app) as client:
        answer = await client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers.get_list("content-type") == ["text/plain; version=0.0.4; charset=utf-8"]
    assert b'\nmedrec_chat_tokens{model="m"} 3\n' in answer.content
    assert agent.asked == ["http://127.0.0.1:9/metrics"]


async def test_scrapes_at_once_ask_the_agent_once() -> None:
    agent = Agent(delay_s=0.01)
    page = relay(agent)
    await asyncio.gather(*(page.page() for _ in range(20)))
    assert len(agent.asked) == 1


async def test_an_agent_that_fails_is_503_in_the_surfaces_shape() -> None:
    app = create_app(services_of(FakeLanguage()), Limits(), exposition=relay(Agent(status=500)))
    async with http_client(app) as client:
        answer = await client.get("/metrics")
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "metrics_unavailable"


async def test_an_agent_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exposition_module, "TIMEOUT_S", 0.05)
    began = time.monotonic()
    with pytest.raises(MetricsUnavailable):
        await relay(Agent(delay_s=60)).page()
    assert time.monotonic() - began < 5


async def test_an_exposition_without_end_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exposition_module, "MAX_BYTES", 10)
    with pytest.raises(MetricsUnavailable):
        await relay(Agent()).page()


def test_looking_for_the_agent_never_starts_a_ray_of_its_own() -> None:
    import ray

    if ray.is_initialized():
        pytest.skip("another test of this process has a cluster")
    with pytest.raises(LookupError):
        agent_address()
    assert not ray.is_initialized()
