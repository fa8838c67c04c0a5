"""Benchmark `chat`: streaming chats on one OpenAI-compatible server of this machine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import httpx
import psutil
from pydantic import JsonValue

from benchmarks.load import ClosedLoop, OpenLoop, Run, schedule
from benchmarks.machine import usable_cores
from benchmarks.prompts import Mix, prompts
from benchmarks.report import Chart, Draft, Report
from benchmarks.screen import Bar, bar
from benchmarks.summary import COLUMNS, summarise
from benchmarks.targets import Target, loopback
from benchmarks.wire import ChatClient

IDLE_SAMPLE_S = 2.0
Load = ClosedLoop | OpenLoop


@dataclass(frozen=True, slots=True)
class ChatOptions:
    """What is asked of the server; every bound is explicit, so that a run always ends.

    `requests` counts for each client of a closed loop; `seconds` ends a closed loop early and is
    the length of an open one. `warm_up_s` of the same load, unmeasured, go before each run.
    """

    clients: tuple[int, ...]
    rates_per_s: tuple[float, ...] = ()
    mixes: tuple[Mix, ...] = ("short",)
    requests: int = 4
    seconds: float = 120.0
    max_tokens: int | None = None
    timeout_s: float = 120.0
    warm_up_s: float = 10.0
    seed: int = 1

    def loads(self) -> list[Load]:
        closed = [ClosedLoop(n, n * self.requests, self.seconds) for n in self.clients]
        return [*closed, *(OpenLoop(rate, self.seconds, self.seed) for rate in self.rates_per_s)]

    def recorded(self) -> dict[str, JsonValue]:
        return {
            "clients": list(self.clients),
            "rates_per_s": list(self.rates_per_s),
            "mixes": list(self.mixes),
            "requests": self.requests,
            "seconds": self.seconds,
            "max_tokens": self.max_tokens,
            "timeout_s": self.timeout_s,
            "warm_up_s": self.warm_up_s,
            "seed": self.seed,
        }


def run(
    base_url: str,
    model: str | None,
    options: ChatOptions,
    *,
    api_key: str = "",
    quiet: bool = False,
) -> Report:
    """Measures a server that is already up."""
    target = loopback(base_url, api_key)
    model = model or first_model(target)
    draft = Draft("chat", {"base_url": target.url, "model": model, **options.recorded()}, COLUMNS)
    loads = options.loads()
    with bar(sum(expected(load) for load in loads) * len(options.mixes), quiet=quiet) as progress:
        asyncio.run(_measure_all(target, model, options, draft, progress))
    draft.charts.extend(charts(draft))
    return draft.close()


async def _measure_all(
    target: Target, model: str, options: ChatOptions, draft: Draft, progress: Bar
) -> None:
    for mix in options.mixes:
        for load in options.loads():
            name = label(load)
            progress.stage(f"{mix}, {name}")
            idle = await idle_cores()
            await warm_up(target, model, mix, load, options)
            measured = await measure(target, model, mix, load, options, 0, progress.advance)
            draft.row(mix=mix, load=name, idle_cores=idle, **summarise(measured))


async def measure(
    target: Target,
    model: str,
    mix: Mix,
    load: Load,
    options: ChatOptions,
    turn: int,
    advance: Callable[[], None],
) -> Run:
    """One run. The same turn asks the same of every server; no two runs on one server ask the same,
    or the later one would find its prompts in the prefix cache."""
    client = ChatClient(target, model, options.timeout_s)
    seed = f"{options.seed}/{label(load)}/{turn}"
    supply = requests(client, mix, seed, options.max_tokens)
    prepared = iter(list(islice(supply, expected(load))))
    try:
        return await load.run(client, prepared, advance)
    finally:
        client.close()


async def warm_up(target: Target, model: str, mix: Mix, load: Load, options: ChatOptions) -> None:
    """The same load with other prompts: caches fill, replicas come up, and nothing is measured."""
    if options.warm_up_s <= 0:
        return
    client = ChatClient(target, model, options.timeout_s)
    seed = f"{options.seed}/{label(load)}/warm-up"
    supply = requests(client, mix, seed, options.max_tokens)
    gentle: Load
    if isinstance(load, ClosedLoop):
        gentle = ClosedLoop(load.clients, 20_000, options.warm_up_s)
    else:
        gentle = OpenLoop(load.rate_per_s, options.warm_up_s, load.seed + 1)
    try:
        await gentle.run(client, supply, lambda: None)
    finally:
        client.close()


def requests(
    client: ChatClient, mix: Mix, seed: int | str, max_tokens: int | None
) -> Iterator[bytes]:
    for prompt in prompts(mix, seed, max_tokens):
        yield client.encode(prompt.as_openai(), prompt.max_tokens)


def first_model(target: Target) -> str:
    """The first model that the server lists."""
    answer = httpx.get(f"{target.url}/v1/models", headers=target.headers, timeout=10.0)
    answer.raise_for_status()
    return str(answer.json()["data"][0]["id"])


async def idle_cores() -> float:
    """Cores that are busy on the whole machine while this process waits."""
    psutil.cpu_percent()
    await asyncio.sleep(IDLE_SAMPLE_S)
    return psutil.cpu_percent() * usable_cores() / 100


def label(load: Load) -> str:
    if isinstance(load, ClosedLoop):
        return f"{load.clients} clients"
    return f"{load.rate_per_s:g} req/s"


def expected(load: Load) -> int:
    """How many requests a load sends when its time suffices."""
    if isinstance(load, ClosedLoop):
        return load.requests
    return len(schedule(load.rate_per_s, load.limit_s, load.seed))


def charts(draft: Draft) -> list[Chart]:
    """Tokens a second and the first token's latency over the load, for each kind and mix."""
    found: list[Chart] = []
    for unit, kind in (("clients", "closed loop"), ("req/s", "open loop")):
        for key, title in (
            ("tokens_per_s", "tokens/s"),
            ("first_p95_ms", "first text p95, ms"),
            ("gap_p99_ms", "gap p99, ms"),
        ):
            series: dict[str, list[tuple[float, float]]] = {}
            for row in draft.rows:
                amount, _, row_unit = str(row["load"]).partition(" ")
                value = row.get(key)
                if row_unit == unit and isinstance(value, int | float):
                    series.setdefault(str(row["mix"]), []).append((float(amount), float(value)))
            if series:
                found.append(Chart(title=f"{title}, {kind}", x=unit, y=title, series=series))
    return found
