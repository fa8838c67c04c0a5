"""The whole way, on a real cell: OpenAI's own client, HAProxy, an API replica, Serve, the engine."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import openai
import pytest
from tokenizers import Tokenizer

from configs.reader import PROJECT_ROOT
from serve_app.shapes import ChatCompletion, ChatCompletionChunk, ErrorBody
from tests.conftest import RunningCell

pytestmark = pytest.mark.cluster

MODEL = "gemma3-demo"
WEIGHTS = PROJECT_ROOT / "models" / "weights" / MODEL
QUESTION = [{"role": "user", "content": "What is the normal range of potassium?"}]
ASK: dict[str, Any] = {"model": MODEL, "messages": QUESTION, "temperature": 0, "max_tokens": 24}
DEADLINE_S = 60.0


@pytest.fixture
async def client(cell: RunningCell) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        api_key=cell.api_key, base_url=f"{cell.base_url}/v1", max_retries=0, timeout=DEADLINE_S
    ) as client:
        yield client


@pytest.fixture
async def http(cell: RunningCell) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        base_url=cell.base_url,
        timeout=DEADLINE_S,
        headers={"authorization": f"Bearer {cell.api_key}"},
    ) as client:
        yield client


async def text_of(client: openai.AsyncOpenAI, **ask: Any) -> str:
    answer = await client.chat.completions.create(**{**ASK, **ask})
    return answer.choices[0].message.content or ""


async def test_a_stream_is_the_same_answer_as_a_whole_with_the_same_usage(
    client: openai.AsyncOpenAI,
) -> None:
    whole = await client.chat.completions.create(**ASK)
    text, usage, reason = "", None, None
    stream = await client.chat.completions.create(
        **ASK, stream=True, stream_options={"include_usage": True}
    )
    async for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
            reason = choice.finish_reason or reason
    assert text == whole.choices[0].message.content
    assert text
    assert reason == whole.choices[0].finish_reason
    assert usage is not None
    assert whole.usage is not None
    assert usage.completion_tokens == whole.usage.completion_tokens > 0
    assert usage.prompt_tokens == whole.usage.prompt_tokens > 0
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


async def test_answers_and_chunks_fit_the_published_schemas(http: httpx.AsyncClient) -> None:
    whole = await http.post("/v1/chat/completions", json={**ASK, "logprobs": True, "n": 2})
    assert whole.status_code == 200
    assert whole.json()["system_fingerprint"].startswith("fp_")
    ChatCompletion.model_validate(whole.json())
    ask = {**ASK, "stream": True, "stream_options": {"include_usage": True}, "logprobs": True}
    stream = await http.post("/v1/chat/completions", json=ask)
    *events, done = [line[6:] for line in stream.text.split("\n\n") if line]
    assert done == "[DONE]"
    for event in events:
        ChatCompletionChunk.model_validate_json(event)


async def test_the_first_token_comes_before_the_last(http: httpx.AsyncClient) -> None:
    writes = []
    ask = {**ASK, "max_tokens": 200, "stream": True}
    async with http.stream("POST", "/v1/chat/completions", json=ask) as answer:
        async for part in answer.aiter_bytes():
            writes.append((time.monotonic(), part))
    assert len(writes) > 2
    assert b'"role":"assistant"' in writes[0][1]
    assert writes[-1][1].endswith(b"data: [DONE]\n\n")


async def test_the_answer_ends_before_a_stop_text(client: openai.AsyncOpenAI) -> None:
    text = await text_of(client)
    stop = text[len(text) // 2 :][:4]
    stopped = await client.chat.completions.create(**ASK, stop=[stop])
    assert stopped.choices[0].message.content == text[: text.index(stop)]
    assert stopped.choices[0].finish_reason == "stop"


async def test_max_tokens_is_kept_under_both_names(client: openai.AsyncOpenAI) -> None:
    ask = {name: value for name, value in ASK.items() if name != "max_tokens"}
    for name in ("max_tokens", "max_completion_tokens"):
        answer = await client.chat.completions.create(**{**ask, name: 3})
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 3
        assert answer.choices[0].finish_reason == "length"


async def test_a_seed_gives_the_same_answer_in_any_company(client: openai.AsyncOpenAI) -> None:
    free = {"temperature": 2.0, "max_tokens": 20}
    alone = await text_of(client, **free, seed=7)
    together = await asyncio.gather(
        *(text_of(client, **free, seed=seed) for seed in (7, 8, 9, 10, 7))
    )
    assert together[0] == together[4] == alone
    assert len(set(together)) > 1


async def test_log_probabilities_come_with_their_alternatives(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(**ASK, logprobs=True, top_logprobs=3)
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content
    text = b"".join(bytes(entry.bytes or []) for entry in logprobs.content).decode()
    assert text == answer.choices[0].message.content
    for entry in logprobs.content:
        assert entry.logprob <= 0
        assert len(entry.top_logprobs) == 3
        # Greedy: the token that came is the likeliest.
        assert entry.top_logprobs[0].token == entry.token


async def test_a_bias_bans_a_token(client: openai.AsyncOpenAI) -> None:
    first = await client.chat.completions.create(**{**ASK, "max_tokens": 1})
    text = first.choices[0].message.content
    tokenizer = Tokenizer.from_file(str(WEIGHTS / "tokenizer.json"))
    banned = {
        str(token): -100
        for token in range(tokenizer.get_vocab_size())
        if tokenizer.decode([token]) == text
    }
    assert banned
    other = await client.chat.completions.create(**{**ASK, "max_tokens": 1}, logit_bias=banned)
    assert first.usage is not None
    assert other.usage is not None
    assert first.usage.prompt_tokens == other.usage.prompt_tokens
    assert other.choices[0].message.content != text


async def test_a_json_schema_holds_even_a_hot_answer(client: openai.AsyncOpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"urgent": {"type": "boolean"}, "level": {"enum": ["low", "high"]}},
        "required": ["urgent", "level"],
        "additionalProperties": False,
    }
    wanted = {
        "type": "json_schema",
        "json_schema": {"name": "triage", "strict": True, "schema": schema},
    }
    for seed in range(3):
        text = await text_of(
            client, response_format=wanted, temperature=1.5, seed=seed, max_tokens=120
        )
        value = json.loads(text)
        assert set(value) == {"urgent", "level"}
        assert value["level"] in ("low", "high")
        assert isinstance(value["urgent"], bool)


async def test_a_schema_that_cannot_be_compiled_is_refused(client: openai.AsyncOpenAI) -> None:
    wanted: Any = {
        "type": "json_schema",
        "json_schema": {"name": "x", "schema": {"type": "no such type"}},
    }
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError):
            await client.chat.completions.create(**ASK, response_format=wanted, stream=stream)


async def test_n_choices_come_whole_and_streamed(client: openai.AsyncOpenAI) -> None:
    ask = {**ASK, "n": 3, "temperature": 1.5, "seed": 3}
    whole = await client.chat.completions.create(**ask)
    texts = {choice.index: choice.message.content for choice in whole.choices}
    assert sorted(texts) == [0, 1, 2]
    streamed = dict.fromkeys(texts, "")
    async for chunk in await client.chat.completions.create(**ask, stream=True):
        streamed[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert streamed == texts


async def test_a_second_turn_finds_the_first_in_the_cache(client: openai.AsyncOpenAI) -> None:
    turns: list[Any] = [{"role": "user", "content": "Describe the patient. " * 40}]
    first = await client.chat.completions.create(**{**ASK, "messages": turns}, user="cache-test")
    turns += [first.choices[0].message, {"role": "user", "content": "And now?"}]
    second = await client.chat.completions.create(**{**ASK, "messages": turns}, user="cache-test")
    assert first.usage is not None
    assert second.usage is not None
    assert second.usage.prompt_tokens_details is not None
    cached = second.usage.prompt_tokens_details.cached_tokens or 0
    assert cached >= first.usage.prompt_tokens // 2


async def test_a_prompt_over_the_context_is_refused_in_both_modes(
    client: openai.AsyncOpenAI,
) -> None:
    huge = [{"role": "user", "content": "word " * 150_000}]
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as refused:
            await client.chat.completions.create(**{**ASK, "messages": huge, "stream": stream})
        assert refused.value.code == "context_length_exceeded"


@pytest.mark.parametrize(
    ("change", "kind", "code"),
    [
        ({"model": "no-such-model"}, openai.NotFoundError, "model_not_found"),
        ({"temperature": 3}, openai.BadRequestError, "invalid_value"),
        ({"tools": []}, openai.BadRequestError, "unsupported_parameter"),
        ({"messages": []}, openai.BadRequestError, "invalid_value"),
    ],
)
async def test_openais_client_raises_its_own_errors(
    client: openai.AsyncOpenAI, change: dict[str, Any], kind: type[openai.APIError], code: str
) -> None:
    with pytest.raises(kind) as raised:
        await client.chat.completions.create(**{**ASK, **change})
    assert raised.value.code == code


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/-/routes", 404),
        ("GET", "/-/healthz", 404),
        ("POST", "/v1/embeddings", 404),
        ("GET", "/v1/chat/completions", 405),
        ("POST", "/v1/chat/completions", 415),
    ],
)
async def test_errors_have_one_shape_and_one_id_through_the_edge(
    http: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    answer = await http.request(method, path, headers={"x-request-id": "edge-7"})
    assert answer.status_code == status
    ErrorBody.model_validate_json(answer.content)
    assert answer.headers.get_list("x-request-id") == ["edge-7"]


async def test_a_body_over_the_limit_is_refused_with_and_without_its_length(
    http: httpx.AsyncClient,
) -> None:
    body = json.dumps({**ASK, "user": "u" * (5 * 2**20)}).encode()

    async def parts() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 65_536):
            yield body[start : start + 65_536]

    headers = {"content-type": "application/json"}
    for content in (body, parts()):
        answer = await http.post("/v1/chat/completions", content=content, headers=headers)
        assert answer.status_code == 413
        ErrorBody.model_validate_json(answer.content)


async def test_health_models_and_the_description_are_there(
    http: httpx.AsyncClient, client: openai.AsyncOpenAI
) -> None:
    for path in ("/health/live", "/health/ready", "/openapi.json"):
        assert (await http.get(path)).status_code == 200
    assert [model.id async for model in client.models.list()] == [MODEL]
    assert (await client.models.retrieve(MODEL)).id == MODEL


async def test_metrics_cover_every_replica_of_the_cell(
    http: httpx.AsyncClient, client: openai.AsyncOpenAI
) -> None:
    pattern = re.compile(
        r'^medrec_chat_tokens_total\{[^}]*kind="completion"[^}]*\} ([0-9.e+]+)$', re.MULTILINE
    )

    async def told() -> float:
        page = await http.get("/metrics")
        assert page.status_code == 200
        assert page.headers["content-type"].startswith("text/plain")
        return sum(float(value) for value in pattern.findall(page.text))

    before = await told()
    tokens = 0
    for _ in range(4):
        answer = await client.chat.completions.create(**ASK)
        assert answer.usage is not None
        tokens += answer.usage.completion_tokens
    # Processes report to the agent every few seconds.
    async with asyncio.timeout(DEADLINE_S):
        while True:
            if await told() >= before + tokens:
                break
            await asyncio.sleep(1)


async def test_clients_that_leave_free_the_engine(
    http: httpx.AsyncClient, client: openai.AsyncOpenAI
) -> None:
    # No answer ends by itself, and together they would keep the engine busy for minutes.
    tokenizer = Tokenizer.from_file(str(WEIGHTS / "tokenizer.json"))
    ends = [tokenizer.token_to_id(word) for word in ("<eos>", "<end_of_turn>")]
    bias = {str(token): -100 for token in ends if token is not None}
    ask = {**ASK, "max_tokens": 4000, "n": 8, "logit_bias": bias}
    leaving = [
        asyncio.create_task(
            http.post(
                "/v1/chat/completions", json={**ask, "stream": stream}, timeout=10 * DEADLINE_S
            )
        )
        for stream in (False, True, False, True)
    ]
    await until_running(http, lambda sequences: sequences > 0)
    assert not any(task.done() for task in leaving)
    for task in leaving:
        task.cancel()
    await asyncio.gather(*leaving, return_exceptions=True)
    # The engine stops within a step; its measurements take some seconds to get here.
    await until_running(http, lambda sequences: sequences == 0)
    assert await text_of(client)


async def until_running(http: httpx.AsyncClient, wanted: Callable[[float], bool]) -> None:
    pattern = re.compile(r"^medrec_language_running\{[^}]*\} ([0-9.e+]+)$", re.MULTILINE)
    async with asyncio.timeout(30):
        while True:
            values = pattern.findall((await http.get("/metrics")).text)
            if values and wanted(sum(map(float, values))):
                return
            await asyncio.sleep(0.5)
