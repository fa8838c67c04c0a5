"""Benchmark `autoscale`: under steady load the replicas of a model multiply, and go again after it;
what that does to throughput and to the first text."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.chat import requests
from benchmarks.load import ClosedLoop, Run
from benchmarks.outcome import Outcome
from benchmarks.prompts import Mix
from benchmarks.quantiles import spread
from benchmarks.report import Cell, Chart, Column, Draft, Report, verdict
from benchmarks.screen import bar
from benchmarks.targets import Target
from benchmarks.wire import ChatClient

SAMPLE_S = 1.0
WINDOW_S = 5.0
MS = 1000.0

COLUMNS = [
    Column(key="phase", title="phase", meaning="before the first new replica, or with all of them"),
    Column(key="replicas", title="replicas", meaning="engine replicas that run"),
    Column(key="seconds", title="seconds", meaning="how long the phase lasted under load"),
    Column(key="tokens_per_s", title="tokens/s", meaning="answer tokens in the phase per second"),
    Column(key="first_p50_ms", title="first p50", meaning="ms to the first text, median"),
    Column(key="first_p95_ms", title="first p95", meaning="ms to the first text, 95th percentile"),
    Column(key="failed", title="failed", meaning="requests of the phase that failed"),
]

CountReplicas = Callable[[], int]


@dataclass(frozen=True, slots=True)
class AutoscaleOptions:
    """Steady load of so many clients for so long, then watch the fall for at most `fall_s`."""

    clients: int = 32
    seconds: float = 90.0
    fall_s: float = 240.0
    mix: Mix = "short"
    timeout_s: float = 120.0
    seed: int = 1


@dataclass
class Watch:
    """Replica counts by time, oldest first; times of `time.perf_counter`."""

    samples: list[tuple[float, int]] = field(default_factory=list)

    def take(self, count: int) -> None:
        self.samples.append((time.perf_counter(), count))

    def first_time_over(self, count: int) -> float:
        """When more than `count` replicas were first seen; nan if never."""
        return next((at for at, seen in self.samples if seen > count), math.nan)

    def reached(self, count: int) -> float:
        """When at least `count` replicas were first seen; nan if never."""
        return self.first_time_over(count - 1)


def replica_counter(details: Callable[[], dict[str, Any]], model: str) -> CountReplicas:
    """Counts the running replicas of `model` in what Serve's REST interface reports."""

    def count() -> int:
        deployments = details()["applications"]["ai"]["deployments"]
        return sum(replica["state"] == "RUNNING" for replica in deployments[model]["replicas"])

    return count


def run(
    target: Target,
    model: str,
    count: CountReplicas,
    options: AutoscaleOptions,
    *,
    quiet: bool = False,
) -> Report:
    """Loads a running platform; `count` is asked once a second, in a thread."""
    draft = Draft(
        "autoscale",
        {
            "base_url": target.url,
            "model": model,
            "clients": options.clients,
            "seconds": options.seconds,
            "fall_s": options.fall_s,
            "mix": options.mix,
            "seed": options.seed,
        },
        COLUMNS,
    )
    steps = round((options.seconds + options.fall_s) / SAMPLE_S)
    with bar(steps, quiet=quiet) as progress:
        progress.stage("load")
        watch, measured, ended = asyncio.run(
            _observe(target, model, count, options, progress.advance)
        )
    _conclude(draft, watch, measured, ended)
    return draft.close()


async def _observe(
    target: Target,
    model: str,
    count: CountReplicas,
    options: AutoscaleOptions,
    advance: Callable[[], None],
) -> tuple[Watch, Run, float]:
    watch = Watch()
    watch.take(await asyncio.to_thread(count))
    client = ChatClient(target, model, options.timeout_s)
    supply = requests(client, options.mix, options.seed, None)
    load = ClosedLoop(options.clients, 20_000, options.seconds)
    running = asyncio.create_task(load.run(client, supply, lambda: None))
    try:
        while not running.done():
            await asyncio.sleep(SAMPLE_S)
            watch.take(await asyncio.to_thread(count))
            advance()
        measured = running.result()
        ended = time.perf_counter()
        while time.perf_counter() < ended + options.fall_s:
            if watch.samples[-1][1] <= watch.samples[0][1]:
                break
            await asyncio.sleep(SAMPLE_S)
            watch.take(await asyncio.to_thread(count))
            advance()
    finally:
        running.cancel()
        client.close()
    return watch, measured, ended


def _conclude(draft: Draft, watch: Watch, measured: Run, ended: float) -> None:
    started, least = watch.samples[0]
    most = max(seen for _, seen in watch.samples)
    grew, grown = watch.first_time_over(least), watch.reached(most)
    phases = [("before", least, started, ended if math.isnan(grew) else grew)]
    if most > least:
        phases.append(("after", most, grown, ended))
    for phase, replicas, start, end in phases:
        draft.row(phase=phase, replicas=replicas, **cells(measured.outcomes, start, end))
    fell = next(
        (at for at, seen in watch.samples if at > ended and seen <= least and most > least),
        math.nan,
    )
    draft.verdicts.append(verdict("replicas under load", float(most), "at least", least + 1))
    if most > least:
        before, after = (float(row["tokens_per_s"] or 0) for row in draft.rows[:2])
        ratio = after / before if before else math.nan
        draft.verdicts.append(verdict("tokens/s after over before", ratio, "at least", 1.05))
        draft.verdicts.append(verdict("s until they are gone", fell - ended, "at most", 240))
        draft.notes.append(
            f"The first new replica ran {grew - started:.0f} s after the load began."
        )
    draft.charts += _charts(watch, measured.outcomes, started, ended)


def cells(outcomes: Sequence[Outcome], start: float, end: float) -> dict[str, Cell]:
    """What happened between two times. An answer's tokens are spread evenly over its pieces."""
    first = spread([o.first_token_s for o in outcomes if o.is_complete and start <= o.first < end])
    return {
        "seconds": end - start,
        "tokens_per_s": tokens_between(outcomes, start, end) / (end - start),
        "first_p50_ms": first.p50 * MS,
        "first_p95_ms": first.p95 * MS,
        "failed": sum(
            not o.is_complete and not o.is_rejected and start <= o.ended < end for o in outcomes
        ),
    }


def tokens_between(outcomes: Sequence[Outcome], start: float, end: float) -> float:
    return sum(
        o.completion_tokens / len(o.arrivals) * sum(start <= at < end for at in o.arrivals)
        for o in outcomes
        if o.is_complete and o.arrivals
    )


def _charts(watch: Watch, outcomes: Sequence[Outcome], started: float, ended: float) -> list[Chart]:
    replicas = [(at - started, float(seen)) for at, seen in watch.samples]
    speeds: list[tuple[float, float]] = []
    at = started
    while at < ended:
        speeds.append((at - started, tokens_between(outcomes, at, at + WINDOW_S) / WINDOW_S))
        at += WINDOW_S
    return [
        Chart(title="replicas", x="s", y="running", kind="step", series={"replicas": replicas}),
        Chart(title="throughput", x="s", y="tokens/s", series={"tokens/s": speeds}),
    ]
