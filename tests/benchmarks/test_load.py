"""The generator counts what a server of known behaviour does, no more and no less."""

from __future__ import annotations

import asyncio
import socket
import time
from itertools import pairwise, repeat

import pytest

from benchmarks.load import ClosedLoop, OpenLoop, Run, schedule
from benchmarks.summary import count_failures, summarise
from benchmarks.targets import Target, loopback
from benchmarks.wire import ChatClient
from tests.benchmarks.fake_openai import Script, serving

MESSAGES = [{"role": "user", "content": "?"}]


async def _drive(target: Target, load: ClosedLoop | OpenLoop, timeout_s: float = 5.0) -> Run:
    client = ChatClient(target, "fake-model", timeout_s)
    try:
        return await load.run(client, repeat(client.encode(MESSAGES, 4)), lambda: None)
    finally:
        client.close()


def _run(script: Script, load: ClosedLoop | OpenLoop, timeout_s: float = 5.0) -> Run:
    with serving(script) as server:
        return asyncio.run(_drive(loopback(server.url), load, timeout_s))


def test_a_closed_loop_counts_tokens_from_usage() -> None:
    script = Script()
    run = _run(script, ClosedLoop(clients=3, requests=12, limit_s=30))
    cells = summarise(run)
    assert (cells["requests"], cells["complete"], cells["failed"]) == (12, 12, 0)
    assert cells["tokens_per_s"] == pytest.approx(12 * 4 / run.wall_s)
    assert (cells["answer_tokens"], cells["prompt_tokens"]) == (4, 10)
    assert (cells["cached_share"], cells["full_length"]) == (0.5, 1.0)


def test_requests_are_plain_greedy_streams_that_ask_for_usage() -> None:
    script = Script()
    _run(script, ClosedLoop(clients=1, requests=1, limit_s=30))
    assert script.bodies == [
        {
            "model": "fake-model",
            "messages": MESSAGES,
            "max_tokens": 4,
            "temperature": 0.0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    ]


def test_every_kind_of_failure_is_counted_by_its_name_and_429_apart() -> None:
    script = Script(
        overloaded=frozenset({1, 2}),
        broken=frozenset({3}),
        error_event=frozenset({4}),
        truncated=frozenset({5}),
        no_usage=frozenset({6}),
    )
    run = _run(script, ClosedLoop(clients=1, requests=10, limit_s=30))
    cells = summarise(run)
    assert (cells["complete"], cells["rejected"], cells["failed"]) == (4, 2, 4)
    assert count_failures(run.outcomes) == {
        "http 500": 1,
        "stream engine_unavailable": 1,
        "truncated": 1,
        "no usage": 1,
    }


def test_tokens_of_failed_answers_are_not_counted() -> None:
    run = _run(Script(truncated=frozenset({0})), ClosedLoop(clients=1, requests=2, limit_s=30))
    assert summarise(run)["tokens_per_s"] == pytest.approx(4 / run.wall_s)


def test_a_silent_server_is_a_timeout() -> None:
    run = _run(Script(silent=frozenset({0})), ClosedLoop(1, 2, 30), timeout_s=0.5)
    assert count_failures(run.outcomes) == {"timeout": 1}
    assert summarise(run)["complete"] == 1


def test_a_server_that_is_not_there_is_a_failed_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    run = asyncio.run(_drive(Target("127.0.0.1", port), ClosedLoop(2, 4, 30)))
    assert count_failures(run.outcomes) == {"connect": 4}


def test_a_server_that_hangs_up_is_a_reset() -> None:
    async def scenario() -> Run:
        async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.close()

        server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            return await _drive(Target("127.0.0.1", port), ClosedLoop(1, 2, 30))

    assert count_failures(asyncio.run(scenario()).outcomes) == {"reset": 2}


def test_an_answer_without_length_ends_with_its_connection() -> None:
    """HTTP/1.0, as mlx_lm.server speaks it."""
    body = (
        b'data: {"choices": [{"delta": {"content": "a"}}]}\n\n'
        b'data: {"choices": [{"delta": {}, "finish_reason": "length"}]}\n\n'
        b'data: {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 7}}\n\n'
        b"data: [DONE]\n\n"
    )

    async def scenario() -> Run:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.0 200 OK\r\nContent-type: text/event-stream\r\n\r\n" + body)
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            return await _drive(Target("127.0.0.1", port), ClosedLoop(1, 3, 30))

    cells = summarise(asyncio.run(scenario()))
    assert (cells["complete"], cells["failed"], cells["answer_tokens"]) == (3, 0, 7)


def test_first_text_and_gaps_are_those_of_the_server() -> None:
    run = _run(Script(first_after_s=0.2, gap_s=0.05), ClosedLoop(1, 1, 30))
    (outcome,) = run.outcomes
    assert 0.2 <= outcome.first_token_s < 0.6
    assert len(outcome.gaps()) == 3
    assert all(0.04 <= gap < 0.3 for gap in outcome.gaps())
    assert outcome.per_token_s == pytest.approx(sum(outcome.gaps()) / 3)


def test_pieces_that_arrive_together_have_no_gap_between_them() -> None:
    def piece(text: str) -> bytes:
        return b'data: {"choices": [{"delta": {"content": "%s"}}]}\n\n' % text.encode()

    end = (
        b'data: {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 6}}\n\n'
        b"data: [DONE]\n\n"
    )

    async def scenario() -> Run:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.0 200 OK\r\n\r\n" + piece("a") + piece("b") + piece("c"))
            await asyncio.sleep(0.2)
            writer.write(piece("d") + piece("e") + piece("f") + end)
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            return await _drive(Target("127.0.0.1", port), ClosedLoop(1, 1, 30))

    (outcome,) = asyncio.run(scenario()).outcomes
    (gap,) = outcome.gaps()
    assert 0.15 < gap < 0.6


def test_a_closed_loop_stops_asking_when_its_time_is_up() -> None:
    run = _run(Script(first_after_s=0.3), ClosedLoop(clients=2, requests=1000, limit_s=0.5))
    assert len(run.outcomes) == 4
    assert run.unsent == 996
    assert summarise(run)["unsent"] == 996


def test_an_open_loop_sends_its_schedule_and_measures_from_it() -> None:
    load = OpenLoop(rate_per_s=40, limit_s=0.5, seed=3)
    run = _run(Script(first_after_s=0.1), load)
    assert len(run.outcomes) == len(schedule(40, 0.5, 3)) > 5
    assert all(outcome.first_token_s >= 0.1 for outcome in run.outcomes)


def test_an_open_loops_schedule_is_poisson_and_repeats_by_seed() -> None:
    arrivals = schedule(50, 200, seed=7)
    assert arrivals == schedule(50, 200, seed=7) != schedule(50, 200, seed=8)
    assert arrivals == sorted(arrivals)
    assert arrivals[0] > 0
    assert arrivals[-1] < 200
    assert len(arrivals) == pytest.approx(10_000, rel=0.04)
    gaps = [b - a for a, b in pairwise(arrivals)]
    mean = sum(gaps) / len(gaps)
    deviation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert deviation / mean == pytest.approx(1, rel=0.05)


def test_latency_counts_from_the_schedule_when_the_generator_is_late() -> None:
    """A stalled generator must not hide the wait (coordinated omission)."""
    with serving(Script()) as server:

        async def scenario() -> float:
            client = ChatClient(loopback(server.url), "fake-model", 5)
            due = time.perf_counter() - 1.0
            outcome = await client.chat(client.encode(MESSAGES, 1), due)
            client.close()
            return outcome.first_token_s

        assert asyncio.run(scenario()) >= 1.0


@pytest.mark.parametrize("clients", [0, 201])
def test_clients_are_bounded(clients: int) -> None:
    with pytest.raises(ValueError, match="between 1 and 200"):
        ClosedLoop(clients, 1, 1)


def test_requests_are_bounded() -> None:
    with pytest.raises(ValueError, match="20000"):
        ClosedLoop(1, 20_001, 1)
    with pytest.raises(ValueError, match="20000"):
        OpenLoop(300, 100, 1)
