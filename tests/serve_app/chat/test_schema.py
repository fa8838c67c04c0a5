from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import pytest
from openai.types.chat import completion_create_params as official
from openai.types.chat.chat_completion_content_part_param import ChatCompletionContentPartParam

from serve_app.chat.refusals import param_path, validate
from serve_app.chat.schema import ChatBody
from serve_app.errors import InvalidParameter
from tests.serve_app.fake_language import ASK

USER = {"role": "user", "content": "hello"}
SECRET = "Maria-has-a-secret"

ACCEPTED: list[dict[str, Any]] = [
    {"temperature": 0},
    {"temperature": 2},
    {"top_p": 0.0},
    {"top_p": 1},
    {"top_k": 0},
    {"top_k": 40},
    {"min_p": 0.1},
    {"seed": -(2**63)},
    {"seed": 2**63 - 1},
    {"stop": "\n"},
    {"stop": ["a", "b", "c", "d"]},
    {"stop": []},
    {"max_tokens": 1},
    {"max_tokens": 5, "max_completion_tokens": 5},
    {"presence_penalty": -2, "frequency_penalty": 2.0},
    {"logit_bias": {"0": -100, "262143": 100.0}},
    {"logprobs": True, "top_logprobs": 20},
    {"logprobs": False},
    {"n": 8},
    {"stream": True, "stream_options": {"include_usage": True}},
    {"stream": True, "stream_options": {"include_obfuscation": False}},
    {"response_format": {"type": "text"}},
    {"response_format": {"type": "json_object"}},
    {
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "x", "strict": True, "schema": {"type": "object"}},
        }
    },
    {"user": "u" * 256},
    {"metadata": {"k" * 64: "v" * 512}},
    {"store": False},
    {"service_tier": "auto"},
    {"service_tier": "default"},
    {"messages": [{"role": "system", "content": "s"}, USER]},
    {"messages": [{"role": "developer", "content": "s"}, USER]},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]},
    {
        "messages": [
            USER,
            {"role": "assistant", "content": "a", "refusal": None, "annotations": []},
            USER,
        ]
    },
]

REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"temperature": 2.01}, "temperature", "invalid_value"),
    ({"temperature": -0.1}, "temperature", "invalid_value"),
    ({"temperature": "1"}, "temperature", "invalid_type"),
    ({"temperature": True}, "temperature", "invalid_type"),
    ({"top_p": 1.1}, "top_p", "invalid_value"),
    ({"top_k": -1}, "top_k", "invalid_value"),
    ({"top_k": 1.5}, "top_k", "invalid_type"),
    ({"min_p": 2}, "min_p", "invalid_value"),
    ({"seed": 2**63}, "seed", "invalid_value"),
    ({"seed": 1e30}, "seed", "invalid_type"),
    ({"stop": ["a"] * 5}, "stop", "invalid_value"),
    ({"stop": ""}, "stop", "invalid_value"),
    ({"stop": ["a", ""]}, "stop[1]", "invalid_value"),
    ({"stop": 1}, "stop", "invalid_type"),
    ({"max_tokens": 0}, "max_tokens", "invalid_value"),
    ({"max_completion_tokens": "5"}, "max_completion_tokens", "invalid_type"),
    ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens", "invalid_value"),
    ({"presence_penalty": 2.1}, "presence_penalty", "invalid_value"),
    ({"frequency_penalty": -2.1}, "frequency_penalty", "invalid_value"),
    ({"logit_bias": {"5": 101}}, "logit_bias.5", "invalid_value"),
    ({"logit_bias": {"word": 1}}, "logit_bias.word", "invalid_value"),
    ({"logit_bias": {str(i): 1 for i in range(1025)}}, "logit_bias", "invalid_value"),
    ({"logprobs": 1}, "logprobs", "invalid_type"),
    ({"top_logprobs": 5}, "top_logprobs", "invalid_value"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "invalid_value"),
    ({"n": 0}, "n", "invalid_value"),
    ({"n": 9}, "n", "invalid_value"),
    ({"stream": "yes"}, "stream", "invalid_type"),
    ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_value"),
    ({"stream": True, "stream_options": {"x": 1}}, "stream_options.x", "unsupported_parameter"),
    ({"response_format": {"type": "xml"}}, "response_format", "invalid_value"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "missing"),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a b", "schema": {}}}},
        "response_format.json_schema.name",
        "invalid_value",
    ),
    ({"user": "u" * 257}, "user", "invalid_value"),
    ({"metadata": {str(i): "v" for i in range(17)}}, "metadata", "invalid_value"),
    ({"metadata": {"k": "v" * 513}}, "metadata.k", "invalid_value"),
    ({"metadata": {"k": 1}}, "metadata.k", "invalid_type"),
    ({"store": True}, "store", "invalid_value"),
    ({"service_tier": "flex"}, "service_tier", "invalid_value"),
    ({"model": ""}, "model", "invalid_value"),
    ({"model": None}, "model", "invalid_type"),
    ({"messages": []}, "messages", "invalid_value"),
    ({"messages": "hello"}, "messages", "invalid_type"),
    ({"messages": [USER] * 2049}, "messages", "invalid_value"),
    ({"messages": ["hello"]}, "messages[0]", "invalid_value"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0]", "invalid_value"),
    ({"messages": [{"role": "user"}]}, "messages[0].content", "missing"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "invalid_type"),
    ({"messages": [{"role": "user", "content": []}]}, "messages[0].content", "invalid_value"),
    (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": 1}]}]},
        "messages[0].content[0].text",
        "invalid_type",
    ),
    (
        {"messages": [USER, {"role": "assistant", "content": None}]},
        "messages[1].content",
        "invalid_type",
    ),
    (
        {"messages": [USER, {"role": "assistant", "content": "a", "tool_calls": [{}]}]},
        "messages[1].tool_calls",
        "invalid_value",
    ),
    (
        {"messages": [{"role": "user", "content": "a", "name": "maria"}]},
        "messages[0].name",
        "unsupported_parameter",
    ),
]


@pytest.mark.parametrize("given", ACCEPTED, ids=lambda given: str(given)[:50])
def test_values_within_the_documented_ranges_are_taken(given: dict[str, Any]) -> None:
    body = validate({**ASK, **given})
    for name, value in given.items():
        if not isinstance(value, dict | list):
            assert getattr(body, name) == value


@pytest.mark.parametrize(("given", "param", "code"), REFUSED, ids=lambda given: str(given)[:50])
def test_values_outside_are_refused_by_name(given: dict[str, Any], param: str, code: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        validate({**ASK, **given})
    error = refused.value
    assert (error.status, error.param) == (400, param)
    assert error.code == {"missing": "missing_required_parameter"}.get(code, code)
    assert f"'{param}'" in error.message


@pytest.mark.parametrize("name", sorted(set(ChatBody.model_fields) - {"model", "messages"}))
def test_null_means_not_given(name: str) -> None:
    assert validate({**ASK, name: None}) == validate(ASK)


@pytest.mark.parametrize("value", [None, [], "text", 5, True])
def test_a_body_that_is_no_object_is_refused(value: object) -> None:
    with pytest.raises(InvalidParameter, match="object"):
        validate(value)


def official_parameters() -> set[str]:
    streaming = official.CompletionCreateParamsStreaming
    return {*official.CompletionCreateParamsBase.__annotations__, *streaming.__annotations__}


@pytest.mark.parametrize("name", sorted(official_parameters()))
def test_every_parameter_of_openais_client_is_honoured_or_refused_by_name(name: str) -> None:
    if name in ChatBody.model_fields:
        return
    with pytest.raises(InvalidParameter) as refused:
        validate({**ASK, name: {"some": "value"}})
    assert refused.value.param == name
    assert refused.value.code == "unsupported_parameter"


def test_the_official_list_is_really_read() -> None:
    assert {"messages", "tools", "audio", "stream", "reasoning_effort"} <= official_parameters()


@pytest.mark.parametrize("name", sorted({*official_parameters(), *ChatBody.model_fields}))
def test_every_parameter_stands_in_the_documentation(name: str) -> None:
    page = Path(__file__).parents[3] / "docs" / "http.md"
    assert f"`{name}`" in page.read_text()


def content_part_types() -> set[str]:
    parts = [part.__annotations__["type"] for part in get_args(ChatCompletionContentPartParam)]
    return set(re.findall(r"['\"](\w+)['\"]", str(parts)))


def test_content_parts_that_are_not_text_are_refused_by_name() -> None:
    kinds = content_part_types()
    assert {"text", "image_url"} <= kinds
    for kind in kinds - {"text"}:
        part = {"type": kind, kind: {"url": SECRET}}
        with pytest.raises(InvalidParameter) as refused:
            validate({**ASK, "messages": [{"role": "user", "content": [part]}]})
        assert refused.value.param == "messages[0].content[0]"
        assert kind in refused.value.message


@pytest.mark.parametrize(
    "given",
    [
        {SECRET.replace("-", " "): 1},
        {"temperature": SECRET},
        {"service_tier": SECRET},
        {"stop": [1, SECRET]},
        {"user": [SECRET]},
        {"messages": SECRET},
        {"messages": [{"role": SECRET, "content": "x"}]},
        {"messages": [{"role": "user", "content": [{"type": SECRET}]}]},
        {"messages": [{"role": "user", "content": {"x": SECRET}}]},
        {"messages": [{"role": "user", "content": "x", SECRET.replace("-", "é"): 1}]},
        {"response_format": {"type": SECRET}},
        {"response_format": {"type": "json_schema", "json_schema": SECRET}},
        {"metadata": {SECRET.replace("-", " "): 1}},
        {"metadata": SECRET},
        {"logit_bias": {SECRET.replace("-", " "): 1}},
        {"stream": SECRET},
        {"store": SECRET},
    ],
)
def test_no_refusal_repeats_what_was_sent(given: dict[str, Any]) -> None:
    with pytest.raises(InvalidParameter) as refused:
        validate({**ASK, **given})
    told = f"{refused.value.message} {refused.value.param}"
    assert "secret" not in told
    assert "Maria" not in told


def test_a_path_ends_before_a_key_that_is_somebodys_text() -> None:
    values = {"metadata": {"João da Silva": 1}}
    assert param_path(("metadata", "João da Silva"), values, missing=False) == "metadata"
