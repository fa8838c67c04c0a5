from __future__ import annotations

from itertools import islice

import pytest

from benchmarks.prompts import MIXES, SHAPES, Mix, prompts


@pytest.mark.parametrize("mix", MIXES)
def test_the_same_seed_asks_the_same_and_another_seed_something_else(mix: Mix) -> None:
    first = list(islice(prompts(mix, 1), 50))
    assert first == list(islice(prompts(mix, 1), 50))
    assert not set(first) & set(islice(prompts(mix, 2), 50))


@pytest.mark.parametrize("mix", MIXES)
def test_no_two_prompts_begin_alike_so_that_no_cache_helps_by_chance(mix: Mix) -> None:
    questions = [prompt.messages[-1][1][:16] for prompt in islice(prompts(mix, 1), 200)]
    assert len(set(questions)) == 200


@pytest.mark.parametrize("mix", MIXES)
def test_lengths_are_those_of_the_mix(mix: Mix) -> None:
    seen = {
        (round((len(p.messages[-1][1].split()) - 6) / 20), p.max_tokens)
        for p in islice(prompts(mix, 1), 300)
    }
    assert seen == {(round(shape.words / 20), shape.max_tokens) for shape in SHAPES[mix]}


def test_a_shared_prefix_is_shared_by_all_prompts_of_a_seed() -> None:
    systems = {prompt.messages[0] for prompt in islice(prompts("shared-prefix", 1), 20)}
    assert len(systems) == 1
    ((role, text),) = systems
    assert role == "system"
    assert len(text.split()) > 250


def test_answers_can_be_given_one_length() -> None:
    assert {p.max_tokens for p in islice(prompts("mixed", 1, max_tokens=7), 50)} == {7}
