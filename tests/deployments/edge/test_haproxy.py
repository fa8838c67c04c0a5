"""HAProxy as configured here: what it accepts, forwards, refuses and says when it refuses."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from deployments.cell.ports import is_free
from deployments.edge import haproxy
from deployments.edge.haproxy import Edge, Files, HaproxyError
from tests.deployments.replies import Replies, Server

READY_TIMEOUT_S = 15.0


@dataclass
class Replica:
    """A server on a port of the range that says which application it is, as Serve's replicas do."""

    application: str
    port: int
    seen: list[dict[str, str]] = field(default_factory=list)
    server: Server | None = None
    draining: bool = False

    def start(self) -> None:
        replica = self

        class Handler(Replies):
            def do_GET(self) -> None:
                if self.path == "/-/routes":
                    status = 503 if replica.draining else 200
                    text = (
                        "draining" if replica.draining else json.dumps({"/": replica.application})
                    )
                    self.answer(status, text.encode())
                    return
                replica.seen.append(self.fields)
                if self.path == "/hang-up":
                    self.close_connection = True
                    return
                self.answer(200, str(replica.port).encode())

        self.server = Server(self.port, Handler)

    def stop(self) -> None:
        if self.server is not None:
            self.server.end()
            self.server = None


@dataclass
class Front:
    """A running HAProxy over four ports."""

    url: str
    ports: list[int]
    files: Files
    replicas: list[Replica] = field(default_factory=list)

    def replica(self, index: int, application: str = "api") -> Replica:
        found = Replica(application, self.ports[index])
        found.start()
        self.replicas.append(found)
        return found

    def wait_up(self, count: int) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while haproxy.servers_up(self.files.admin_socket) != count:
            assert time.monotonic() < deadline, f"never {count} servers up"
            time.sleep(0.05)


def free_block(size: int) -> list[int]:
    for first in range(23_300, 23_900, size):
        ports = list(range(first, first + size))
        if all(is_free(port) for port in ports):
            return ports
    raise AssertionError("no free ports")


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Front]:
    public, *ports = free_block(5)
    files = Files(tmp_path / "with space", tmp_path)
    edge = Edge(public, ports, "api", request_timeout_s=5)
    config = haproxy.write(edge, files)
    haproxy.check(config)
    process = subprocess.Popen(
        haproxy.command(config), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    running = Front(f"http://127.0.0.1:{public}", ports, files)
    try:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while is_free(public):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield running
    finally:
        process.terminate()
        process.wait(10)
        for replica in running.replicas:
            replica.stop()


def assert_openai_error(answer: httpx.Response, status: int, code: str) -> None:
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == code


def test_without_a_replica_it_answers_503_at_once_even_before_its_first_check(
    front: Front,
) -> None:
    answer = httpx.get(f"{front.url}/v1/models")
    assert_openai_error(answer, 503, "unavailable")
    assert answer.headers["retry-after"] == "1"


def test_only_replicas_of_the_api_get_requests(front: Front) -> None:
    other = front.replica(0, application="ai")
    own = front.replica(2)
    front.wait_up(1)
    for _ in range(6):
        assert httpx.get(f"{front.url}/x").text == str(own.port)
    assert other.seen == []


def test_the_headers_that_switch_off_serves_protection_do_not_arrive(front: Front) -> None:
    replica = front.replica(0)
    front.wait_up(1)
    httpx.get(
        f"{front.url}/x",
        headers={"X-Request-Timeout-Seconds": "9999", "X-Request-Disconnect-Disabled": "1"},
    )
    assert not {"x-request-timeout-seconds", "x-request-disconnect-disabled"} & set(replica.seen[0])


@pytest.mark.parametrize(("given", "kept"), [("abc-1.2_3", True), ("a b", False), ("", False)])
def test_a_request_id_is_kept_if_it_is_one_and_made_if_not(
    front: Front, given: str, kept: bool
) -> None:
    replica = front.replica(0)
    front.wait_up(1)
    answer = httpx.get(f"{front.url}/x", headers={"x-request-id": given})
    returned = answer.headers["x-request-id"]
    assert replica.seen[0]["x-request-id"] == returned
    assert (returned == given) is kept
    assert kept or returned.startswith("req_")


@pytest.mark.parametrize("path", ["/-/routes", "/-/healthz", "/%2D/routes", "/%2d%2Froutes"])
def test_serves_own_pages_are_not_public(front: Front, path: str) -> None:
    front.replica(0)
    front.wait_up(1)
    assert_openai_error(httpx.get(f"{front.url}{path}"), 404, "not_found")


def test_the_size_of_a_body_is_left_to_the_api_or_the_connection_would_be_reset(
    front: Front,
) -> None:
    replica = front.replica(0)
    front.wait_up(1)
    for size in (1_000, 5_000_000):
        assert httpx.post(f"{front.url}/x", content=b"x" * size).text == str(replica.port)


@pytest.mark.parametrize("where", ["header", "path"])
def test_headers_over_the_limit_are_refused(front: Front, where: str) -> None:
    long = "a" * 17_000
    answer = (
        httpx.get(f"{front.url}/x", headers={"x-long": long})
        if where == "header"
        else httpx.get(f"{front.url}/{long}")
    )
    assert_openai_error(answer, 431, "headers_too_large")


def test_a_replica_that_drains_gets_no_new_request(front: Front) -> None:
    draining, other = front.replica(0), front.replica(1)
    front.wait_up(2)
    draining.draining = True
    front.wait_up(1)
    draining.seen.clear()
    for _ in range(6):
        assert httpx.get(f"{front.url}/x").text == str(other.port)
    assert draining.seen == []


def test_a_post_to_a_replica_that_has_just_died_goes_to_another(front: Front) -> None:
    dead, other = front.replica(0), front.replica(1)
    front.wait_up(2)
    dead.stop()
    for _ in range(8):
        assert httpx.post(f"{front.url}/x", content=b"x").text == str(other.port)


def test_a_post_that_a_replica_received_is_never_repeated(front: Front) -> None:
    first, second = front.replica(0), front.replica(1)
    front.wait_up(2)
    answer = httpx.post(f"{front.url}/hang-up", content=b"x")
    assert_openai_error(answer, 502, "bad_gateway")
    assert len(first.seen) + len(second.seen) == 1


def test_a_configuration_that_haproxy_refuses_is_an_error_with_its_words(tmp_path: Path) -> None:
    config = tmp_path / "haproxy.cfg"
    config.write_text("global\n    no-such-keyword\n")
    with pytest.raises(HaproxyError, match="no-such-keyword"):
        haproxy.check(config)


def test_a_macs_haproxy_is_the_one_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    with pytest.raises(HaproxyError, match="brew install haproxy"):
        haproxy.binary({"PATH": str(tmp_path)})
    program = tmp_path / "haproxy"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert haproxy.binary({"PATH": str(tmp_path)}) == str(program)


def test_every_status_that_haproxy_answers_by_itself_has_a_whole_response() -> None:
    for refusal in haproxy.REFUSALS:
        head, body = refusal.response().split("\r\n\r\n")
        assert head.startswith(f"HTTP/1.1 {refusal.status} ")
        assert f"content-length: {len(body.encode())}" in head
        assert json.loads(body)["error"]["code"] == refusal.code


@pytest.mark.parametrize(
    ("open_files", "connections"), [(1_048_576, 4096), (2048, 960), (256, 64), (64, 16)]
)
def test_connections_keep_to_the_limit_of_open_files(open_files: int, connections: int) -> None:
    assert haproxy.connections_for(open_files) == connections
