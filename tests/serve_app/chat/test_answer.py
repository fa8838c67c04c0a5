from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import orjson
import pytest

from deployments.data.interactions.interaction import Asked
from models.errors import EngineStopped
from models.generation import Delta, Done, Event, Failure, Finish, TokenLogprob, Usage
from serve_app.chat.answer import Identity, complete
from serve_app.chat.witness import Witness
from serve_app.errors import StreamFailed
from serve_app.shapes import ChatCompletion
from serve_app.trace import Trace
from tests.serve_app.fake_security import FakeRecord, caller_of_tests

IDENTITY = Identity("chatcmpl-1", 1_700_000_000, "m", "fp_1")
DONE = Done(Usage(prompt_tokens=5, cached_tokens=2, completion_tokens=3))


async def batches(*given: Sequence[Event]) -> AsyncIterator[Sequence[Event]]:
    for batch in given:
        await asyncio.sleep(0)
        yield batch


async def completion(*given: Sequence[Event], n: int = 1, logprobs: bool = False) -> ChatCompletion:
    asked = Asked("chatcmpl-1", "m", "f" * 64, "none", "0" * 64, choices=n)
    witness = Witness(FakeRecord(), caller_of_tests(), asked)
    body = await complete(batches(*given), IDENTITY, Trace("r"), witness, n=n, logprobs=logprobs)
    return ChatCompletion.model_validate(orjson.loads(body))


async def test_deltas_of_interleaved_choices_are_put_together() -> None:
    answer = await completion(
        [Delta(0, "a", 1), Delta(1, "x", 1)],
        [Delta(1, "y", 1), Finish(1, "length")],
        [Delta(0, "b", 1), Finish(0, "stop"), DONE],
        n=2,
    )
    told = [(choice.message.content, choice.finish_reason) for choice in answer.choices]
    assert told == [("ab", "stop"), ("xy", "length")]
    assert answer.usage.total_tokens == 8
    assert answer.usage.prompt_tokens_details.cached_tokens == 2
    assert answer.choices[0].logprobs is None


async def test_log_probabilities_are_joined_in_order() -> None:
    tokens = [TokenLogprob(text, text.encode(), -1.0) for text in "ab"]
    answer = await completion(
        [Delta(0, "a", 1, (tokens[0],))],
        [Delta(0, "b", 1, (tokens[1],)), Finish(0, "stop"), DONE],
        logprobs=True,
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert [entry.token for entry in logprobs.content] == ["a", "b"]


async def test_an_answer_of_no_tokens_is_empty_text() -> None:
    answer = await completion([Finish(0, "stop"), DONE])
    assert answer.choices[0].message.content == ""


async def test_a_failure_after_some_text_is_raised_not_half_an_answer() -> None:
    failure = Failure(504, "timeout_error", "deadline_exceeded", "late")
    with pytest.raises(StreamFailed) as failed:
        await completion([Delta(0, "a", 1)], [failure])
    assert failed.value.failure is failure


async def test_events_that_break_off_are_an_error() -> None:
    with pytest.raises(EngineStopped):
        await completion([Delta(0, "a", 1)])
