"""Benchmark `chat --peer mlx_lm`: our platform and mlx_lm.server in alternating turns of one run.

Only the side whose turn it is has processes; both load the same weights and the same BLAS, answer
the same greedy requests to the same lengths, and are counted by their own `usage`.
"""

from __future__ import annotations

import asyncio
import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import yaml

from benchmarks.chat import ChatOptions, Load, idle_cores, label, measure, warm_up
from benchmarks.endless import endless
from benchmarks.load import ClosedLoop, Run
from benchmarks.machine import usable_cores
from benchmarks.prompts import Mix
from benchmarks.quantiles import ratios
from benchmarks.report import Chart, Draft, Report, verdict
from benchmarks.screen import Bar, bar
from benchmarks.servers import Peer, PeerFlags, Platform, Server, ServerFailed
from benchmarks.summary import COLUMNS, count_failures, summarise

PAIRS = 5
GOAL = 1.2
GOAL_CLIENTS = 32
TUNE_CLIENTS, TUNE_REQUESTS, TUNE_LIMIT_S = 32, 96, 60.0


@dataclass(frozen=True, slots=True)
class Sides:
    """How the two servers come to be."""

    ours: Callable[[], Server]
    peer: Callable[[PeerFlags], Server]


def run(
    config: Path,
    folder: Path,
    options: ChatOptions,
    *,
    pairs: int = PAIRS,
    flags: PeerFlags | None = None,
    quiet: bool = False,
) -> Report:
    """Compares the platform of `config`, serving the model in `folder`, with mlx_lm.server on it.

    Without `flags` the peer's best ones are searched first, at 32 clients.
    """
    with tempfile.TemporaryDirectory(prefix="duel-") as scratch:
        weights = endless(folder.resolve(), Path(scratch, "model"))
        site, model = with_model(config, weights, Path(scratch, "site.yaml"))
        home = Path(scratch, "home")
        sides = Sides(lambda: Platform(site, model, home), lambda best: Peer(weights, best))
        return compare(sides, model, options, pairs=pairs, flags=flags, quiet=quiet)


def compare(
    sides: Sides,
    model: str,
    options: ChatOptions,
    *,
    pairs: int,
    flags: PeerFlags | None,
    quiet: bool,
) -> Report:
    """The comparison itself, whatever the servers are."""
    recorded = {"peer": "mlx_lm", "model": model, "pairs": pairs, **options.recorded()}
    draft = Draft("chat-peer", recorded, COLUMNS)
    turns = 2 * pairs * len(options.loads()) * len(options.mixes)
    with bar(turns, quiet=quiet) as progress:
        asyncio.run(_alternate(sides, options, pairs, flags, draft, progress))
    _conclude(draft, options)
    return draft.close()


async def _alternate(
    sides: Sides,
    options: ChatOptions,
    pairs: int,
    flags: PeerFlags | None,
    draft: Draft,
    progress: Bar,
) -> None:
    if flags is None:
        progress.stage("searching the peer's best flags")
        flags = await best_flags(sides.peer, options, draft)
    draft.options["peer_flags"] = {
        "threads": flags.threads,
        "decode_concurrency": flags.decode_concurrency,
        "prompt_concurrency": flags.prompt_concurrency,
    }
    for turn in range(pairs):
        for mix in options.mixes:
            for load in options.loads():
                for server in (sides.ours(), sides.peer(wide_enough(flags, load))):
                    progress.stage(f"{turn + 1}/{pairs} {mix}, {label(load)}: {server.name}")
                    await _one_turn(server, mix, load, options, turn, draft)
                    progress.advance()


async def _one_turn(
    server: Server, mix: Mix, load: Load, options: ChatOptions, turn: int, draft: Draft
) -> None:
    """Start, let settle, warm up, measure, stop; a side that fails leaves a row that says so."""
    try:
        target = await server.start()
        try:
            idle = await idle_cores()
            await warm_up(target, server.model, mix, load, options)
            run = await measure(target, server.model, mix, load, options, turn, lambda: None)
        finally:
            await server.stop()
    except ServerFailed as failure:
        idle, run = math.nan, Run([], 1.0, 0.0)
        draft.notes.append(f"Turn {turn + 1}, {label(load)}: {failure}.")
    cells = summarise(run)
    draft.row(side=server.name, turn=turn + 1, mix=mix, load=label(load), idle_cores=idle, **cells)


def wide_enough(flags: PeerFlags, load: Load) -> PeerFlags:
    """The peer's best flags, with at least as many decoding sequences as there are clients."""
    if isinstance(load, ClosedLoop) and load.clients > TUNE_CLIENTS:
        return replace(flags, decode_concurrency=max(flags.decode_concurrency, load.clients))
    return flags


def candidates(cores: int) -> list[PeerFlags]:
    """What the search tries: every thread count up to the cores', wide and narrow prefill."""
    counts = sorted({1, *(n for n in (2, 4, 8) if n < cores), cores})
    return [PeerFlags(threads, 32, width) for threads in counts for width in (8, 32)]


async def best_flags(
    peer: Callable[[PeerFlags], Server], options: ChatOptions, draft: Draft
) -> PeerFlags:
    """The candidate with the most tokens a second at 32 clients; each try is noted."""
    load = ClosedLoop(TUNE_CLIENTS, TUNE_REQUESTS, TUNE_LIMIT_S)
    brief = replace(options, warm_up_s=min(3.0, options.warm_up_s))
    speeds: dict[PeerFlags, float] = {}
    for flags in candidates(usable_cores()):
        server = peer(flags)
        try:
            target = await server.start()
            try:
                await warm_up(target, server.model, options.mixes[0], load, brief)
                measured = await measure(
                    target, server.model, options.mixes[0], load, brief, -1, lambda: None
                )
            finally:
                await server.stop()
        except ServerFailed as failure:
            draft.notes.append(f"Search of flags: {failure}.")
            continue
        speed = summarise(measured)["tokens_per_s"]
        speeds[flags] = float(speed) if isinstance(speed, int | float) else 0.0
        draft.notes.append(
            f"Search of flags: {flags.threads} threads, prompt concurrency "
            f"{flags.prompt_concurrency}: {speeds[flags]:.0f} tokens/s, "
            f"{count_failures(measured.outcomes).total()} failed."
        )
    if not speeds:
        raise ServerFailed("mlx_lm.server did not start with any of its flags")
    return max(speeds, key=lambda flags: speeds[flags])


def _conclude(draft: Draft, options: ChatOptions) -> None:
    """Medians, ratios pair by pair, the goals, and whether both sides gave the same lengths."""
    for mix in options.mixes:
        for load in options.loads():
            name = label(load)
            rows = [row for row in draft.rows if row["mix"] == mix and row["load"] == name]
            sides = list(dict.fromkeys(str(row["side"]) for row in rows))
            speeds = {
                s: [_number(r["tokens_per_s"]) for r in rows if r["side"] == s] for s in sides
            }
            failed = {
                s: sum(int(_number(r["failed"])) for r in rows if r["side"] == s) for s in sides
            }
            lengths = {s: {r["answer_tokens"] for r in rows if r["side"] == s} for s in sides}
            ours, peer = sides
            by_pair = ratios(speeds[ours], speeds[peer])
            draft.notes.append(
                f"{mix}, {name}: median {median(speeds[ours]):.0f} tokens/s against "
                f"{median(speeds[peer]):.0f}; ours over the peer's pair by pair: median "
                f"{by_pair.middle:.2f}, from {by_pair.least:.2f} to {by_pair.most:.2f} "
                f"({len(by_pair.pairs)} pairs)."
            )
            draft.notes += [
                f"{mix}, {name}: {side} FAILED {count} requests; see `failures`."
                for side, count in failed.items()
                if count
            ]
            if lengths[ours] != lengths[peer]:
                draft.notes.append(f"{mix}, {name}: the sides' answers differ in mean length.")
            _verdicts(draft, mix, load, by_pair.middle, failed[ours])


def _verdicts(draft: Draft, mix: Mix, load: Load, ratio: float, failed: int) -> None:
    if not isinstance(load, ClosedLoop):
        return
    where = f"{mix}, {label(load)}"
    if load.clients == GOAL_CLIENTS:
        goal = f"{where}: tokens/s over mlx_lm.server's"
        draft.verdicts.append(verdict(goal, ratio, "at least", GOAL))
    if load.clients == 200:
        draft.verdicts.append(verdict(f"{where}: our failed requests", failed, "at most", 0))
    points: dict[str, list[tuple[float, float]]] = {}
    for row in draft.rows:
        if row["mix"] == mix and row["load"] == label(load):
            point = (_number(row["turn"]), _number(row["tokens_per_s"]))
            points.setdefault(str(row["side"]), []).append(point)
    draft.charts.append(Chart(title=where, x="turn", y="tokens/s", kind="bar", series=points))


def with_model(config: Path, weights: Path, site: Path) -> tuple[Path, str]:
    """Writes `site`: `config` with its first language model's weights taken from `weights`."""
    content = yaml.safe_load(config.read_text())
    ai = next(app for app in content["applications"] if app["name"] == "ai")
    model = ai["args"]["language"][0]
    model.pop("repository", None)
    model.pop("revision", None)
    model["path"] = str(weights)
    site.write_text(yaml.safe_dump(content, sort_keys=False))
    return site, str(model["model"])


def _number(cell: object) -> float:
    return float(cell) if isinstance(cell, int | float) else 0.0
