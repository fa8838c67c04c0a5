"""What a request may ask of its answer, and gets."""

from __future__ import annotations

import json
import random
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from models.generation import Delta, Sampling
from models.loading import LoadedModel
from tests.models.driver import GREEDY, Driver
from tests.models.test_decoding import words

RNG = random.Random(23)


def answer_of(model: LoadedModel, sampling: Sampling = GREEDY, **request: Any) -> Any:
    """Ask alone and wait."""
    driver = Driver(model)
    answer = driver.ask(request.pop("prompt"), request.pop("max_tokens", 24), sampling, **request)
    driver.run()
    return answer


def test_a_seed_gives_the_same_answer_in_any_company(model: LoadedModel) -> None:
    prompts = [words(RNG, n, model.vocabulary) for n in (12, 30, 55)]
    seeded = [
        Sampling(temperature=0.9, seed=1),
        Sampling(temperature=1.2, seed=2, top_k=50),
        Sampling(temperature=1.0, seed=3, top_p=0.9, min_p=0.01),
    ]
    alone = [answer_of(model, s, prompt=p) for s, p in zip(seeded, prompts, strict=True)]
    driver = Driver(model, prefill_chunk=32)
    asked = []
    for s, p in zip(seeded, prompts, strict=True):
        driver.ask(words(RNG, 20, model.vocabulary), 9, Sampling(temperature=1.0))
        asked.append(driver.ask(p, 24, s))
        driver.turn()
    driver.run()
    assert [a.tokens() for a in asked] == [a.tokens() for a in alone]
    other = answer_of(model, Sampling(temperature=0.9, seed=9), prompt=prompts[0])
    assert other.tokens() != alone[0].tokens()


def test_a_stop_string_ends_the_answer_wherever_it_lies(model: LoadedModel) -> None:
    prompt = words(RNG, 12, model.vocabulary)
    whole = answer_of(model, prompt=prompt, max_tokens=40)
    text = whole.text()
    assert len(text) > 20
    for start, length in ((0, 1), (3, 2), (5, 7), (9, 11)):
        stop = text[start : start + length]
        stopped = answer_of(model, prompt=prompt, max_tokens=40, stop=["\x00never", stop])
        assert stopped.text() == text[: text.index(stop)]
        assert stopped.reason() == "stop"
        assert len(stopped.tokens()) <= len(whole.tokens())


def test_what_looks_like_a_stop_string_to_the_end_is_given_out(model: LoadedModel) -> None:
    prompt = words(RNG, 12, model.vocabulary)
    text = answer_of(model, prompt=prompt, max_tokens=10).text()
    held = answer_of(model, prompt=prompt, max_tokens=10, stop=[text[-3:] + "more"])
    assert (held.text(), held.reason()) == (text, "length")


def test_bias_bans_and_forces(model: LoadedModel) -> None:
    prompt = words(RNG, 12, model.vocabulary)
    plain = answer_of(model, prompt=prompt, max_tokens=6).tokens()
    banned = Sampling(temperature=0, logit_bias=dict.fromkeys(plain, -1e4))
    assert not set(plain) & set(answer_of(model, banned, prompt=prompt, max_tokens=6).tokens())
    forced = Sampling(temperature=1.0, logit_bias={777: 1e4})
    assert answer_of(model, forced, prompt=prompt, max_tokens=6).tokens() == [777] * 6


def test_penalties_are_openais_over_the_answer(model: LoadedModel) -> None:
    prompt = words(RNG, 12, model.vocabulary)
    sampling = Sampling(temperature=0, presence_penalty=1.5, frequency_penalty=0.75)
    answer = answer_of(model, sampling, prompt=prompt, max_tokens=16).tokens()
    expected: list[int] = []
    for _ in answer:
        logits = np.array(_logits(model, prompt + expected))
        for token in set(expected):
            logits[token] -= 1.5 + 0.75 * expected.count(token)
        expected.append(int(np.argmax(logits)))
    assert answer == expected
    assert answer != answer_of(model, prompt=prompt, max_tokens=16).tokens()


def _logits(model: LoadedModel, prompt: list[int]) -> mx.array:
    logits: mx.array = model.network(mx.array([prompt]))[0, -1]
    return logits


def test_logprobs_are_those_of_the_models_own_distribution(model: LoadedModel) -> None:
    prompt = words(RNG, 40, model.vocabulary)
    sampling = Sampling(temperature=0.7, seed=4, logprobs=True, top_logprobs=5)
    driver = Driver(model)
    answer = driver.ask(prompt, 8, sampling)
    plain = driver.ask(words(RNG, 10, model.vocabulary), 8)
    driver.run()
    entries = [e for event in answer.events if isinstance(event, Delta) for e in event.logprobs]
    tokens = answer.tokens()
    assert len(entries) == len([t for t in tokens if t not in model.tokenizer.stop_tokens])
    for i, entry in enumerate(entries):
        logits = _logits(model, prompt + tokens[:i])
        logprobs = np.array(logits - mx.logsumexp(logits))
        assert entry.logprob == pytest.approx(logprobs[tokens[i]], abs=1e-3)
        assert entry.raw == model.tokenizer.token_bytes(tokens[i])
        best = np.sort(logprobs)[::-1][:5]
        assert [logprob for *_, logprob in entry.top] == pytest.approx(best.tolist(), abs=1e-3)
    assert not [e for ev in plain.events if isinstance(ev, Delta) for e in ev.logprobs]


SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "urgent": {"type": "boolean"},
        "grade": {"enum": ["low", "médio", "high"]},
        "beds": {"type": "integer", "minimum": 0, "maximum": 40},
    },
    "required": ["urgent", "grade", "beds"],
    "additionalProperties": False,
}


def test_random_weights_write_json_of_the_schema_whatever_the_seed(model: LoadedModel) -> None:
    driver = Driver(model, max_running=16)
    answers = [
        driver.ask(
            words(RNG, 12, model.vocabulary),
            120,
            Sampling(temperature=1.5, seed=seed, presence_penalty=0.3 * (seed % 2)),
            n=2,
            response_format={"type": "json_schema", "schema": SCHEMA},
        )
        for seed in range(8)
    ]
    plain = driver.ask(words(RNG, 12, model.vocabulary), 30, Sampling(temperature=1.5))
    driver.run()
    for answer in answers:
        for index in range(2):
            value = json.loads(answer.text(index))
            assert answer.reason(index) == "stop"
            assert value.keys() == SCHEMA["properties"].keys()
            assert type(value["urgent"]) is bool
            assert value["grade"] in ("low", "médio", "high")
            assert type(value["beds"]) is int
            assert 0 <= value["beds"] <= 40
    assert plain.is_done


def test_any_json_object_parses_once_it_is_complete(model: LoadedModel) -> None:
    driver = Driver(model)
    closing = model.tokenizer.encode("}").tolist()[-1]
    answers = [
        driver.ask(
            words(RNG, 12, model.vocabulary),
            200,
            Sampling(temperature=1.0, seed=seed, logit_bias={closing: 12.0}),
            response_format={"type": "json_object"},
        )
        for seed in range(6)
    ]
    driver.run()
    complete = [json.loads(a.text()) for a in answers if a.reason() == "stop"]
    assert len(complete) >= 3
    assert all(isinstance(value, dict) for value in complete)
