"""Benchmark `records`: reads, searches and writes of the FHIR API, and what the audit costs them.

Two API processes of the same code on the same PostgreSQL, one with the audit and one without it,
take turns under the same load; a pair of turns gives one ratio.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from pydantic import JsonValue

from benchmarks.chat import idle_cores
from benchmarks.load import ClosedLoop, Run
from benchmarks.quantiles import ratios, spread
from benchmarks.records_requests import OPERATIONS, Operation, Requests, subjects
from benchmarks.records_servers import Store
from benchmarks.records_wire import RecordsClient
from benchmarks.report import Chart, Column, Draft, Report, verdict
from benchmarks.screen import Bar, bar
from benchmarks.summary import MS, count_failures
from benchmarks.targets import Target, loopback

GOALS: dict[Operation, float] = {"read": 2.0, "search": 2.0, "write": 1.3}
MAX_REQUESTS = 20_000

COLUMNS = [
    Column(key="side", title="side", meaning="with the audit, without it, or a running platform"),
    Column(key="operation", title="operation", meaning="read by id, search, or write"),
    Column(key="clients", title="clients", meaning="clients at once, each waiting for its answer"),
    Column(key="turns", title="turns", meaning="measured stretches"),
    Column(key="requests", title="requests", meaning="requests that were sent in all turns"),
    Column(key="rejected", title="429", meaning="turned away in good order with status 429"),
    Column(key="failed", title="failed", meaning="everything else without status 2xx"),
    Column(key="failures", title="failures", meaning="how many failed in which way"),
    Column(key="per_s", title="per s", meaning="answers with status 2xx a second, median of turns"),
    Column(key="p50_ms", title="p50", meaning="ms to the whole answer, median over all turns"),
    Column(key="p95_ms", title="p95", meaning="ms to the whole answer, 95th percentile"),
    Column(key="p99_ms", title="p99", meaning="ms to the whole answer, 99th percentile"),
    Column(key="worst_ms", title="worst", meaning="ms to the whole answer, the longest"),
    Column(key="cost", title="cost", meaning="time an answer, with the audit over without: median"),
    Column(key="cost_least", title="least", meaning="the same, the lowest pair"),
    Column(key="cost_most", title="most", meaning="the same, the highest pair"),
    Column(key="generator_cores", title="generator", meaning="cores that the generator kept busy"),
    Column(key="idle_cores", title="idle", meaning="cores busy on the machine before the load"),
]


@dataclass(frozen=True, slots=True)
class RecordsOptions:
    """What is asked; `seconds` is the length of one turn, of which `pairs` go to each side."""

    clients: tuple[int, ...] = (1, 8, 32, 100, 200)
    operations: tuple[Operation, ...] = OPERATIONS
    pairs: int = 5
    seconds: float = 2.0
    warm_up_s: float = 1.0
    timeout_s: float = 30.0
    patients: int = 60
    seed: int = 1

    def loads(self) -> list[ClosedLoop]:
        """One for each number of clients. Raises `ValueError` for one out of bounds."""
        return [ClosedLoop(n, MAX_REQUESTS, self.seconds) for n in self.clients]

    def recorded(self) -> dict[str, JsonValue]:
        """As the report holds them."""
        return {
            "clients": list(self.clients),
            "operations": list(self.operations),
            "pairs": self.pairs,
            "seconds": self.seconds,
            "warm_up_s": self.warm_up_s,
            "timeout_s": self.timeout_s,
            "patients": self.patients,
            "seed": self.seed,
        }


@dataclass(slots=True)
class Side:
    """One server, and what was measured on it for one operation and load."""

    name: str
    target: Target
    requests: Requests
    runs: list[Run] = field(default_factory=list)

    @property
    def speeds(self) -> list[float]:
        """Complete answers a second, turn by turn."""
        return [sum(o.is_complete for o in run.outcomes) / run.wall_s for run in self.runs]


def run(base_url: str, api_key: str, options: RecordsOptions, *, quiet: bool = False) -> Report:
    """Measures a platform that is already up; its audit stays on, so that there is no ratio."""
    target = loopback(base_url)
    draft = Draft("records", {"base_url": target.url, **options.recorded()}, COLUMNS)
    side = Side("running", target, Requests(target, api_key, subjects(target, api_key)))
    _measure([side], options, draft, quiet)
    return draft.close()


def compare(store: Store, options: RecordsOptions, *, quiet: bool = False) -> Report:
    """Measures two API processes on `store`, with the audit and without, in alternating turns."""
    draft = Draft("records", {"processes": "uvicorn", **options.recorded()}, COLUMNS)
    with store.serving(options.patients, options.seed) as (audited, plain, api_key):
        found = subjects(audited, api_key)
        sides = [
            Side("audit", audited, Requests(audited, api_key, found)),
            Side("no audit", plain, Requests(plain, api_key, found)),
        ]
        _measure(sides, options, draft, quiet)
    draft.notes.append(
        "Both sides: one API process each, no Ray and no HAProxy, on the same PostgreSQL with the "
        "same records; without the audit a write commits durably by itself."
    )
    return draft.close()


def _measure(sides: Sequence[Side], options: RecordsOptions, draft: Draft, quiet: bool) -> None:
    turns = len(sides) * options.pairs * len(options.operations) * len(options.clients)
    with bar(turns, quiet=quiet) as progress:
        asyncio.run(_measure_all(sides, options, draft, progress))
    _chart(draft)


async def _measure_all(
    sides: Sequence[Side], options: RecordsOptions, draft: Draft, progress: Bar
) -> None:
    idle = await idle_cores()
    for operation in options.operations:
        for load in options.loads():
            progress.stage(f"{operation}, {load.clients} clients")
            for side in sides:
                side.runs.clear()
                await _turn(side, operation, load, options, "warm-up", options.warm_up_s)
            for pair in range(options.pairs):
                # Whoever goes first in one pair goes second in the next.
                for side in sides if pair % 2 == 0 else sides[::-1]:
                    seed = f"{pair}"
                    side.runs.append(
                        await _turn(side, operation, load, options, seed, options.seconds)
                    )
                    progress.advance()
            _tell(sides, operation, load, idle, draft)


async def _turn(
    side: Side,
    operation: Operation,
    load: ClosedLoop,
    options: RecordsOptions,
    turn: str,
    seconds: float,
) -> Run:
    """The same turn asks the same of both sides; only the keys of writes differ."""
    client = RecordsClient(side.target, options.timeout_s)
    supply = side.requests.of(operation, f"{options.seed}/{load.clients}/{turn}")
    try:
        bounded = ClosedLoop(load.clients, load.requests, seconds)
        return await bounded.run(client, supply, lambda: None)
    finally:
        client.close()


def _tell(
    sides: Sequence[Side], operation: Operation, load: ClosedLoop, idle: float, draft: Draft
) -> None:
    """A row for each side, and the verdict where there are two."""
    for side in sides:
        outcomes = [outcome for run in side.runs for outcome in run.outcomes]
        failures = count_failures(outcomes)
        took = spread([outcome.whole_s for outcome in outcomes if outcome.is_complete])
        cells: dict[str, float] = {}
        if len(sides) == 2 and side is sides[0]:
            # Over a fixed number of clients, time an answer is the inverse of answers a second.
            cost = ratios(sides[1].speeds, side.speeds)
            cells = {"cost": cost.middle, "cost_least": cost.least, "cost_most": cost.most}
            goal = f"{operation}, {load.clients} clients: time with the audit over without"
            draft.verdicts.append(verdict(goal, cost.middle, "at most", GOALS[operation]))
        draft.row(
            side=side.name,
            operation=operation,
            clients=load.clients,
            turns=len(side.runs),
            requests=len(outcomes),
            rejected=sum(outcome.is_rejected for outcome in outcomes),
            failed=failures.total(),
            failures=", ".join(f"{n} {kind}" for kind, n in failures.most_common()) or None,
            per_s=median(side.speeds),
            p50_ms=took.p50 * MS,
            p95_ms=took.p95 * MS,
            p99_ms=took.p99 * MS,
            worst_ms=took.worst * MS,
            generator_cores=median(run.generator_cores for run in side.runs),
            idle_cores=idle,
            **cells,
        )


def _chart(draft: Draft) -> None:
    for key, title in (("per_s", "answers a second"), ("p95_ms", "p95, ms")):
        series: dict[str, list[tuple[float, float]]] = {}
        for row in draft.rows:
            value, clients = row.get(key), row["clients"]
            if isinstance(value, int | float) and isinstance(clients, int):
                name = f"{row['operation']}, {row['side']}"
                series.setdefault(name, []).append((float(clients), float(value)))
        draft.charts.append(Chart(title=title, x="clients", y=title, series=series))
