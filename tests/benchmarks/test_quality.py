"""Grading over HTTP, held to a server that knows some of the answers."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from benchmarks import quality
from benchmarks.quality import QualityOptions, ask
from benchmarks.report import Report
from benchmarks.targets import Target
from models.demo.language import held_out_items

ITEMS = held_out_items()
ANSWERS = {str(item.messages): item for item in ITEMS}


def _oracle(request: httpx.Request) -> httpx.Response:
    """Answers every question from the reference, except the triage ones, and refuses one kind."""
    import json

    body = json.loads(request.content)
    item = ANSWERS[str(tuple(body["messages"]))]
    assert (body["temperature"], body["max_tokens"]) == (0, item.max_tokens)
    if item.kind == "note":
        return httpx.Response(500)
    content = "I do not know." if item.task == "triage" else item.answer
    return httpx.Response(200, json={"choices": [{"message": {"content": content}}]})


def _run(monkeypatch: pytest.MonkeyPatch, baseline: int) -> Report:
    real = httpx.AsyncClient

    def client(**options: object) -> httpx.AsyncClient:
        return real(transport=httpx.MockTransport(_oracle))

    monkeypatch.setattr(httpx, "AsyncClient", client)
    options = QualityOptions(baseline=baseline)
    return quality.run("http://127.0.0.1:1", "m", options, quiet=True)


def test_answers_are_graded_by_task_and_language(monkeypatch: pytest.MonkeyPatch) -> None:
    report = _run(monkeypatch, baseline=0)
    rows = {(str(row["task"]), row["language"]): row for row in report.rows}
    assert rows["ranges", "pt"]["accuracy"] == 1
    assert rows["triage", "en"]["accuracy"] == 0
    assert rows["triage", "en"]["failed"] == 0
    notes = [item for item in ITEMS if item.kind == "note"]
    whole = rows["all", None]
    assert whole["items"] == len(ITEMS)
    assert whole["failed"] == len(notes)
    triage = [item for item in ITEMS if item.task == "triage"]
    assert whole["correct"] == len(ITEMS) - len(notes) - len(triage)
    assert not report.verdicts[0].met


def test_the_baseline_stands_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    report = _run(monkeypatch, baseline=200)
    whole = report.rows[-1]
    assert isinstance(whole["baseline"], float)
    assert 0 <= whole["baseline"] < 0.9


def test_a_question_that_is_turned_away_is_asked_again() -> None:
    answers = iter([httpx.Response(429, headers={"retry-after": "0"})])

    def handler(request: httpx.Request) -> httpx.Response:
        return next(answers, None) or _oracle(request)

    async def scenario() -> str | None:
        async with httpx.AsyncClient(transport=httpx.MockTransport(handler)) as client:
            return await ask(client, Target("127.0.0.1", 1), "m", ITEMS[0])

    assert asyncio.run(scenario()) == ITEMS[0].answer
