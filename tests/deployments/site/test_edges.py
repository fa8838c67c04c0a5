"""The edges of a site by their real HAProxies: who gets in, what is repeated, who takes over."""

from __future__ import annotations

import json
import selectors
import signal
import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace

import httpx
import psutil
import pytest

from tests.deployments.site.edges import Edges, running


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edges]:
    with running(tmp_path_factory.mktemp("edges")) as edges:
        yield edges


@pytest.fixture(autouse=True)
def whole(site: Edges) -> None:
    """Each test finds both cells well, and what they have seen forgotten."""
    for cell in site.plan.cells:
        replica = site.replicas[cell.name]
        replica.ready, replica.hang_up, replica.status = True, False, 200
        replica.pause_s = replica.stalls_s = 0.0
        if replica.server is None:
            replica.start()
    site.states({"mac-a": "ready", "mac-b": "ready", "cloud": "drain"})
    for cell in site.plan.cells:
        site.wait_replica(cell.name)
        site.wait_up(cell.name)
    for replica in site.replicas.values():
        replica.seen.clear()
        replica.bodies.clear()


def test_clients_reach_the_primary_over_tls_1_3_and_http_2(site: Edges) -> None:
    with site.client() as client:
        answer = client.get("/fhir/Patient/1")
    assert answer.text == "mac-a"
    assert answer.headers["x-request-id"]
    context = site.context()
    context.set_alpn_protocols(["h2"])
    port = site.edge.ports.https
    with (
        socket.create_connection(("127.0.0.1", port), 5) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secure,
    ):
        assert (secure.version(), secure.selected_alpn_protocol()) == ("TLSv1.3", "h2")


def test_tls_1_2_is_refused(site: Edges) -> None:
    context = site.context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(httpx.ConnectError), site.client(context) as client:
        client.get("/v1/models")


def test_the_plain_port_only_redirects(site: Edges) -> None:
    answer = httpx.get(f"http://127.0.0.1:{site.edge.ports.http}/v1/models?a=1", trust_env=False)
    assert answer.status_code == 308
    assert answer.headers["location"] == f"{site.plan.public_url}/v1/models?a=1"


def test_every_answer_carries_the_security_headers_those_of_the_edge_too(site: Edges) -> None:
    with site.client() as client:
        answers = [client.get("/v1/models"), client.get("/internal/condition")]
    assert [answer.status_code for answer in answers] == [200, 404]
    for answer in answers:
        assert answer.headers["strict-transport-security"] == "max-age=31536000"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]


# Another client than that of the other tests: all of 127.0.0.0/8 is the loopback on Linux alone.
other_client = pytest.mark.skipif(sys.platform != "linux", reason="needs a second address")


@other_client
def test_a_client_that_asks_too_often_is_told_429_and_nobody_else(site: Edges) -> None:
    limit = site.plan.site.edge.requests_per_10_s
    batch, batches = 50, limit // 50 + 1
    # The edge answers this by itself, so that thousands of them take no time.
    asked = b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n" * batch
    answers = b""
    with (
        connected(site, "127.0.0.3") as plain,
        site.context().wrap_socket(plain, server_hostname="localhost") as secure,
    ):
        for done in range(1, batches + 1):
            secure.sendall(asked)
            while answers.count(b"HTTP/1.1 ") < done * batch or not answers.endswith(b"}"):
                received = secure.recv(65_536)
                assert received, "the edge closed the connection"
                answers += received
    assert answers.count(b"HTTP/1.1 404 ") == limit
    assert answers.count(b"HTTP/1.1 429 ") == batch
    head, _, body = answers.rpartition(b"HTTP/1.1 ")[2].partition(b"\r\n\r\n")
    assert b"retry-after: 10" in head.lower()
    assert json.loads(body)["error"]["type"] == "rate_limit_error"
    with site.client() as client:
        assert client.get("/v1/models").status_code == 200


@other_client
def test_a_client_with_too_many_connections_gets_no_further_one_and_others_do(site: Edges) -> None:
    limit = site.plan.site.edge.connections_per_client
    # Threads of the edge accept them, so that the last to be opened need not be the one too many; and it
    # may be ended before the kernel has said that it is there.
    with ExitStack() as stack, selectors.DefaultSelector() as ended:
        refused = 0
        for _ in range(limit + 1):
            try:
                opened = stack.enter_context(connected(site, "127.0.0.4"))
            except ConnectionResetError:
                refused += 1
            else:
                ended.register(opened, selectors.EVENT_READ)
        assert refused + len(ended.select(0 if refused else 30)) == 1
        with site.client() as client:
            assert client.get("/v1/models").status_code == 200
        assert refused + len(ended.select(0)) == 1


def connected(site: Edges, source: str) -> socket.socket:
    """A connection to the edge from one address of the loopback."""
    return socket.create_connection(
        ("127.0.0.1", site.edge.ports.https), 30, source_address=(source, 0)
    )


@pytest.mark.parametrize(
    "path", ["/internal/blobs/a", "/%69nternal/condition", "/internal", "/-/routes", "/metrics"]
)
def test_what_is_for_hosts_and_checks_is_not_for_clients(site: Edges, path: str) -> None:
    with site.client() as client:
        assert client.get(path).status_code == 404
    assert not site.replicas["mac-a"].seen


def test_a_client_cannot_say_that_it_is_a_host_or_a_device_or_another_address(site: Edges) -> None:
    forged = {
        "x-medrec-host": "mac-b",
        "x-medrec-device": "physician",
        "x-forwarded-for": "10.9.9.9",
        "forwarded": "for=10.9.9.9",
        "x-request-timeout-seconds": "9999",
        "x-request-disconnect-disabled": "1",
    }
    with site.client() as client:
        client.get("/fhir/Patient/1", headers=forged)
    [(_, _, headers)] = site.replicas["mac-a"].seen
    assert headers["x-forwarded-for"] == "127.0.0.1"
    assert not set(forged) - {"x-forwarded-for"} & set(headers)


def test_a_hosts_certificate_is_no_devices(site: Edges) -> None:
    with site.client(site.context("mac-b")) as client, pytest.raises(httpx.TransportError):
        client.get("/fhir/Patient/1")
    assert not site.replicas["mac-a"].seen


def test_a_device_is_known_by_its_user(site: Edges) -> None:
    with site.client(site.phone("ana.souza")) as client:
        client.get("/fhir/Patient/1")
    [(_, _, headers)] = site.replicas["mac-a"].seen
    assert headers["x-medrec-device"] == "ana.souza"


def test_a_device_is_no_host_whatever_its_users_name(site: Edges) -> None:
    context = site.phone("edge-1")
    cell = site.plan.cells[0]
    for port, path in (
        (cell.ports.api_tls, "/internal/condition"),
        (cell.ports.exporter, "/metrics"),
    ):
        with pytest.raises(httpx.TransportError):
            httpx.get(f"https://localhost:{port}{path}", verify=context, trust_env=False)


def test_whoever_has_a_hosts_certificate_may_scrape_a_cell_and_nothing_else(site: Edges) -> None:
    base = f"https://localhost:{site.plan.cells[0].ports.exporter}"
    with httpx.Client(verify=site.context("witness"), trust_env=False, base_url=base) as client:
        assert "haproxy_server_status" in client.get("/metrics").text
        assert client.get("/cell/metrics", headers={"x-medrec-host": "mac-b"}).status_code == 200
        assert client.get("/fhir/Patient/1").status_code == 404
        assert client.post("/cell/metrics").status_code == 404
    [(_, path, headers)] = site.replicas["mac-a"].seen
    assert path == "/metrics"
    assert "x-medrec-host" not in headers


def test_a_cell_asks_for_a_hosts_certificate_and_tells_its_name_to_the_api(site: Edges) -> None:
    cell = site.plan.cells[0]
    url = f"https://localhost:{cell.ports.api_tls}/internal/condition"
    with pytest.raises(httpx.TransportError):
        httpx.get(url, verify=site.context(), trust_env=False)
    for host, status in (("mac-b", 204), ("edge-1", 204), ("witness", 403)):
        answer = httpx.get(url, verify=site.context(host), trust_env=False)
        assert answer.status_code == status
    callers = [headers["x-medrec-host"] for _, _, headers in site.replicas["mac-a"].seen]
    assert callers == ["mac-b", "edge-1"]


def test_a_cells_own_front_lets_nobody_say_that_he_is_a_host(site: Edges) -> None:
    port = site.plan.cells[0].cell_ports.public
    forged = {"x-medrec-host": "mac-b", "x-medrec-asked-at": "1"}
    url = f"http://127.0.0.1:{port}"
    assert (
        httpx.get(f"{url}/internal/condition", headers=forged, trust_env=False).status_code == 404
    )
    httpx.get(f"{url}/v1/models", headers=forged, trust_env=False)
    [(_, _, headers)] = site.replicas["mac-a"].seen
    assert not set(forged) & set(headers)


def test_a_cell_that_loses_its_replicas_is_replaced_unseen_for_reads_and_writes(
    site: Edges,
) -> None:
    site.replicas["mac-a"].stop()
    time.sleep(0.2)  # Connections that were kept are seen to have ended.
    with site.client() as client:
        # The first of them finds out.
        answers = [client.post("/fhir/Observation", content=b"x" * 16_384).text for _ in range(3)]
        answers += [client.get("/v1/models").text for _ in range(3)]
    assert answers == ["mac-b"] * 6
    assert site.replicas["mac-b"].bodies == [b"x" * 16_384] * 3


def test_the_status_by_which_a_cell_says_that_nothing_arrived_is_for_the_edge_alone(
    site: Edges,
) -> None:
    for replica in site.replicas.values():
        replica.status = 425
    with site.client() as client:
        answers = [client.get("/v1/models"), client.post("/fhir/Observation", content=b"x")]
    assert [answer.status_code for answer in answers] == [503, 503]


def test_a_read_whose_answer_has_not_begun_is_repeated_at_the_other_cell(site: Edges) -> None:
    site.replicas["mac-a"].hang_up = True
    with site.client() as client:
        threading.Timer(0.3, site.replicas["mac-a"].stop).start()
        site.replicas["mac-a"].pause_s = 0.6
        assert client.get("/fhir/Patient/1").text == "mac-b"


def test_a_read_that_is_sent_anew_goes_to_the_other_cell_and_says_when_it_was_first_asked(
    site: Edges,
) -> None:
    site.replicas["mac-a"].pause_s = 5.0
    began = time.time() * 1000
    with site.client() as client:
        answer = client.get("/v1/models", headers={"x-medrec-asked-at": "1"})
    assert answer.text == "mac-b"
    (first,), (second,) = (site.replicas[cell.name].seen for cell in site.plan.cells)
    asked = [headers["x-medrec-asked-at"] for _, _, headers in (first, second)]
    # The first try was given up after 4 s of silence; the moment is the one before.
    assert asked[0] == asked[1]
    assert time.time() * 1000 - int(asked[0]) > 3500
    assert began - 1 <= int(asked[0]) < began + 2000


def test_a_read_whose_answer_stopped_behind_its_head_is_repeated_at_the_other_cell(
    site: Edges,
) -> None:
    site.replicas["mac-a"].stalls_s = 8.0
    with site.client() as client:
        assert client.get("/v1/models").text == "mac-b"


def test_a_write_that_arrived_is_never_repeated(site: Edges) -> None:
    site.replicas["mac-a"].hang_up = True
    with site.client() as client:
        answer = client.post("/fhir/Observation", content=b"x")
    assert answer.status_code == 502
    assert answer.json()["error"]["code"] == "bad_gateway"
    assert len(site.replicas["mac-a"].seen) == 1
    assert not site.replicas["mac-b"].seen


def test_a_frozen_cell_is_left_within_seconds_and_no_read_fails(site: Edges) -> None:
    frozen = site.processes["mac-a"]
    family = [psutil.Process(frozen.pid), *psutil.Process(frozen.pid).children()]
    with site.client() as client:
        for process in family:
            process.send_signal(signal.SIGSTOP)
        try:
            began = time.monotonic()
            assert client.get("/v1/models").text == "mac-b"
            assert client.post("/fhir/Observation", content=b"x").text == "mac-b"
            assert time.monotonic() - began < 5
            site.wait_up("mac-a", up=False)
        finally:
            for process in family:
                process.send_signal(signal.SIGCONT)


def test_cells_that_fail_their_checks_but_answer_are_asked_while_no_other_is_left(
    site: Edges,
) -> None:
    for cell in site.plan.cells:
        site.replicas[cell.name].ready = False
    for cell in site.plan.cells:
        site.wait_up(cell.name, up=False)
    with site.client() as client:
        asked = [client.get("/v1/models"), client.get("/fhir/Patient/1")]
        asked += [client.post("/fhir/Observation", content=b"x") for _ in range(3)]
        assert {answer.text for answer in asked} <= {"mac-a", "mac-b"}
        # Nobody goes where the steward lets nobody go.
        site.states({"mac-a": "drain"})
        asked = [client.get(path) for path in ("/v1/models", "/fhir/Patient/1") * 3]
        asked += [client.post("/fhir/Observation", content=b"x") for _ in range(3)]
        assert {answer.text for answer in asked} == {"mac-b"}
        site.states({"mac-b": "drain"})
        answer = client.post("/fhir/Observation", content=b"x")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")


def test_of_cells_that_fail_their_checks_a_dead_one_is_passed_over(site: Edges) -> None:
    site.replicas["mac-b"].ready = False
    site.wait_up("mac-b", up=False)
    site.replicas["mac-a"].stop()
    with site.client() as client:
        answers = [client.get("/v1/models"), client.get("/fhir/Patient/1")]
        answers += [client.post("/fhir/Observation", content=b"x") for _ in range(3)]
    assert [answer.text for answer in answers] == ["mac-b"] * 5


def test_both_serve_whatever_checks_say(site: Edges) -> None:
    rules = site.plan.site.failover.model_copy(update={"serving": "both"})
    plan = replace(site.plan, site=site.plan.site.model_copy(update={"failover": rules}))
    site.stop(site.edge.name)
    both = replace(site, plan=plan)
    both.start(both.edge)
    try:
        for ready in (True, False):
            for cell in plan.cells:
                site.replicas[cell.name].ready = ready
            for cell in plan.cells:
                both.wait_up(cell.name, ready)
            with both.client() as client:
                asked = [client.get("/fhir/Patient/1").text for _ in range(20)]
                asked += [client.post("/fhir/Observation", content=b"x").text for _ in range(20)]
            assert min(asked.count("mac-a"), asked.count("mac-b")) > 10, ready
    finally:
        both.stop(both.edge.name)
        site.start(site.edge)
        for cell in plan.cells:
            site.replicas[cell.name].ready = True
            site.wait_up(cell.name)


def test_the_emergency_cell_is_asked_only_once_it_was_opened(site: Edges) -> None:
    for cell in site.plan.cells:
        site.replicas[cell.name].stop()
        site.wait_up(cell.name, up=False)
    with site.client() as client:
        answer = client.get("/v1/mode")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")
        # As the steward has it in an emergency.
        site.states({"mac-a": "drain", "mac-b": "drain", "cloud": "ready"})
        site.wait_up("cloud")
        assert client.get("/v1/mode").text == "cloud"
        site.states({"cloud": "drain"})
        assert client.get("/v1/mode").status_code == 503


def test_a_drained_cell_gets_nothing_new_and_the_exporter_is_for_hosts_alone(site: Edges) -> None:
    site.states({"mac-a": "drain"})
    with site.client() as client:
        assert client.get("/fhir/Patient/1").text == "mac-b"
    url = f"https://localhost:{site.edge.ports.exporter}/metrics"
    page = httpx.get(url, verify=site.context("witness"), trust_env=False).text
    assert 'haproxy_server_status{proxy="others",server="mac-a",state="DRAIN"} 1' in page
    with pytest.raises(httpx.TransportError):
        httpx.get(url, verify=site.context(), trust_env=False)


def test_no_request_fails_while_the_edge_reads_its_configuration_again(site: Edges) -> None:
    failures: list[str] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            with site.client() as client:
                try:
                    answer = client.get("/v1/models")
                    if answer.status_code != 200:
                        failures.append(str(answer.status_code))
                except httpx.TransportError as error:
                    failures.append(type(error).__name__)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    site.processes["edge-1"].send_signal(signal.SIGUSR2)
    time.sleep(1.5)
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_kept_connection_is_closed_by_a_reload_only_with_its_next_answer(site: Edges) -> None:
    def asked(secure: ssl.SSLSocket) -> bytes:
        secure.sendall(b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n")
        answer = b""
        while not answer.endswith(b"mac-a"):
            received = secure.recv(65_536)
            assert received, "the edge closed the connection"
            answer += received
        return answer.lower()

    edge = psutil.Process(site.processes["edge-1"].pid)
    with (
        socket.create_connection(("127.0.0.1", site.edge.ports.https), 10) as plain,
        site.context().wrap_socket(plain, server_hostname="localhost") as secure,
    ):
        assert b"connection: close" not in asked(secure)
        old = edge.children()
        edge.send_signal(signal.SIGUSR2)
        deadline = time.monotonic() + 10
        while set(edge.children()) <= set(old):
            assert time.monotonic() < deadline, "no new process came"
            time.sleep(0.05)
        time.sleep(0.5)  # until the old one has been told to end
        assert b"connection: close" in asked(secure)
        assert secure.recv(1) == b""
