"""Interactions on a real PostgreSQL with the real audit, sealer and records."""

from __future__ import annotations

import asyncio
import hashlib
import time
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest

from configs.args import Retention
from deployments.data.audit.chain import Audit
from deployments.data.database import Database
from deployments.data.interactions.decisions import Decisions
from deployments.data.interactions.interaction import Answered, Asked, canonical
from deployments.data.interactions.ledger import Ledger
from deployments.data.principal import Caller
from deployments.data.seal.sealer import Sealer
from tests.deployments.data.audit.conftest import mortal
from tests.deployments.data.records.conftest import Owner, audit, house, owner, records, sealer
from tests.deployments.data.records.people import MARK

__all__ = ["audit", "house", "mortal", "owner", "records", "sealer"]

MESSAGES = [{"role": "user", "content": f"What troubles {MARK}?"}]


def question(patient: str | None = None, *, at: float | None = None) -> Asked:
    """A question, about a patient if one is given."""
    text = canonical(MESSAGES)
    return Asked(
        id=f"chatcmpl-{uuid.uuid4().hex}",
        model="gemma3-demo",
        weights_sha256="a" * 64,
        prompt_version="0123456789ab",
        input_sha256=hashlib.sha256(text).hexdigest(),
        patient=patient,
        text=text if patient else b"",
        at=time.time() if at is None else at,
    )


def answer(outcome: Any = "success") -> Answered:
    """An answer to it."""
    text = f"Nothing troubles {MARK}."
    return Answered(
        outcome=outcome,
        output_sha256=hashlib.sha256(text.encode()).hexdigest(),
        finish_reasons=("stop",),
        text=canonical([{"content": text}]),
    )


def again(who: Caller, *, seconds: float = 30.0) -> Caller:
    """The same principal's next request."""
    return replace(who, request_id=uuid.uuid4().hex, deadline=time.monotonic() + seconds)


async def eventually(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Poll until `condition` holds."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110  what is waited for is another process's
            await asyncio.sleep(0.05)


@pytest.fixture
async def ledger(database: Database, sealer: Sealer, audit: Audit) -> AsyncIterator[Ledger]:
    made = Ledger(database, sealer, audit, Retention())
    await made.start()
    yield made
    await made.close()


@pytest.fixture
def decisions(database: Database, sealer: Sealer, audit: Audit) -> Decisions:
    return Decisions(database, sealer, audit)


def chained(owner: Owner, interaction: str) -> list[tuple[str, str]]:
    """Action and outcome of the chain's entries about an interaction, in order."""
    return [
        (entry["action"], entry["outcome"])
        for entry in owner.entries()
        if entry["details"].get("interaction") == interaction
    ]
