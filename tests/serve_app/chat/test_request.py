from __future__ import annotations

import pytest

from deployments.data.principal import Principal
from models.generation import ChatRequest, Priority, Sampling
from serve_app.chat.refusals import validate
from serve_app.chat.request import engine_request, fairness_key, patient_from, priority_from
from serve_app.errors import InvalidParameter
from tests.serve_app.fake_language import ASK


def request_for(**given: object) -> ChatRequest:
    body = validate({**ASK, **given})
    return engine_request(
        body, request_id="r", priority=Priority.BATCH, timeout_s=9.0, user="account-1"
    )


def test_a_bare_request_has_openais_defaults() -> None:
    request = request_for()
    assert request.sampling == Sampling()
    assert request.messages == [{"role": "user", "content": "hello"}]
    assert (request.n, request.max_tokens, request.stop, request.user) == (1, None, (), "account-1")
    assert request.response_format is None
    assert (request.priority, request.timeout_s) == (Priority.BATCH, 9.0)


def test_every_parameter_reaches_the_engine() -> None:
    request = request_for(
        temperature=0.0,
        top_p=0.0,
        top_k=7,
        min_p=0.25,
        seed=-5,
        presence_penalty=0.5,
        frequency_penalty=-0.5,
        logit_bias={"12": -100, "7": 1.5},
        logprobs=True,
        top_logprobs=3,
        n=2,
        stop=["a", "b"],
        max_completion_tokens=11,
    )
    assert request.sampling == Sampling(
        temperature=0.0,
        top_p=0.0,
        top_k=7,
        min_p=0.25,
        seed=-5,
        presence_penalty=0.5,
        frequency_penalty=-0.5,
        logit_bias={12: -100, 7: 1.5},
        logprobs=True,
        top_logprobs=3,
    )
    assert (request.n, request.stop, request.max_tokens) == (2, ("a", "b"), 11)


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_both_names_of_the_token_limit_are_honoured(name: str) -> None:
    assert request_for(**{name: 3}).max_tokens == 3


def test_one_stop_text_is_a_list_of_one() -> None:
    assert request_for(stop="end").stop == ("end",)


def test_text_parts_are_joined_and_developers_are_the_system() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    messages = [{"role": "developer", "content": "s"}, {"role": "user", "content": parts}]
    assert request_for(messages=messages).messages == [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "ab"},
    ]


def test_response_formats_become_the_engines_words() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    given = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    assert request_for(response_format=given).response_format == {
        "type": "json_schema",
        "schema": schema,
    }
    assert request_for(response_format={"type": "json_object"}).response_format == {
        "type": "json_object"
    }
    assert request_for(response_format={"type": "text"}).response_format is None


@pytest.mark.parametrize("word", ["emergency", "interactive", "batch"])
def test_the_priority_header_is_read(word: str) -> None:
    assert priority_from([(b"x-priority", word.encode())]) is Priority[word.upper()]


def test_without_the_header_a_request_is_interactive() -> None:
    assert priority_from([]) is Priority.INTERACTIVE


def test_an_unknown_priority_is_refused_by_name() -> None:
    with pytest.raises(InvalidParameter) as refused:
        priority_from([(b"x-priority", b"vip-maria")])
    assert refused.value.param == "x-priority"
    assert "maria" not in refused.value.message


@pytest.mark.parametrize(
    ("metadata", "patient"),
    [
        (None, None),
        ({}, None),
        ({"ward": "7"}, None),
        ({"patient": "Patient/a-1.b", "ward": "7"}, "a-1.b"),
    ],
)
def test_the_patient_is_a_reference_in_the_metadata(
    metadata: dict[str, str] | None, patient: str | None
) -> None:
    assert patient_from(metadata) == patient


@pytest.mark.parametrize(
    "given",
    [
        *("", "a-1", "Patient/", "patient/a", "Patient/a/_history/1", "Patient/a b", "Patient/\n"),
        *("Group/a", "Patient/" + "a" * 65, "Patient/a\n", "http://x/Patient/a", "Patient/ä"),
    ],
)
def test_a_patient_in_another_form_is_refused_by_name(given: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        patient_from({"patient": given})
    assert refused.value.param == "metadata.patient"
    assert refused.value.message.endswith("of the form Patient/<id>.")


def test_a_person_is_one_user_whatever_the_request_says() -> None:
    person = Principal("id-1", "account", "nurse", "hospital", frozenset())
    machine = Principal("id-2", "key", "service", "hospital", frozenset())
    assert fairness_key(person, "somebody else") == fairness_key(person, None) == "id-1"
    assert fairness_key(machine, None) == "id-2"
    assert fairness_key(machine, "id-1") == "id-2/id-1"
