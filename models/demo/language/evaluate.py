"""Asks the exported folder the held-out questions, greedily with MLX, beside the look-up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models import blas
from models.demo.language.corpus import held_out_items
from models.demo.language.grade import NearestNeighbour, grade
from models.demo.language.items import LANGUAGES, TASKS, Item

_ROWS = 32


@dataclass(frozen=True)
class Score:
    """How many of `asked` items passed, for one task and language."""

    passed: int
    asked: int

    def __str__(self) -> str:
        return f"{100 * self.passed / self.asked:.1f} % ({self.passed}/{self.asked})"


Scores = dict[tuple[str, str], Score]


@dataclass(frozen=True)
class Evaluation:
    """Scores by (task, language) of the model and of the look-up, and the model's failures."""

    model: Scores
    baseline: Scores
    failures: tuple[tuple[Item, str, str], ...]


def evaluate(folder: Path) -> Evaluation:
    """Grade the model in `folder` and the nearest-neighbour look-up on the held-out items."""
    items = held_out_items()
    answers = greedy_answers(folder, items)
    nearest = NearestNeighbour()
    failures = []
    for item, answer in zip(items, answers, strict=True):
        result = grade(item, answer)
        if not result.passed:
            failures.append((item, answer, result.reason))
    return Evaluation(
        scores(items, answers),
        scores(items, [nearest.answer(item) for item in items]),
        tuple(failures),
    )


def scores(items: Sequence[Item], answers: Sequence[str]) -> Scores:
    """Grades counted by task and language."""
    passed: dict[tuple[str, str], list[bool]] = {
        (task, language): [] for task in TASKS for language in LANGUAGES
    }
    for item, answer in zip(items, answers, strict=True):
        passed[item.task, item.language].append(grade(item, answer).passed)
    return {key: Score(sum(found), len(found)) for key, found in passed.items() if found}


def total(parts: Iterable[Score]) -> Score:
    """The sum of some scores."""
    held = list(parts)
    return Score(sum(part.passed for part in held), sum(part.asked for part in held))


def greedy_answers(folder: Path, items: Sequence[Item]) -> list[str]:
    """The model's likeliest answers, token by token, in float32, in the order of `items`."""
    blas.preload()
    import mlx_lm

    model, tokenizer = mlx_lm.load(str(folder))[:2]
    prompts = [
        tokenizer.apply_chat_template(list(item.messages), add_generation_prompt=True)
        for item in items
    ]
    answers: dict[int, str] = {}
    for rows in _of_one_length(prompts):
        limit = max(items[row].max_tokens for row in rows)
        said = _greedy(model, [prompts[row] for row in rows], limit, set(tokenizer.eos_token_ids))
        for row, tokens in zip(rows, said, strict=True):
            answers[row] = tokenizer.decode(tokens[: items[row].max_tokens])
    return [answers[row] for row in range(len(items))]


def _of_one_length(prompts: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Rows of prompts that need no padding together, at most `_ROWS` at a time."""
    by_length: dict[int, list[int]] = {}
    for row, prompt in enumerate(prompts):
        by_length.setdefault(len(prompt), []).append(row)
    for rows in by_length.values():
        for at in range(0, len(rows), _ROWS):
            yield rows[at : at + _ROWS]


def _greedy(model: Any, prompts: list[list[int]], limit: int, ends: set[int]) -> list[list[int]]:
    import mlx.core as mx

    cache = model.make_cache()
    tokens = mx.array(prompts)
    said: list[list[int]] = [[] for _ in prompts]
    running = set(range(len(prompts)))
    for _ in range(limit):
        chosen = model(tokens, cache=cache)[:, -1].argmax(-1)
        picked: list[int] = chosen.tolist()
        running -= {row for row in running if picked[row] in ends}
        for row in running:
            said[row].append(picked[row])
        if not running:
            break
        tokens = chosen[:, None]
    return said
