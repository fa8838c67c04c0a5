"""Benchmark `engine`: the language engine without HTTP, against mlx-lm's BatchGenerator used
directly and against one sequence at a time. Each figure comes from a process of its own, in turn."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from pydantic import ValidationError

from benchmarks.endless import endless
from benchmarks.engine_jobs import THROUGHPUT, Answer, Job, Scenario, Side
from benchmarks.machine import PROJECT_ROOT
from benchmarks.quantiles import Ratios, ratios, spread
from benchmarks.report import Chart, Column, Draft, Report, verdict
from benchmarks.screen import Bar, bar

WORKER_TIMEOUT_S = 1800.0
MS = 1000.0
SIDES: tuple[Side, ...] = ("engine", "batch_generator", "one_at_a_time")
PEERED: tuple[Scenario, ...] = (*THROUGHPUT, "gap")

COLUMNS = [
    Column(key="scenario", title="scenario", meaning="which sequences, or which disturbance"),
    Column(
        key="side", title="side", meaning="the engine, or the part of mlx-lm it is held against"
    ),
    Column(key="runs", title="runs", meaning="processes that gave a figure"),
    Column(key="failed", title="failed", meaning="processes that gave none"),
    Column(key="tokens", title="tokens", meaning="tokens generated in one run"),
    Column(key="tokens_per_s", title="tokens/s", meaning="median over runs, prefill included"),
    Column(key="ratio", title="engine /", meaning="the engine's tokens/s over this side's: median"),
    Column(key="ratio_least", title="least", meaning="the same, the lowest pair"),
    Column(key="ratio_most", title="most", meaning="the same, the highest pair"),
    Column(key="gap_p50_ms", title="gap p50", meaning="ms between a chat's tokens, undisturbed"),
    Column(
        key="gap_p99_ms",
        title="gap p99",
        meaning="ms between a chat's tokens while the long prompt prefills, 99th percentile",
    ),
    Column(key="gap_worst_ms", title="gap worst", meaning="the same, the longest"),
    Column(key="gap_ratio", title="p99/p50", meaning="how much longer: median over runs"),
    Column(key="prompt_tokens", title="prompt tok", meaning="tokens of the prompts, mean of runs"),
    Column(
        key="prefill_s", title="prefill s", meaning="from the long prompt's arrival to its text"
    ),
    Column(key="cold_ms", title="cold ms", meaning="first text of a talk that was never seen"),
    Column(key="warm_ms", title="warm ms", meaning="first text of a second turn"),
    Column(key="warm_ratio", title="warm/cold", meaning="median over runs of the medians' ratio"),
    Column(key="peak_gb", title="MLX GB", meaning="peak of MLX's allocations while it prefills"),
    Column(key="resident_gb", title="resident GB", meaning="peak of the process's memory"),
]


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Which scenarios, how often, and on how many BLAS threads (the same for every side)."""

    scenarios: tuple[Scenario, ...]
    pairs: int
    threads: int
    sequences: int = 32
    context_tokens: int = 131_072
    seed: int = 1


def run(folder: Path, options: EngineOptions, *, quiet: bool = False) -> Report:
    """Raises nothing for a side that fails: its runs are counted as failed."""
    draft = Draft(
        "engine",
        {
            "model": folder.name,
            "scenarios": list(options.scenarios),
            "pairs": options.pairs,
            "threads": options.threads,
            "sequences": options.sequences,
            "context_tokens": options.context_tokens,
            "seed": options.seed,
        },
        COLUMNS,
    )
    total = sum(len(sides_of(name)) * _repeats(name, options) for name in options.scenarios)
    with tempfile.TemporaryDirectory(prefix="engine-") as scratch, bar(total, quiet=quiet) as shown:
        weights = endless(folder.resolve(), Path(scratch, "model"))
        for scenario in options.scenarios:
            _report(draft, scenario, _alternate(scenario, weights, options, shown))
    return draft.close()


def sides_of(scenario: Scenario) -> tuple[Side, ...]:
    """Who takes part: a prefix cache and a context of 128K have no counterpart to hold against."""
    if scenario in THROUGHPUT:
        return SIDES
    return ("engine", "batch_generator") if scenario in PEERED else ("engine",)


Answers = dict[Side, list[Answer | None]]


def _alternate(scenario: Scenario, weights: Path, options: EngineOptions, shown: Bar) -> Answers:
    """A, B, C, A, B, C, …: the sides of a pair run next to each other in time."""
    answers: Answers = {side: [] for side in sides_of(scenario)}
    for pair in range(_repeats(scenario, options)):
        for side in answers:
            shown.stage(f"{scenario} {pair + 1}: {side}")
            job = Job(
                side=side,
                scenario=scenario,
                folder=str(weights),
                threads=options.threads,
                sequences=options.sequences,
                context_tokens=options.context_tokens,
                seed=options.seed + 1000 * pair,
            )
            answers[side].append(work(job))
            shown.advance()
    return answers


def work(job: Job) -> Answer | None:
    """The job in a process of its own; None when it failed or took too long."""
    command = [sys.executable, "-m", "benchmarks.engine_worker", job.model_dump_json()]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    try:
        done = subprocess.run(
            command,
            cwd=PROJECT_ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=WORKER_TIMEOUT_S,
            check=True,
        )
        return Answer.model_validate_json(done.stdout.splitlines()[-1])
    except (subprocess.SubprocessError, ValidationError, IndexError):
        return None


def _report(draft: Draft, scenario: Scenario, answers: Answers) -> None:
    if scenario in THROUGHPUT:
        _report_throughput(draft, scenario, answers)
    elif scenario == "second-turn":
        _report_second_turn(draft, answers)
    else:
        _report_gaps(draft, scenario, answers)


def _report_throughput(draft: Draft, scenario: Scenario, answers: Answers) -> None:
    speeds = {side: [_speed(answer) for answer in runs] for side, runs in answers.items()}
    for side, runs in answers.items():
        good = [answer for answer in runs if answer is not None]
        by_pair = ratios(speeds["engine"], speeds[side]) if side != "engine" else Ratios(())
        draft.row(
            **_origin(scenario, side, runs),
            tokens=good[0].tokens if good else None,
            tokens_per_s=_median([_speed(answer) for answer in good]),
            ratio=by_pair.middle,
            ratio_least=by_pair.least,
            ratio_most=by_pair.most,
            prompt_tokens=_median([float(answer.prompt_tokens) for answer in good]),
        )
        if side == "batch_generator":
            limit = 0.95 if scenario == "equal" else 1.0
            goal = f"{scenario}: tokens/s over BatchGenerator's"
            draft.verdicts.append(verdict(goal, by_pair.middle, "at least", limit))
    series: dict[str, list[tuple[float, float]]] = {
        side: [(float(pair + 1), speed) for pair, speed in enumerate(found)]
        for side, found in speeds.items()
    }
    draft.charts.append(Chart(title=scenario, x="pair", y="tokens/s", kind="bar", series=series))


def _report_gaps(draft: Draft, scenario: Scenario, answers: Answers) -> None:
    for side, runs in answers.items():
        good = [answer for answer in runs if answer is not None and answer.disturbed_gaps_s]
        calm = [spread(answer.undisturbed_gaps_s) for answer in good]
        disturbed = [spread(answer.disturbed_gaps_s) for answer in good]
        ratio = _median([d.p99 / c.p50 for d, c in zip(disturbed, calm, strict=True)])
        draft.row(
            **_origin(scenario, side, runs),
            gap_p50_ms=_median([c.p50 * MS for c in calm]),
            gap_p99_ms=_median([d.p99 * MS for d in disturbed]),
            gap_worst_ms=_median([d.worst * MS for d in disturbed]),
            gap_ratio=ratio,
            prompt_tokens=_median([float(answer.prompt_tokens) for answer in good]),
            prefill_s=_median([answer.prefill_s for answer in good]),
            peak_gb=_median([answer.peak_memory_gb for answer in good]) or None,
            resident_gb=_median([answer.resident_gb for answer in good]) or None,
        )
        if side == "engine":
            goal = f"{scenario}: p99 gap over the prefill against the median gap before it"
            draft.verdicts.append(verdict(goal, ratio, "at most", 5))


def _report_second_turn(draft: Draft, answers: Answers) -> None:
    runs = answers["engine"]
    good = [answer for answer in runs if answer is not None and answer.warm_first_s]
    ratio = _median([median(a.warm_first_s) / median(a.cold_first_s) for a in good])
    talks = len(good[0].warm_first_s) if good else 1
    draft.row(
        **_origin("second-turn", "engine", runs),
        cold_ms=_median([median(answer.cold_first_s) * MS for answer in good]),
        warm_ms=_median([median(answer.warm_first_s) * MS for answer in good]),
        warm_ratio=ratio,
        prompt_tokens=_median([answer.prompt_tokens / talks for answer in good]),
    )
    goal = "second-turn: first text against the cold one"
    draft.verdicts.append(verdict(goal, ratio, "at most", 0.25))


def _origin(scenario: Scenario, side: Side, runs: Sequence[Answer | None]) -> dict[str, str | int]:
    failed = sum(answer is None for answer in runs)
    return {"scenario": scenario, "side": side, "runs": len(runs) - failed, "failed": failed}


def _repeats(scenario: Scenario, options: EngineOptions) -> int:
    """A context of 128K takes minutes and is shown once; the rest in pairs."""
    return 1 if scenario == "context" else options.pairs


def _speed(answer: Answer | None) -> float:
    return 0.0 if answer is None or not answer.wall_s else answer.tokens / answer.wall_s


def _median(figures: Sequence[float]) -> float:
    return median(figures) if figures else math.nan
