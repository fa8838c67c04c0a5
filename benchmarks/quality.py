"""Benchmark `quality`: the demo model's held-out questions, asked greedily over HTTP and graded by
program, beside a nearest-neighbour look-up in the training questions."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import httpx

from benchmarks.chat import first_model
from benchmarks.report import Chart, Column, Draft, Report, verdict
from benchmarks.screen import Bar, bar
from benchmarks.targets import Target, loopback
from models.demo.language import Item, NearestNeighbour, grade, held_out_items

MAX_ATTEMPTS = 5
GOAL = 0.9

COLUMNS = [
    Column(key="task", title="task", meaning="what the questions are about"),
    Column(key="language", title="language", meaning="pt or en"),
    Column(key="items", title="items", meaning="questions that were asked"),
    Column(key="correct", title="correct", meaning="answers with every required fact, none wrong"),
    Column(
        key="failed", title="failed", meaning="questions without an answer; they count as wrong"
    ),
    Column(key="accuracy", title="accuracy", meaning="correct of items"),
    Column(key="baseline", title="baseline", meaning="the same for the nearest training question"),
]


@dataclass(frozen=True, slots=True)
class QualityOptions:
    """`baseline` is how many training questions the look-up may choose from; 0 leaves it out."""

    baseline: int = 20_000
    concurrency: int = 8
    timeout_s: float = 60.0
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class Graded:
    """One question's outcome; `is_baseline_correct` is None without a baseline."""

    item: Item
    is_answered: bool
    is_correct: bool
    is_baseline_correct: bool | None


def run(
    base_url: str,
    model: str | None,
    options: QualityOptions,
    *,
    api_key: str = "",
    quiet: bool = False,
) -> Report:
    """Asks every held-out question once."""
    target = loopback(base_url, api_key)
    model = model or first_model(target)
    items = held_out_items()[: options.limit]
    draft = Draft(
        "quality",
        {
            "base_url": target.url,
            "model": model,
            "baseline": options.baseline,
            "concurrency": options.concurrency,
            "limit": options.limit,
        },
        COLUMNS,
    )
    steps = len(items) * (2 if options.baseline else 1)
    with bar(steps, quiet=quiet) as progress:
        progress.stage("asking")
        answers = asyncio.run(_ask_all(target, model, items, options, progress))
        baseline = _look_up_all(items, options.baseline, progress)
    graded = [
        Graded(item, answer is not None, answer is not None and grade(item, answer).passed, known)
        for item, answer, known in zip(items, answers, baseline, strict=True)
    ]
    _tabulate(draft, graded)
    return draft.close()


async def _ask_all(
    target: Target, model: str, items: Sequence[Item], options: QualityOptions, progress: Bar
) -> list[str | None]:
    room = asyncio.Semaphore(options.concurrency)
    async with httpx.AsyncClient(
        headers=target.headers, timeout=options.timeout_s, trust_env=False
    ) as client:

        async def one(item: Item) -> str | None:
            async with room:
                answer = await ask(client, target, model, item)
            progress.advance()
            return answer

        return list(await asyncio.gather(*(one(item) for item in items)))


async def ask(client: httpx.AsyncClient, target: Target, model: str, item: Item) -> str | None:
    """The answer's text; None after a failure, or when it was turned away too often."""
    body = {
        "model": model,
        "messages": list(item.messages),
        "max_tokens": item.max_tokens,
        "temperature": 0,
    }
    for _ in range(MAX_ATTEMPTS):
        try:
            answer = await client.post(f"{target.url}/v1/chat/completions", json=body)
        except httpx.HTTPError:
            return None
        if answer.status_code == 429:
            await asyncio.sleep(min(float(answer.headers.get("retry-after", 1)), 5.0))
            continue
        if answer.status_code != 200:
            return None
        return str(answer.json()["choices"][0]["message"]["content"] or "")
    return None


def _look_up_all(items: Sequence[Item], size: int, progress: Bar) -> list[bool | None]:
    if not size:
        return [None] * len(items)
    progress.stage("baseline")
    neighbour = NearestNeighbour(size)
    found: list[bool | None] = []
    for item in items:
        found.append(grade(item, neighbour.answer(item)).passed)
        progress.advance()
    return found


def _tabulate(draft: Draft, graded: Sequence[Graded]) -> None:
    groups: dict[tuple[str, str], list[Graded]] = {}
    for one in graded:
        groups.setdefault((one.item.task, one.item.language), []).append(one)
    for (task, language), group in sorted(groups.items()):
        _row(draft, task, language, group)
    _row(draft, "all", None, graded)
    whole = draft.rows[-1]
    accuracy, baseline = whole["accuracy"], whole["baseline"]
    assert isinstance(accuracy, float)
    draft.verdicts.append(verdict("held-out accuracy", accuracy, "at least", GOAL))
    if isinstance(baseline, float):
        goal = "accuracy over the nearest neighbour's"
        draft.verdicts.append(verdict(goal, accuracy - baseline, "at least", 0.0))
    tasks = sorted({one.item.task for one in graded})
    series: dict[str, list[tuple[float, float]]] = {}
    for row in draft.rows:
        if row["task"] in tasks:
            at = float(tasks.index(str(row["task"])) + 1)
            series.setdefault(str(row["language"]), []).append((at, float(row["accuracy"] or 0)))
    numbered = ", ".join(f"{at} {task}" for at, task in enumerate(tasks, 1))
    draft.charts.append(
        Chart(title="held-out accuracy", x=numbered, y="accuracy", kind="bar", series=series)
    )


def _row(draft: Draft, task: str, language: str | None, group: Sequence[Graded]) -> None:
    correct = sum(one.is_correct for one in group)
    known = [one.is_baseline_correct for one in group if one.is_baseline_correct is not None]
    draft.row(
        task=task,
        language=language,
        items=len(group),
        correct=correct,
        failed=sum(not one.is_answered for one in group),
        accuracy=correct / len(group),
        baseline=sum(known) / len(known) if known else None,
    )
