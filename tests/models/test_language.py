"""The engine behind its thread: what callers on other threads may rely on."""

from __future__ import annotations

import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from configs.engine import EngineConfig
from configs.reader import PROJECT_ROOT
from models.errors import (
    ContextLengthExceeded,
    EngineStopped,
    InvalidRequest,
    ModelLoadError,
    QueueFull,
)
from models.generation import ChatRequest, Delta, Done, Event, Failure, Sampling
from models.language import LanguageEngine
from tests.models.gemma import DEMO

TIMEOUT_S = 120.0
GREEDY = Sampling(temperature=0.0)
SYSTEM = {"role": "system", "content": "You answer questions about laboratory values. " * 4}


class Inbox:
    """A sink that a test can wait on."""

    def __init__(self) -> None:
        self._queue: queue.Queue[Sequence[Event]] = queue.Queue()
        self.events: list[Event] = []

    def put(self, events: Sequence[Event]) -> None:
        """The sink."""
        self._queue.put(events)

    def first(self) -> Event:
        """Wait for the first event."""
        if not self.events:
            self.events += self._queue.get(timeout=TIMEOUT_S)
        return self.events[0]

    def last(self) -> Event:
        """Wait for the last event."""
        while not (self.events and isinstance(self.events[-1], Done | Failure)):
            self.events += self._queue.get(timeout=TIMEOUT_S)
        return self.events[-1]

    def text(self) -> str:
        """All text so far."""
        return "".join(e.text for e in self.events if isinstance(e, Delta))


def ask(
    engine: LanguageEngine, request_id: str, question: str = "Is this low?", **rest: Any
) -> Inbox:
    """Submit a question."""
    inbox = Inbox()
    messages = rest.pop("messages", [{"role": "user", "content": question}])
    rest.setdefault("sampling", GREEDY)
    engine.submit(ChatRequest(id=request_id, messages=messages, **rest), inbox.put)
    return inbox


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[LanguageEngine]:
    config = EngineConfig(max_running=4, max_queued=4, max_context=400, default_max_tokens=8)
    engine = LanguageEngine(str(folder), config)
    engine.start(TIMEOUT_S)
    yield engine
    engine.stop()
    assert not engine.is_alive


ENDLESS = Sampling(temperature=0.0, logit_bias={1: -1e4, 5: -1e4})


def wait_until_idle(engine: LanguageEngine) -> None:
    """Wait until nothing runs."""
    deadline = time.monotonic() + TIMEOUT_S
    while engine._in_engine or engine.stats.running or engine.stats.waiting:
        assert time.monotonic() < deadline, engine.stats
        time.sleep(0.01)


def test_a_conversations_next_turn_and_a_shared_system_prompt_come_from_the_cache(
    engine: LanguageEngine,
) -> None:
    first = ask(engine, "turn-1", messages=[SYSTEM, {"role": "user", "content": "Is 1 low?"}])
    done = first.last()
    assert isinstance(done, Done)
    assert done.usage.cached_tokens == 0
    again = ask(engine, "other", messages=[SYSTEM, {"role": "user", "content": "And sodium 9?"}])
    shared = again.last()
    assert isinstance(shared, Done)
    _, boundary = engine.model.tokenizer.encode_chat([SYSTEM, {"role": "user", "content": "x"}])
    assert boundary > 20
    assert shared.usage.cached_tokens >= boundary
    turns = [
        SYSTEM,
        {"role": "user", "content": "Is 1 low?"},
        {"role": "assistant", "content": first.text()},
        {"role": "user", "content": "Why?"},
    ]
    second = ask(engine, "turn-2", messages=turns).last()
    assert isinstance(second, Done)
    assert second.usage.cached_tokens >= done.usage.prompt_tokens - 1
    assert second.usage.prompt_tokens > second.usage.cached_tokens


def test_a_cancelled_request_frees_its_place_and_says_no_more(engine: LanguageEngine) -> None:
    inbox = ask(engine, "endless", max_tokens=300, sampling=ENDLESS)
    inbox.first()
    engine.cancel("endless")
    wait_until_idle(engine)
    decoded = engine.stats.decoded_tokens
    time.sleep(0.1)
    assert engine.stats.decoded_tokens == decoded
    engine.cancel("endless")
    engine.cancel("never seen")
    assert isinstance(ask(engine, "endless").last(), Done)


def test_a_cancel_that_comes_late_does_not_touch_a_new_request_of_the_same_id(
    engine: LanguageEngine,
) -> None:
    for _ in range(20):
        engine.cancel("again")
        assert isinstance(ask(engine, "again", max_tokens=1).last(), Done)
        wait_until_idle(engine)


def test_the_queue_is_bounded_by_sequences(engine: LanguageEngine) -> None:
    asked = [ask(engine, f"full-{i}", max_tokens=300, sampling=ENDLESS, n=4) for i in range(2)]
    with pytest.raises(QueueFull) as raised:
        ask(engine, "one-more")
    assert raised.value.retry_after_s is not None
    assert raised.value.retry_after_s >= 1
    for i in range(2):
        engine.cancel(f"full-{i}")
    wait_until_idle(engine)
    assert isinstance(ask(engine, "one-more").last(), Done)
    assert not any(isinstance(i.events[-1:], Done) for i in asked)


def test_a_request_ends_at_its_deadline_wherever_it_is(engine: LanguageEngine) -> None:
    running = [
        ask(engine, f"late-{i}", max_tokens=300, sampling=ENDLESS, timeout_s=0.3, n=4)
        for i in range(2)
    ]
    for inbox in running:
        failed = inbox.last()
        assert isinstance(failed, Failure)
        assert (failed.status, failed.code) == (504, "deadline_exceeded")
    wait_until_idle(engine)


def test_a_deadline_that_has_passed_on_arrival_is_only_that_requests_end(
    engine: LanguageEngine,
) -> None:
    for i in range(10):
        endless = ask(engine, f"past-{i}", timeout_s=0.0, max_tokens=300, sampling=ENDLESS)
        failed = endless.last()
        assert isinstance(failed, Failure)
        assert failed.code == "deadline_exceeded"
    assert isinstance(ask(engine, "present").last(), Done)


def test_callers_on_many_threads_do_not_disturb_the_engine(engine: LanguageEngine) -> None:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def call(name: str) -> None:
        for i in range(25):
            try:
                ask(engine, f"{name}-{i}", max_tokens=2, timeout_s=0.001 * (i % 5))
            except QueueFull:
                time.sleep(0.001)
            engine.cancel(f"{name}-{i - 1}")

    threads = [threading.Thread(target=call, args=(str(t),)) for t in range(4)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(TIMEOUT_S)
    finally:
        sys.setswitchinterval(before)
    assert engine.is_alive
    wait_until_idle(engine)
    assert isinstance(ask(engine, "after").last(), Done)


def test_what_cannot_be_served_is_refused_at_once_with_the_parameters_name(
    engine: LanguageEngine,
) -> None:
    with pytest.raises(ContextLengthExceeded, match="context is 400 tokens"):
        ask(engine, "long", "word " * 500)
    with pytest.raises(ContextLengthExceeded, match="were asked for"):
        ask(engine, "greedy", max_tokens=400)
    with pytest.raises(InvalidRequest, match="not a token") as bias:
        ask(engine, "bias", sampling=Sampling(logit_bias={99_999_999: 1.0}))
    assert bias.value.param == "logit_bias"
    with pytest.raises(InvalidRequest, match="alternate") as order:
        ask(engine, "order", messages=[{"role": "assistant", "content": "I start."}])
    assert order.value.param == "messages"
    form = {"type": "json_schema", "schema": {"type": "nonsense"}}
    with pytest.raises(InvalidRequest) as schema:
        ask(engine, "schema", response_format=form)
    assert schema.value.param == "response_format.json_schema.schema"
    inbox = ask(engine, "twice", max_tokens=300, sampling=ENDLESS)
    with pytest.raises(InvalidRequest, match="already running"):
        ask(engine, "twice")
    engine.cancel("twice")
    wait_until_idle(engine)
    assert not isinstance(inbox.events[-1:], Failure)


def test_a_sink_that_fails_ends_its_request_alone(
    engine: LanguageEngine, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: Sequence[Event]) -> None:
        raise RuntimeError("the patient's words")

    request = ChatRequest("broken", [{"role": "user", "content": "?"}], ENDLESS, max_tokens=300)
    other = ask(engine, "beside", max_tokens=20, sampling=ENDLESS)
    decoded = engine.stats.decoded_tokens
    engine.submit(request, broken)
    assert isinstance(other.last(), Done)
    wait_until_idle(engine)
    assert engine.stats.decoded_tokens - decoded < 100
    assert "broken" in caplog.text
    assert "patient" not in caplog.text


def test_more_key_value_memory_than_there_is_for_one_request_is_refused(folder: Path) -> None:
    engine = LanguageEngine(str(folder), EngineConfig(kv_cache_gb=1e-4))
    engine.start(TIMEOUT_S)
    try:
        with pytest.raises(ContextLengthExceeded, match="key-value memory"):
            ask(engine, "large", max_tokens=2000)
        assert isinstance(ask(engine, "small", max_tokens=4).last(), Done)
    finally:
        engine.stop()


def test_stopping_ends_every_call_and_refuses_the_next(folder: Path) -> None:
    engine = LanguageEngine(str(folder), EngineConfig(max_running=2))
    engine.start(TIMEOUT_S)
    inboxes = [ask(engine, f"{i}", max_tokens=900, sampling=ENDLESS) for i in range(4)]
    inboxes[0].first()
    engine.stop()
    for inbox in inboxes:
        failed = inbox.last()
        assert isinstance(failed, Failure)
        assert (failed.status, failed.code) == (503, "engine_unavailable")
    with pytest.raises(EngineStopped):
        ask(engine, "late")
    engine.stop()


def test_a_folder_that_is_none_fails_the_start(tmp_path: Path) -> None:
    engine = LanguageEngine(str(tmp_path / "nowhere"))
    with pytest.raises(ModelLoadError, match="nowhere"):
        engine.start(TIMEOUT_S)
    assert not engine.is_alive
    with pytest.raises(EngineStopped):
        ask(engine, "any")


PROCESS = """
import sys
from models.language import LanguageEngine
from models.generation import ChatRequest, Sampling
from models.errors import ModelLoadError
import threading
engine = LanguageEngine(sys.argv[1])
try:
    engine.start()
except ModelLoadError:
    sys.exit(3)
seen = threading.Event()
kept = []
def sink(events):
    kept.extend(events)
    seen.set()
for i in range(3):
    request = ChatRequest(str(i), [{"role": "user", "content": "Go."}], Sampling(seed=i))
    engine.submit(request, sink)
assert seen.wait(60)
engine.stop()
print(type(kept[-1]).__name__)
"""


@pytest.mark.parametrize(("path", "status", "said"), [(str(DEMO), 0, "Failure"), ("none", 3, "")])
def test_a_process_ends_cleanly_after_its_engine(path: str, status: int, said: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROCESS, path],
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert ended.returncode == status, ended.stderr
    assert "terminate" not in ended.stderr
    assert ended.stdout.strip() in (said, "Done" if said else "")
