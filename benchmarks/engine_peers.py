"""The other sides of the `engine` benchmark: mlx-lm's BatchGenerator used directly, and its
generator one sequence at a time. Import only after the BLAS is loaded."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

from mlx_lm import load, stream_generate
from mlx_lm.generate import BatchGenerator

from benchmarks.engine_jobs import (
    GAP_CHATS,
    GAP_PROMPT_TOKENS,
    SETTLE_TOKENS,
    WARM_UP_SEED,
    Answer,
    Job,
    long_prompt,
    throughput_prompts,
)
from benchmarks.prompts import Prompt, Shape, prompts_of
from benchmarks.wired import leave_wired_limit_alone

MAX_STEPS = 100_000


def run(job: Job) -> Answer:
    """Runs the job's scenario with mlx-lm's own parts and defaults."""
    leave_wired_limit_alone()
    model, tokenizer = load(job.folder)
    if job.side == "one_at_a_time":
        return one_at_a_time(model, tokenizer, job)
    if job.scenario == "gap":
        return gap(model, tokenizer, job)
    return throughput(model, tokenizer, job)


def encode(tokenizer: Any, prompt: Prompt) -> list[int]:
    """The same tokens as our engine's: the folder's own chat template."""
    tokens: list[int] = tokenizer.apply_chat_template(
        prompt.as_openai(), add_generation_prompt=True, tokenize=True, return_dict=False
    )
    return tokens


def generator(model: Any, tokenizer: Any, sequences: int) -> BatchGenerator:
    stops = [[token] for token in tokenizer.eos_token_ids]
    return BatchGenerator(model, stop_tokens=stops, completion_batch_size=sequences)


def drain(batch: BatchGenerator, uids: list[int]) -> int:
    """Runs until every sequence has ended; returns how many tokens were generated."""
    open_uids = set(uids)
    tokens = 0
    for _ in range(MAX_STEPS):
        if not open_uids:
            return tokens
        for response in batch.next()[1]:
            tokens += 1
            if response.finish_reason is not None:
                open_uids.discard(response.uid)
    raise RuntimeError(f"not done after {MAX_STEPS} steps")


def throughput(model: Any, tokenizer: Any, job: Job) -> Answer:
    """All sequences at once; from their insertion to the last end. Tokenised as our side is."""
    batch = generator(model, tokenizer, job.sequences)
    warm = [encode(tokenizer, p) for p in prompts_of([Shape(24, 16)] * 8, WARM_UP_SEED)]
    drain(batch, batch.insert(warm, [16] * len(warm)))
    prompts = throughput_prompts(job.scenario, job.sequences, job.seed)
    started = time.perf_counter()
    encoded = [encode(tokenizer, prompt) for prompt in prompts]
    tokens = drain(batch, batch.insert(encoded, [prompt.max_tokens for prompt in prompts]))
    return Answer(
        tokens=tokens,
        wall_s=time.perf_counter() - started,
        prompt_tokens=sum(len(prompt) for prompt in encoded),
    )


def one_at_a_time(model: Any, tokenizer: Any, job: Job) -> Answer:
    """The same sequences, each alone."""
    (warm,) = prompts_of([Shape(24, 16)], WARM_UP_SEED)
    _generate(model, tokenizer, encode(tokenizer, warm), 16)
    prompts = throughput_prompts(job.scenario, job.sequences, job.seed)
    started = time.perf_counter()
    encoded = [encode(tokenizer, prompt) for prompt in prompts]
    tokens = sum(
        _generate(model, tokenizer, ids, prompt.max_tokens)
        for ids, prompt in zip(encoded, prompts, strict=True)
    )
    return Answer(
        tokens=tokens,
        wall_s=time.perf_counter() - started,
        prompt_tokens=sum(len(prompt) for prompt in encoded),
    )


def _generate(model: Any, tokenizer: Any, prompt: list[int], max_tokens: int) -> int:
    return sum(1 for _ in stream_generate(model, tokenizer, prompt, max_tokens=max_tokens))


def gap(model: Any, tokenizer: Any, job: Job) -> Answer:
    """The gap scenario on BatchGenerator, with its own prefill chunks."""
    words = GAP_PROMPT_TOKENS // 2
    for _ in range(6):
        newcomer = encode(tokenizer, long_prompt(words, job.seed + 1, 4))
        if GAP_PROMPT_TOKENS * 0.99 <= len(newcomer) <= GAP_PROMPT_TOKENS:
            break
        words = int(words * GAP_PROMPT_TOKENS * 0.995 / len(newcomer))
    batch = generator(model, tokenizer, GAP_CHATS + 1)
    chats = [encode(tokenizer, p) for p in prompts_of([Shape(24, 1)] * GAP_CHATS, job.seed)]
    arrivals: dict[int, list[float]] = {uid: [] for uid in batch.insert(chats, [2000] * len(chats))}
    while min(map(len, arrivals.values())) < 2 * SETTLE_TOKENS:
        _step(batch, arrivals)
    came = time.perf_counter()
    (uid,) = batch.insert([newcomer], [4])
    first: dict[int, list[float]] = {uid: []}
    for _ in range(MAX_STEPS):
        if first[uid]:
            break
        _step(batch, arrivals | first)
    _step(batch, arrivals)
    answer = Answer(prefill_s=first[uid][0] - came, prompt_tokens=len(newcomer))
    for times in arrivals.values():
        settled = times[SETTLE_TOKENS:]
        for sooner, later in pairwise(settled):
            if later <= came:
                answer.undisturbed_gaps_s.append(later - sooner)
            elif sooner < first[uid][0]:
                answer.disturbed_gaps_s.append(later - sooner)
    return answer


def _step(batch: BatchGenerator, arrivals: dict[int, list[float]]) -> None:
    responses = batch.next()[1]
    now = time.perf_counter()
    for response in responses:
        if response.uid in arrivals:
            arrivals[response.uid].append(now)
