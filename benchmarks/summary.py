"""From what the clients saw to the columns of the report."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

from benchmarks.load import Run
from benchmarks.outcome import Outcome
from benchmarks.quantiles import spread
from benchmarks.report import Cell, Column

MS = 1000.0

COLUMNS = [
    Column(key="side", title="side", meaning="which server answered"),
    Column(key="turn", title="turn", meaning="number of the pair of alternating turns"),
    Column(key="mix", title="mix", meaning="which prompts and answer lengths"),
    Column(key="load", title="load", meaning="clients at once, or arrivals a second"),
    Column(key="requests", title="requests", meaning="requests that were sent"),
    Column(key="complete", title="complete", meaning="answers that came whole, with usage"),
    Column(key="rejected", title="429", meaning="turned away in good order with status 429"),
    Column(key="failed", title="failed", meaning="everything else, by kind in `failures`"),
    Column(key="failures", title="failures", meaning="how many failed in which way"),
    Column(key="unsent", title="unsent", meaning="requests left over when the time was up"),
    Column(
        key="tokens_per_s",
        title="tokens/s",
        meaning="answer tokens of complete answers, from usage, per second of the whole run",
    ),
    Column(key="requests_per_s", title="req/s", meaning="complete answers per second"),
    Column(key="first_p50_ms", title="first p50", meaning="ms to the first text, median"),
    Column(key="first_p95_ms", title="p95", meaning="ms to the first text, 95th percentile"),
    Column(key="first_p99_ms", title="p99", meaning="ms to the first text, 99th percentile"),
    Column(key="first_worst_ms", title="worst", meaning="ms to the first text, the longest"),
    Column(key="gap_p50_ms", title="gap p50", meaning="ms between pieces of text, median"),
    Column(key="gap_p95_ms", title="p95", meaning="ms between pieces of text, 95th percentile"),
    Column(key="gap_p99_ms", title="p99", meaning="ms between pieces of text, 99th percentile"),
    Column(key="gap_worst_ms", title="worst", meaning="ms between pieces of text, the longest"),
    Column(
        key="per_token_p50_ms",
        title="ms/token",
        meaning="ms a token after the first within one answer, median over answers",
    ),
    Column(key="whole_p95_ms", title="whole p95", meaning="ms to the end of an answer, 95th perc."),
    Column(key="prompt_tokens", title="prompt tok", meaning="mean prompt length, from usage"),
    Column(key="cached_share", title="cached", meaning="share of prompt tokens from the cache"),
    Column(key="answer_tokens", title="answer tok", meaning="mean answer length, from usage"),
    Column(key="full_length", title="full", meaning="share of answers that ended by max_tokens"),
    Column(key="wall_s", title="wall s", meaning="seconds from the first request to the last end"),
    Column(
        key="generator_cores", title="generator", meaning="cores that the load generator kept busy"
    ),
    Column(
        key="idle_cores",
        title="idle",
        meaning="cores busy on the whole machine before the load began: other work, idle servers",
    ),
]


def summarise(run: Run) -> dict[str, Cell]:
    """The cells of one run; a figure that nothing gives is nan."""
    complete = [outcome for outcome in run.outcomes if outcome.is_complete]
    failures = count_failures(run.outcomes)
    tokens = sum(outcome.completion_tokens for outcome in complete)
    prompt_tokens = sum(outcome.prompt_tokens for outcome in complete)
    first = spread([outcome.first_token_s for outcome in complete if outcome.arrivals])
    gaps = spread([gap for outcome in complete for gap in outcome.gaps()])
    per_token = [t for outcome in complete if not math.isnan(t := outcome.per_token_s)]
    return {
        "requests": len(run.outcomes),
        "complete": len(complete),
        "rejected": sum(outcome.is_rejected for outcome in run.outcomes),
        "failed": failures.total(),
        "failures": ", ".join(f"{n} {kind}" for kind, n in failures.most_common()) or None,
        "unsent": run.unsent,
        "tokens_per_s": tokens / run.wall_s,
        "requests_per_s": len(complete) / run.wall_s,
        "first_p50_ms": first.p50 * MS,
        "first_p95_ms": first.p95 * MS,
        "first_p99_ms": first.p99 * MS,
        "first_worst_ms": first.worst * MS,
        "gap_p50_ms": gaps.p50 * MS,
        "gap_p95_ms": gaps.p95 * MS,
        "gap_p99_ms": gaps.p99 * MS,
        "gap_worst_ms": gaps.worst * MS,
        "per_token_p50_ms": spread(per_token).p50 * MS,
        "whole_p95_ms": spread([outcome.whole_s for outcome in complete]).p95 * MS,
        "prompt_tokens": _share(prompt_tokens, len(complete)),
        "cached_share": _share(sum(o.cached_tokens for o in complete), prompt_tokens),
        "answer_tokens": _share(tokens, len(complete)),
        "full_length": _share(sum(o.finish_reason == "length" for o in complete), len(complete)),
        "wall_s": run.wall_s,
        "generator_cores": run.generator_cores,
    }


def count_failures(outcomes: Iterable[Outcome]) -> Counter[str]:
    """By kind: connect, reset, timeout, truncated, malformed, no usage, http N, stream CODE."""
    return Counter(o.failure for o in outcomes if not o.is_complete and not o.is_rejected)


def _share(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
