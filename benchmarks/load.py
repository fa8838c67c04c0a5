"""Load on one server: closed loop (so many clients, each waiting for its answer) or open loop
(so many arrivals a second, whether or not the server keeps up)."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks.outcome import Outcome
from benchmarks.wire import ChatClient

MAX_CLIENTS = 200
MAX_REQUESTS = 20_000
MAX_OUTSTANDING = 2_000
MAX_BACK_OFF_S = 5.0

Advance = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Run:
    """One measured stretch of load. `generator_cores` is what the generator itself kept busy."""

    outcomes: list[Outcome]
    wall_s: float
    generator_cores: float
    unsent: int = 0


@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """`clients` at once, `requests` altogether, no new one after `limit_s` seconds."""

    clients: int
    requests: int
    limit_s: float

    def __post_init__(self) -> None:
        if not 1 <= self.clients <= MAX_CLIENTS:
            raise ValueError(f"clients must lie between 1 and {MAX_CLIENTS}, not {self.clients}")
        if not 1 <= self.requests <= MAX_REQUESTS:
            raise ValueError(f"requests must lie between 1 and {MAX_REQUESTS}, not {self.requests}")

    async def run(self, client: ChatClient, requests: Iterator[bytes], advance: Advance) -> Run:
        """A client that is turned away waits as told, at most 5 s, and goes on with the next."""
        stop_at = time.perf_counter() + self.limit_s
        remaining = self.requests
        outcomes: list[Outcome] = []

        async def one_client() -> None:
            nonlocal remaining
            while remaining > 0 and time.perf_counter() < stop_at:
                remaining -= 1
                request = next(requests)
                outcome = await client.chat(request, time.perf_counter())
                outcomes.append(outcome)
                advance()
                if outcome.is_rejected:
                    await asyncio.sleep(min(outcome.retry_after_s, MAX_BACK_OFF_S))

        with _Stopwatch() as watch:
            await asyncio.gather(*(one_client() for _ in range(self.clients)))
        return Run(outcomes, watch.wall_s, watch.cores, unsent=remaining)


@dataclass(frozen=True, slots=True)
class OpenLoop:
    """Poisson arrivals at `rate_per_s` for `limit_s` seconds, drawn from `seed`."""

    rate_per_s: float
    limit_s: float
    seed: int

    def __post_init__(self) -> None:
        if self.rate_per_s <= 0 or self.rate_per_s * self.limit_s > MAX_REQUESTS:
            raise ValueError(f"the rate must be positive and ask at most {MAX_REQUESTS} requests")

    async def run(self, client: ChatClient, requests: Iterator[bytes], advance: Advance) -> Run:
        """Arrivals over the bound of 2,000 open requests are not sent, and counted as unsent."""
        outcomes: list[Outcome] = []
        unsent = 0
        open_requests: set[asyncio.Task[None]] = set()

        async def one_arrival(request: bytes, due: float) -> None:
            outcomes.append(await client.chat(request, due))
            advance()

        with _Stopwatch() as watch:
            for offset_s in schedule(self.rate_per_s, self.limit_s, self.seed):
                due = watch.started + offset_s
                await asyncio.sleep(due - time.perf_counter())
                if len(open_requests) >= MAX_OUTSTANDING:
                    unsent += 1
                    continue
                task = asyncio.create_task(one_arrival(next(requests), due))
                open_requests.add(task)
                task.add_done_callback(open_requests.discard)
            await asyncio.gather(*open_requests)
        return Run(outcomes, watch.wall_s, watch.cores, unsent)


def schedule(rate_per_s: float, limit_s: float, seed: int) -> list[float]:
    """Arrival times in seconds from the start: a Poisson process, the same for the same seed."""
    chance = random.Random(seed)
    arrivals: list[float] = []
    now = chance.expovariate(rate_per_s)
    while now < limit_s:
        arrivals.append(now)
        now += chance.expovariate(rate_per_s)
    return arrivals


class _Stopwatch:
    """Wall time and this process's CPU time over a block."""

    def __enter__(self) -> _Stopwatch:
        self.started = time.perf_counter()
        self._cpu_s = time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall_s = time.perf_counter() - self.started
        self.cores = (time.process_time() - self._cpu_s) / self.wall_s
