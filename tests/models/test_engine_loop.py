"""Who is served when, what survives a failure, and that nothing is left behind."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import mlx.core as mx
import pytest

from models.generation import Priority, Sampling
from models.grammar import Grammar
from models.loading import LoadedModel
from tests.models.driver import Answer, Driver
from tests.models.reference import Reference
from tests.models.test_decoding import partings, words

RNG = random.Random(11)
NUMBERS = {"type": "array", "items": {"type": "integer"}, "minItems": 30}
JSON = {"type": "json_schema", "schema": NUMBERS}


def prompt(model: LoadedModel, tokens: int) -> list[int]:
    """A prompt that no other test uses."""
    return words(RNG, tokens, model.vocabulary)


def first_tokens(driver: Driver, answers: list[Answer]) -> list[Answer]:
    """The answers in the order of their first tokens."""
    order: list[Answer] = []
    while len(order) < len(answers):
        driver.turn()
        order += [a for a in answers if a.tokens() and a not in order]
    return order


@pytest.mark.parametrize("shared", [17, 64, 112])
def test_a_prompt_that_waits_inside_anothers_pass_resumes_from_it(
    model: LoadedModel, reference: Reference, shared: int
) -> None:
    driver = Driver(model, prefill_chunk=512)
    first = prompt(model, 130)
    answers = [driver.ask(first), driver.ask(first[:shared] + prompt(model, 30))]
    driver.run()
    assert partings(answers, reference) == (16, 0)
    stats = driver.loop.stats()
    assert stats.cached_tokens == shared
    assert stats.prefilled_tokens == 129 + 29


def test_the_smallest_prompts_and_answers_are_whole(
    model: LoadedModel, reference: Reference
) -> None:
    driver = Driver(model)
    long = prompt(model, 60)
    answers = [
        driver.ask(long[:1], max_tokens=1),
        driver.ask(long[:1], max_tokens=3),
        driver.ask(long, max_tokens=1),
    ]
    driver.run()
    cached = driver.ask(long, max_tokens=5)
    driver.run()
    assert cached.done.usage.cached_tokens == 59
    assert partings([*answers, cached], reference) == (10, 0)
    assert [a.reason() for a in answers] == ["length"] * 3


def test_a_stop_token_may_come_first(model: LoadedModel) -> None:
    driver = Driver(model)
    stop = min(model.tokenizer.stop_tokens)
    answer = driver.ask(prompt(model, 9), sampling=Sampling(temperature=0, logit_bias={stop: 1e4}))
    driver.run()
    assert (answer.tokens(), answer.text(), answer.reason()) == ([stop], "", "stop")
    assert answer.done.usage.completion_tokens == 1


def test_a_lone_long_prompt_leaves_the_thread_free_after_every_chunk(model: LoadedModel) -> None:
    driver = Driver(model, prefill_chunk=64)
    answer = driver.ask(prompt(model, 600))
    for turn in range(1, 4):
        driver.turn()
        assert driver.loop.stats().prefilled_tokens == 64 * turn
    driver.loop.drop(answer.call)
    driver.turn()
    assert driver.loop.stats().prefilled_tokens == 64 * 3
    driver.insist_empty()
    assert answer.events == []


def test_a_cancelled_answer_gets_no_further_token(model: LoadedModel) -> None:
    driver = Driver(model)
    answers = [driver.ask(prompt(model, 9), max_tokens=50) for _ in range(3)]
    driver.until(lambda: len(answers[0].tokens()) == 5)
    seen = [len(answer.events) for answer in answers]
    decoded = driver.loop.stats().decoded_tokens
    for answer in answers:
        driver.loop.drop(answer.call)
    assert driver.loop.stats().running == 0
    driver.turn()
    assert driver.loop.stats().decoded_tokens == decoded
    assert [len(answer.events) for answer in answers] == seen
    driver.insist_empty()


def test_a_cancel_of_an_answer_that_has_just_ended_is_nothing(model: LoadedModel) -> None:
    driver = Driver(model)
    short, other = driver.ask(prompt(model, 9), max_tokens=2), driver.ask(prompt(model, 9))
    driver.until(lambda: short.is_done)
    driver.loop.drop(short.call)
    driver.run()
    assert len(other.tokens()) == 8


def test_urgency_decides_the_order_and_arrival_comes_after_it(model: LoadedModel) -> None:
    driver = Driver(model, max_running=1)
    order = (Priority.BATCH, Priority.INTERACTIVE, Priority.EMERGENCY, Priority.INTERACTIVE)
    batch, early, emergency, late = (
        driver.ask(prompt(model, 20), max_tokens=2, priority=p) for p in order
    )
    answers = [batch, early, emergency, late]
    assert first_tokens(driver, answers) == [emergency, early, late, batch]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_an_emergency_takes_a_batch_answers_place_and_changes_nothing_in_it(
    model: LoadedModel, temperature: float
) -> None:
    prompts = [prompt(model, 40) for _ in range(3)]
    sampling = Sampling(temperature=temperature, seed=5, presence_penalty=0.5)

    def answers(emergency: bool) -> tuple[list[list[int]], Driver]:
        driver = Driver(model, max_running=2)
        batch = [driver.ask(p, 30, sampling, priority=Priority.BATCH) for p in prompts[:2]]
        driver.until(lambda: len(batch[1].tokens()) >= 6)
        if emergency:
            urgent = driver.ask(prompts[2], max_tokens=4, priority=Priority.EMERGENCY)
            driver.until(lambda: urgent.is_done)
            assert not any(answer.is_done for answer in batch)
        driver.run()
        return [answer.tokens() for answer in batch], driver

    disturbed, driver = answers(emergency=True)
    assert driver.loop.stats().preemptions == 1
    assert disturbed == answers(emergency=False)[0]
    assert [len(tokens) for tokens in disturbed] == [30, 30]


def test_an_emergency_does_not_wait_for_a_less_urgent_prompt_with_its_beginning(
    model: LoadedModel,
) -> None:
    driver = Driver(model, prefill_chunk=32, prefix_cache_gb=0.01)
    beginning = prompt(model, 200)
    batch = driver.ask(beginning + prompt(model, 20), priority=Priority.BATCH)
    driver.turn()
    others = [driver.ask(prompt(model, 200), priority=Priority.INTERACTIVE) for _ in range(3)]
    driver.turn()
    emergency = driver.ask(beginning + prompt(model, 5), priority=Priority.EMERGENCY)
    assert first_tokens(driver, [batch, *others, emergency])[0] is emergency
    driver.run()


def test_one_users_flood_does_not_delay_anothers_prompt(model: LoadedModel) -> None:
    driver = Driver(model, prefill_chunk=64, max_running=4)
    flood = [driver.ask(prompt(model, 100), max_tokens=3, user="a") for _ in range(12)]
    driver.until(lambda: bool(flood[0].tokens()))
    alone = driver.ask(prompt(model, 100), max_tokens=3, user="b")
    order = first_tokens(driver, [*flood, alone])
    # Four may have been running already, and hold the places.
    assert order.index(alone) <= 4
    driver.run()


def test_a_prompt_that_waits_for_room_is_not_overtaken_for_ever(model: LoadedModel) -> None:
    assert model.kv is not None
    room = model.kv.bytes_for(80) / 1024**3
    driver = Driver(model, kv_cache_gb=room, max_running=8)
    small = [driver.ask(prompt(model, 10), max_tokens=6) for _ in range(2)]
    large = driver.ask(prompt(model, 70), max_tokens=2)
    small += [driver.ask(prompt(model, 10), max_tokens=6) for _ in range(6)]
    promised: list[int] = []
    while driver.loop.is_busy:
        driver.turn()
        promised.append(driver.loop.stats().kv_promised_bytes)
        if large.tokens():
            assert not any(answer.tokens() for answer in small[2:] if not large.is_done)
    assert max(promised) <= model.kv.bytes_for(80)
    driver.run()


class Poisoned:
    """A network whose hidden states become NaN for rows that hold one token."""

    def __init__(self, network: Any, token: int) -> None:
        self._network = network
        self._token = token

    def __call__(self, inputs: mx.array, cache: Any) -> mx.array:
        embeddings = self._network.model.embed_tokens(inputs)
        bad = (inputs == self._token)[..., None]
        embeddings = mx.where(bad, mx.nan, embeddings)
        embedded = self._network.model(inputs, cache=cache, input_embeddings=embeddings)
        logits: mx.array = self._network.model.embed_tokens.as_linear(embedded)
        return logits


def test_logits_that_are_no_numbers_end_their_request_and_leave_nothing_behind(
    model: LoadedModel, reference: Reference
) -> None:
    poison = 4000
    sick_model = replace(model, network=Poisoned(model.network, poison))
    driver = Driver(sick_model, max_running=3)
    healthy = driver.ask(prompt(model, 30), max_tokens=30)
    sick = [driver.ask([*prompt(model, 12), poison, *prompt(model, 18)]) for _ in range(2)]
    # These wait for the rows of the sick ones, and take them in the turn that ends those.
    heirs = [driver.ask(prompt(model, 9), max_tokens=9) for _ in range(3)]
    driver.run()
    assert [answer.failure.code for answer in sick] == ["invalid_logits"] * 2
    assert partings([healthy, *heirs], reference)[1] == 0


@pytest.mark.parametrize("method", ["allowed", "accept"])
def test_a_grammar_that_breaks_ends_its_request_alone(
    model: LoadedModel, reference: Reference, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    driver = Driver(model)
    healthy = driver.ask(prompt(model, 10), max_tokens=20)
    broken = driver.ask(prompt(model, 10), max_tokens=20, n=2, response_format=JSON)
    driver.until(lambda: len(broken.tokens()) >= 3)

    def fail(*_: Any) -> Any:
        raise RuntimeError("a secret of the answer")

    grammar = broken.call.sequences[1].grammar
    assert isinstance(grammar, Grammar)
    monkeypatch.setattr(grammar, method, fail, raising=True)
    driver.run()
    assert broken.failure.code == "engine_error"
    assert "secret" not in broken.failure.message
    assert partings([healthy], reference)[1] == 0


def test_a_sibling_that_fails_while_room_is_made_is_not_started(model: LoadedModel) -> None:
    driver = Driver(model, max_running=1)
    call = driver.ask(prompt(model, 20), max_tokens=30, n=2, priority=Priority.BATCH)
    driver.until(lambda: len(call.tokens()) >= 2)
    emergency = driver.ask(prompt(model, 20), max_tokens=2, priority=Priority.EMERGENCY)

    def fail(_: Any) -> Any:
        raise RuntimeError

    call.call.sequences[0].take = fail  # type: ignore[assignment]
    driver.run()
    assert call.failure.code == "engine_error"
    assert len(emergency.tokens()) == 2


def test_many_that_wait_for_a_less_favoured_prompt_do_not_block_it(model: LoadedModel) -> None:
    driver = Driver(model, prefill_chunk=32)
    beginning = prompt(model, 120)
    first = driver.ask(beginning, max_tokens=2, user="a")
    driver.turn()
    followers = [driver.ask([*beginning, 100 + i], max_tokens=1, user="b") for i in range(40)]
    driver.run()
    assert len(first.tokens()) == 2
    assert all(len(answer.tokens()) == 1 for answer in followers)


def test_choices_are_many_and_their_prompt_is_computed_once(model: LoadedModel) -> None:
    driver = Driver(model)
    answer = driver.ask(prompt(model, 50), 8, Sampling(temperature=1.0, seed=1), n=4)
    driver.run()
    choices = [tuple(answer.tokens(i)) for i in range(4)]
    assert len(set(choices)) == 4
    assert driver.loop.stats().prefilled_tokens == 49
    assert answer.done.usage.completion_tokens == sum(map(len, choices))
