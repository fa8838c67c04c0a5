from __future__ import annotations

import logging

import orjson
import pytest

from serve_app.chat.record import log_chat


def test_the_line_holds_ids_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    ids = {
        "request_id": "r",
        "completion_id": "c",
        "engine_id": "r.1",
        "model": "m",
        "priority": "batch",
    }
    with caplog.at_level(logging.INFO, "medrec.chat"):
        log_chat(**ids)
    assert orjson.loads(caplog.records[0].getMessage()) == {"event": "chat", **ids}
