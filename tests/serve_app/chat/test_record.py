from __future__ import annotations

import logging

import orjson
import pytest

from serve_app.chat.record import ChatRecord

RECORD = ChatRecord(
    request_id="r",
    completion_id="c",
    engine_id="r.1",
    model="m",
    weights_sha256="w",
    priority="batch",
    began_at=1.0,
    user="maria@hospital",
    metadata={"patient": "id-77", "João da Silva": "x"},
)


def test_the_line_names_ids_and_metadata_keys_but_no_person() -> None:
    line = orjson.loads(RECORD.line())
    assert line["request_id"] == "r"
    assert line["completion_id"] == "c"
    assert line["engine_id"] == "r.1"
    assert line["metadata_keys"] == ["patient"]
    assert line["metadata_other_keys"] == 1
    assert line["user_given"] is True
    for secret in ("maria", "id-77", "Silva"):
        assert secret.encode() not in RECORD.line()


def test_the_line_goes_to_the_log_of_chats(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "medrec.chat"):
        RECORD.write()
    assert orjson.loads(caplog.records[0].getMessage())["event"] == "chat"


def test_the_record_itself_keeps_what_the_audit_needs() -> None:
    assert RECORD.user == "maria@hospital"
    assert RECORD.metadata["patient"] == "id-77"
