"""Grades an answer by its facts, and the nearest-neighbour look-up that is the baseline."""

from __future__ import annotations

import math
import re
from array import array
from collections import Counter
from dataclasses import dataclass
from functools import cache
from itertools import islice

import numpy as np

from models.demo.language.corpus import training_items
from models.demo.language.items import Item, without_accents

_SECTION = re.compile(r"^([SOAP]): ")


@dataclass(frozen=True)
class Grade:
    """Whether an answer holds every required fact and none of the wrong ones, and why."""

    passed: bool
    reason: str


def grade(item: Item, answer: str) -> Grade:
    """Grade `answer` strictly: whole phrases and whole numbers, apart from case and spaces."""
    lines = [" ".join(line.casefold().split()) for line in answer.strip().splitlines()]
    for choices in item.required:
        if not any(_holds(lines, fact) for fact in choices):
            return Grade(False, f"missing: {' or '.join(choices)}")
    for fact in item.forbidden:
        if _holds(lines, fact):
            return Grade(False, f"wrong: {fact}")
    return Grade(True, "every fact is there")


def _holds(lines: list[str], fact: str) -> bool:
    """Whether a line, or the one of a note's section, has the fact with nothing grown on to it."""
    section = _SECTION.match(fact)
    if section:
        marked = [line for line in lines if line.startswith(section.group(0).strip().casefold())]
        if len(marked) != 1:
            return False
        lines, fact = [marked[0][2:]], fact[section.end() :]
    pattern = _whole(" ".join(fact.casefold().split()))
    return any(pattern.search(line) for line in lines)


@cache
def _whole(fact: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w–-])(?<!\d[.,/]){re.escape(fact)}(?![\w–-])(?![.,/]\d)")


class NearestNeighbour:
    """Answers with the answer of the most similar training chat: TF-IDF of character n-grams.

    Similarity is the cosine over n-grams of 2 to 5 characters within words, case and accents
    folded, over all turns of the chat, the last one counted twice.
    """

    def __init__(self, size: int = 20_000, seed: int = 1) -> None:
        """Index `size` training chats of the stream `seed`."""
        self._items = list(islice(training_items(seed), size))
        counts = [Counter(_ngrams(item)) for item in self._items]
        seen = Counter(gram for count in counts for gram in count)
        self._rarity = {gram: math.log(size / n) + 1.0 for gram, n in seen.items()}
        found: dict[str, tuple[array[int], array[float]]] = {
            gram: (array("i"), array("f")) for gram in self._rarity
        }
        for row, count in enumerate(counts):
            for gram, weight in self._weights(count).items():
                found[gram][0].append(row)
                found[gram][1].append(weight)
        self._postings = {
            gram: (np.frombuffer(rows, np.int32), np.frombuffer(weights, np.float32))
            for gram, (rows, weights) in found.items()
        }

    def answer(self, item: Item) -> str:
        """The reference answer of the training chat nearest to this one."""
        scores = np.zeros(len(self._items), np.float32)
        for gram, weight in self._weights(Counter(_ngrams(item))).items():
            rows, weights = self._postings[gram]
            scores[rows] += weight * weights
        return self._items[int(scores.argmax())].answer

    def _weights(self, count: Counter[str]) -> dict[str, float]:
        raw = {
            gram: (1.0 + math.log(n)) * self._rarity[gram]
            for gram, n in count.items()
            if gram in self._rarity
        }
        length = math.sqrt(sum(weight * weight for weight in raw.values())) or 1.0
        return {gram: weight / length for gram, weight in raw.items()}


def _ngrams(item: Item) -> list[str]:
    turns = [message["content"] for message in item.messages if message["role"] != "system"]
    text = without_accents(" ".join([*turns, turns[-1]]).casefold())
    padded = [f" {word} " for word in text.split()]
    return [
        word[at : at + n]
        for word in padded
        for n in (2, 3, 4, 5)
        for at in range(len(word) - n + 1)
    ]
