"""Whatever the schedule, a greedy answer is the one that mlx-lm gives to the prompt alone."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from models.generation import Priority
from models.loading import LoadedModel
from tests.models.driver import Answer, Driver
from tests.models.reference import PARTING_MARGIN, Reference, first_parting

# Tokens 0 to 5 of the demo tokenizer are special.
FIRST_WORD = 6


def words(rng: random.Random, count: int, vocabulary: int) -> list[int]:
    """Random tokens of plain text."""
    return [rng.randrange(FIRST_WORD, vocabulary) for _ in range(count)]


def partings(answers: Sequence[Answer], reference: Reference) -> tuple[int, int]:
    """(tokens compared, answers that part): a parting must be at a tie within PARTING_MARGIN."""
    compared = parted = 0
    for answer in answers:
        theirs, margins = reference.greedy(answer.call.prompt.tolist(), answer.call.max_tokens)
        ours = answer.tokens()
        at = first_parting(ours, theirs)
        compared += len(theirs)
        if at is not None:
            parted += 1
            assert at < len(margins), f"one answer is longer: {len(ours)} and {len(theirs)} tokens"
            assert margins[at] < PARTING_MARGIN, f"parts at {at} with a margin of {margins[at]}"
    return compared, parted


def schedule(driver: Driver, rng: random.Random, calls: int) -> list[Answer]:
    """Random arrivals: shared beginnings, continued answers, priorities, users, cancellations."""
    size = driver.model.vocabulary
    bases = [words(rng, n, size) for n in (5, 40, 90, 160)]
    asked: list[Answer] = []
    for _ in range(calls):
        continued = [a.call.prompt.tolist() + a.tokens() for a in asked[-4:] if a.is_done]
        base = rng.choice(bases + continued)
        prompt = base[: rng.randrange(len(base) + 1)] + words(rng, rng.randrange(1, 25), size)
        answer = driver.ask(
            prompt,
            max_tokens=rng.randrange(1, 40),
            boundary=rng.choice([0, min(len(prompt) - 1, 20)]),
            priority=Priority(rng.randrange(3)),
            user=rng.choice(["", "a", "b"]),
        )
        asked.append(answer)
        for _ in range(rng.choice([0, 0, 1, 7])):
            driver.turn()
        if rng.random() < 0.2:
            victim = rng.choice(asked)
            if not victim.call.ended:
                driver.loop.drop(victim.call)
    driver.run()
    return [answer for answer in asked if answer.events and answer.is_done]


SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 8))]


@pytest.mark.parametrize("seed", SEEDS)
def test_random_schedules_answer_as_mlx_lm_does(
    model: LoadedModel, reference: Reference, seed: int
) -> None:
    driver = Driver(
        model,
        max_running=9,
        prefill_chunk=48,
        # A few prompts' worth, so that prefixes are hit, split and evicted.
        prefix_cache_gb=0.0008,
        # A few columns' worth, so that batches split when they grow.
        padding_budget_mb=0.05,
    )
    answers = schedule(driver, random.Random(seed), calls=36)
    compared, parted = partings(answers, reference)
    stats = driver.loop.stats()
    print(f"seed {seed}: {compared} tokens, {parted} partings, {stats.cached_tokens} cached")
    assert compared > 200
    assert stats.cached_tokens > 100
    assert parted <= 1


@pytest.mark.parametrize(
    "config",
    [
        pytest.param({"prefix_cache_gb": 0.0}, marks=pytest.mark.slow),
        pytest.param({"max_running": 1}, marks=pytest.mark.slow),
        {"max_running": 3, "kv_cache_gb": 0.0006},
        {"prefill_chunk": 16, "prefill_gap_factor": 0.001},
        pytest.param({"padding_budget_mb": 1e-6}, marks=pytest.mark.slow),
    ],
    ids=lambda config: "-".join(config),
)
def test_tight_settings_change_nothing_in_the_answers(
    model: LoadedModel, reference: Reference, config: dict[str, float]
) -> None:
    driver = Driver(model, **config)
    answers = schedule(driver, random.Random(7), calls=14)
    compared, parted = partings(answers, reference)
    assert compared > 50
    assert parted == 0


def test_the_demo_weights_answer_as_mlx_lm_does(
    demo: LoadedModel, demo_reference: Reference
) -> None:
    driver = Driver(demo, prefill_chunk=128)
    rng = random.Random(3)
    system = words(rng, 300, demo.vocabulary)
    answers = [
        driver.ask(
            system[: rng.choice([0, 280, 300])] + words(rng, rng.randrange(2, 40), demo.vocabulary),
            max_tokens=rng.randrange(4, 24),
        )
        for _ in range(8)
    ]
    driver.run()
    compared, parted = partings(answers, demo_reference)
    print(f"demo: {compared} tokens, {parted} partings")
    assert parted == 0
