"""Our side of the `engine` benchmark: `LanguageEngine` driven directly, without HTTP or Ray."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import psutil

from benchmarks.engine_jobs import (
    CONTEXT_CHATS,
    GAP_CHATS,
    GAP_PROMPT_TOKENS,
    SECOND_TURN_TALKS,
    SECOND_TURN_TOKENS,
    SETTLE_TOKENS,
    WARM_UP_SEED,
    Answer,
    Job,
    long_prompt,
    throughput_prompts,
)
from benchmarks.prompts import Prompt, Shape, prompts_of
from configs.engine import EngineConfig
from models.generation import ChatRequest, Delta, Done, Event, Failure, Sampling, Usage
from models.language import LanguageEngine

TIMEOUT_S = 1500.0
SETTLE_TIMEOUT_S = 180.0
_SHORT = Shape(24, 16)


@dataclass
class Chat:
    """One request and what came of it; written by the engine's thread, read after `done`."""

    id: str
    submitted: float = 0.0
    arrivals: list[float] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    usage: Usage | None = None
    done: threading.Event = field(default_factory=threading.Event)
    failure: str = ""

    def take(self, events: Sequence[Event]) -> None:
        now = time.perf_counter()
        for event in events:
            if isinstance(event, Delta):
                self.text.append(event.text)
                if event.tokens:
                    self.arrivals.append(now)
            elif isinstance(event, Done):
                self.usage = event.usage
                self.done.set()
            elif isinstance(event, Failure):
                self.failure = event.code
                self.done.set()

    def wait(self) -> Usage:
        """Raises RuntimeError when the engine refused, failed or took too long."""
        if not self.done.wait(TIMEOUT_S):
            raise RuntimeError(f"no end within {TIMEOUT_S:.0f} s")
        if self.usage is None:
            raise RuntimeError(f"the engine failed a request: {self.failure}")
        return self.usage

    @property
    def first_s(self) -> float:
        return self.arrivals[0] - self.submitted


class Driver:
    """A started engine, and chats on it."""

    def __init__(self, job: Job) -> None:
        config = EngineConfig(threads=job.threads, max_running=max(64, job.sequences))
        self.engine = LanguageEngine(job.folder, config)
        self.engine.start()
        self._count = 0
        for chat in [self.ask(prompt) for prompt in prompts_of([_SHORT] * 8, WARM_UP_SEED)]:
            chat.wait()

    def ask(self, prompt: Prompt) -> Chat:
        return self.say(prompt.as_openai(), prompt.max_tokens)

    def say(self, messages: list[dict[str, str]], max_tokens: int) -> Chat:
        self._count += 1
        chat = Chat(f"chat-{self._count}")
        request = ChatRequest(
            id=chat.id,
            messages=messages,
            sampling=Sampling(temperature=0.0),
            max_tokens=max_tokens,
            timeout_s=TIMEOUT_S,
        )
        chat.submitted = time.perf_counter()
        self.engine.submit(request, chat.take)
        return chat

    def tokens(self, messages: list[dict[str, str]]) -> int:
        return len(self.engine.model.tokenizer.encode_chat(messages)[0])

    def prompt_of(self, tokens: int, seed: int, max_tokens: int) -> Prompt:
        """A prompt of about `tokens` tokens, and no more."""
        words = tokens // 2
        for _ in range(6):
            prompt = long_prompt(words, seed, max_tokens)
            found = self.tokens(prompt.as_openai())
            if tokens * 0.99 <= found <= tokens:
                break
            words = int(words * tokens * 0.995 / found)
        return prompt


def run(job: Job) -> Answer:
    """Runs the job's scenario on a fresh engine, which ends with it."""
    driver = Driver(job)
    try:
        if job.scenario == "gap":
            return gap(driver, job)
        if job.scenario == "second-turn":
            return second_turn(driver, job)
        if job.scenario == "context":
            return context(driver, job)
        return throughput(driver, job)
    finally:
        driver.engine.stop()


def throughput(driver: Driver, job: Job) -> Answer:
    """All sequences at once; from the first submission to the last end."""
    prompts = throughput_prompts(job.scenario, job.sequences, job.seed)
    started = time.perf_counter()
    chats = [driver.ask(prompt) for prompt in prompts]
    usages = [chat.wait() for chat in chats]
    return Answer(
        tokens=sum(usage.completion_tokens for usage in usages),
        wall_s=time.perf_counter() - started,
        prompt_tokens=sum(usage.prompt_tokens for usage in usages),
        cached_tokens=sum(usage.cached_tokens for usage in usages),
    )


def gap(driver: Driver, job: Job) -> Answer:
    """Sixteen chats decode; a long prompt arrives; how long do they wait for their next token?"""
    long = driver.prompt_of(GAP_PROMPT_TOKENS, job.seed + 1, 4)
    chats = [driver.ask(p) for p in prompts_of([Shape(24, 2000)] * GAP_CHATS, job.seed)]
    settle(chats)
    newcomer = driver.ask(long)
    usage = newcomer.wait()
    for chat in chats:
        driver.engine.cancel(chat.id)
    return split_gaps(chats, newcomer, usage)


def settle(chats: Sequence[Chat]) -> None:
    """Waits until every chat decodes undisturbed, then for twice as many tokens to compare with."""
    give_up_at = time.perf_counter() + SETTLE_TIMEOUT_S
    while min(len(chat.arrivals) for chat in chats) < 2 * SETTLE_TOKENS:
        if time.perf_counter() > give_up_at or any(chat.done.is_set() for chat in chats):
            raise RuntimeError("the chats did not keep decoding")
        time.sleep(0.01)


def split_gaps(chats: Sequence[Chat], newcomer: Chat, usage: Usage) -> Answer:
    """Gaps before the newcomer came, and those that overlap its prefill."""
    came, first = newcomer.submitted, newcomer.arrivals[0]
    calm: list[float] = []
    disturbed: list[float] = []
    for chat in chats:
        times = chat.arrivals[SETTLE_TOKENS:]
        for sooner, later in pairwise(times):
            if later <= came:
                calm.append(later - sooner)
            elif sooner < first:
                disturbed.append(later - sooner)
    return Answer(
        undisturbed_gaps_s=calm,
        disturbed_gaps_s=disturbed,
        prefill_s=newcomer.first_s,
        prompt_tokens=usage.prompt_tokens,
    )


def second_turn(driver: Driver, job: Job) -> Answer:
    """First text of a second turn, against the same length of talk that was never seen."""
    answer = Answer()
    for talk in range(SECOND_TURN_TALKS):
        seed = job.seed + 10 * talk
        first = driver.prompt_of(SECOND_TURN_TOKENS, seed, 16)
        chat = driver.ask(first)
        answer.prompt_tokens += chat.wait().prompt_tokens
        answer.warm_first_s.append(_follow_up(driver, first, "".join(chat.text), answer))
        unseen = driver.prompt_of(SECOND_TURN_TOKENS, seed + 5, 16)
        answer.cold_first_s.append(_follow_up(driver, unseen, "".join(chat.text), None))
    return answer


def _follow_up(driver: Driver, first: Prompt, said: str, warm: Answer | None) -> float:
    messages = [
        *first.as_openai(),
        {"role": "assistant", "content": said},
        {"role": "user", "content": "E qual é a dose?"},
    ]
    chat = driver.say(messages, 4)
    usage = chat.wait()
    if warm is not None:
        warm.cached_tokens += usage.cached_tokens
    return chat.first_s


def context(driver: Driver, job: Job) -> Answer:
    """A prompt as long as asked prefills while chats stream; others' gaps and peak memory."""
    import mlx.core as mx

    long = driver.prompt_of(job.context_tokens - 64, job.seed + 1, 4)
    chats = [driver.ask(p) for p in prompts_of([Shape(24, 50_000)] * CONTEXT_CHATS, job.seed)]
    settle(chats)
    mx.reset_peak_memory()
    newcomer = driver.ask(long)
    resident = 0
    while not newcomer.done.wait(0.2):
        resident = max(resident, psutil.Process().memory_info().rss)
    usage = newcomer.wait()
    for chat in chats:
        driver.engine.cancel(chat.id)
    answer = split_gaps(chats, newcomer, usage)
    answer.peak_memory_gb = mx.get_peak_memory() / 1e9
    answer.resident_gb = resident / 1e9
    return answer
