"""Chats as tokens: which of them the model learns to say, and batches of about one length."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from models.demo.language.items import Item
from models.demo.language.tokenizer import BOS, PAD

_POOL = 2048


@dataclass(frozen=True)
class Example:
    """Tokens of a chat, bos first, and for each whether the model has to say it."""

    tokens: list[int]
    said: list[bool]


@dataclass(frozen=True)
class Batch:
    """`tokens` (rows, length) int64 padded on the right, and `said` (rows, length) bool."""

    tokens: NDArray[np.int64]
    said: NDArray[np.bool_]


def example(item: Item, tokenizer: Tokenizer) -> Example:
    """The chat in the chat template, its answer in the end; every model turn is to be said."""
    pieces: list[tuple[str, bool]] = []
    system = ""
    for message in (*item.messages, {"role": "assistant", "content": item.answer}):
        text = message["content"].strip()
        if message["role"] == "system":
            system = message["content"] + "\n\n"
        elif message["role"] == "user":
            asked = f"<start_of_turn>user\n{system}{text}<end_of_turn>\n<start_of_turn>model\n"
            pieces.append((asked, False))
            system = ""
        else:
            pieces += [(f"{text}<end_of_turn>", True), ("\n", False)]
    tokens, said = [BOS], [False]
    for text, is_said in pieces[:-1]:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        tokens += ids
        said += [is_said] * len(ids)
    return Example(tokens, said)


def batches(
    items: Iterable[Item], tokenizer: Tokenizer, tokens_per_batch: int, seed: int
) -> Iterator[Batch]:
    """Batches of at most `tokens_per_batch` padded tokens, rows of about the same length."""
    rng = random.Random(seed)
    stream = iter(items)
    while pool := [example(item, tokenizer) for item in islice(stream, _POOL)]:
        pool.sort(key=lambda one: len(one.tokens))
        cut: list[list[Example]] = [[]]
        for one in pool:
            if cut[-1] and (len(cut[-1]) + 1) * len(one.tokens) > tokens_per_batch:
                cut.append([])
            cut[-1].append(one)
        rng.shuffle(cut)
        for rows in cut:
            yield _padded(rows)


def _padded(rows: list[Example]) -> Batch:
    length = max(len(row.tokens) for row in rows)
    tokens = np.full((len(rows), length), PAD, dtype=np.int64)
    said = np.zeros((len(rows), length), dtype=np.bool_)
    for at, row in enumerate(rows):
        tokens[at, : len(row.tokens)] = row.tokens
        said[at, : len(row.said)] = row.said
    return Batch(tokens, said)
