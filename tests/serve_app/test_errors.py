from __future__ import annotations

import logging
from typing import Any

import orjson
import pytest
from starlette.exceptions import HTTPException

import models.errors
from models.errors import EngineError, Overloaded
from models.generation import Failure
from serve_app import errors
from serve_app.errors import HttpError, StreamFailed, answer_for, report_unexpected


def subclasses(root: type[Any]) -> list[type[Any]]:
    found = [root]
    for child in root.__subclasses__():
        found += subclasses(child)
    return found


@pytest.mark.parametrize("kind", subclasses(EngineError), ids=lambda kind: kind.__name__)
def test_every_engine_error_keeps_its_status_type_code_and_param(kind: type[EngineError]) -> None:
    answer = answer_for(kind("why", param="where"), "id")
    assert (answer.status, answer.type, answer.code) == (kind.status, kind.type, kind.code)
    assert orjson.loads(answer.body()) == {
        "error": {"message": "why", "type": kind.type, "param": "where", "code": kind.code}
    }


@pytest.mark.parametrize("kind", subclasses(HttpError), ids=lambda kind: kind.__name__)
def test_every_refusal_of_this_process_keeps_its_status(kind: type[HttpError]) -> None:
    assert answer_for(kind("why"), "id").status == kind.status
    assert kind.__module__.startswith("serve_app") or kind is HttpError


def test_a_failure_of_a_stream_is_told_as_its_fields_say() -> None:
    failure = Failure(503, "server_error", "engine_unavailable", "gone", None, 2.5)
    for error in (failure, StreamFailed(failure)):
        answer = answer_for(error, "id")
        assert (answer.status, answer.code, answer.message) == (503, "engine_unavailable", "gone")
        assert (b"retry-after", b"3") in answer.response_headers()


@pytest.mark.parametrize("retry_after_s", [None, 0.0, 0.2])
def test_429_always_says_when_to_come_back_in_whole_seconds(retry_after_s: float | None) -> None:
    headers = answer_for(Overloaded("busy", retry_after_s=retry_after_s), "id").response_headers()
    assert (b"retry-after", b"1") in headers


def test_a_time_limit_is_504() -> None:
    answer = answer_for(TimeoutError(), "id")
    assert (answer.status, answer.type, answer.code) == (504, "timeout_error", "deadline_exceeded")


def test_405_keeps_its_allow_header() -> None:
    answer = answer_for(HTTPException(405, headers={"Allow": "POST"}), "id")
    assert (b"allow", b"POST") in answer.response_headers()


def test_an_unexpected_exception_tells_the_client_nothing_but_the_request_id() -> None:
    answer = answer_for(RuntimeError("patient Maria"), "id-7")
    assert answer.status == 500
    assert b"Maria" not in answer.body()
    assert b"id-7" in answer.body()


def test_an_unexpected_exception_is_logged_by_type_and_place_without_its_message(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.ERROR, "medrec.errors"):
        try:
            raise RuntimeError("patient Maria")
        except RuntimeError as error:
            report_unexpected(error, "id-7")
        report_unexpected(Overloaded("busy"), "id-8")
    assert "RuntimeError at test_errors.py" in caplog.text
    assert "id-7" in caplog.text
    assert "Maria" not in caplog.text
    assert "id-8" not in caplog.text


def test_the_error_event_of_a_stream_is_one_line_of_data() -> None:
    event = answer_for(TimeoutError(), "id").event()
    assert event.startswith(b'data: {"error":{')
    assert event.endswith(b"}\n\n")
    assert event.count(b"\n") == 2


def test_modules_of_errors_say_who_is_at_fault_in_every_class() -> None:
    for module in (errors, models.errors):
        for value in vars(module).values():
            if getattr(value, "__module__", "") != module.__name__:
                continue
            if isinstance(value, type) and issubclass(value, Exception):
                assert value.__doc__
