"""The surface over the real data node: records, audit, ledger and switches on a PostgreSQL."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI

from configs.args import Limits, RecordsArgs
from deployments.data.audit.chain import Audit
from deployments.data.database import Database
from deployments.data.interactions.decisions import Decisions
from deployments.data.interactions.ledger import Ledger
from deployments.data.interactions.switches import Switches
from deployments.data.principal import Principal
from deployments.data.records.store import Records
from deployments.data.seal.sealer import Sealer
from serve_app.ai.routes import ai_routes
from serve_app.chat.duties import Duties
from serve_app.services import Services
from serve_app.surface import create_app
from tests.serve_app.fake_language import FakeLanguage
from tests.serve_app.fake_security import FakeAuthority


@dataclass
class Hospital:
    """The data node's parts, as one replica opens them."""

    database: Database
    sealer: Sealer
    audit: Audit
    records: Records
    folder: Path
    wait_s: float = 10.0

    @asynccontextmanager
    async def surface(self, service: FakeLanguage, principal: Principal) -> AsyncIterator[FastAPI]:
        """A running replica's application, asked by `principal`."""
        ledger = Ledger(self.database, self.sealer, self.audit, RecordsArgs().retention)
        switches = Switches(self.database, self.audit, self.folder / "switches.json")
        decisions = Decisions(self.database, self.sealer, self.audit)
        services = Services(
            language=service,
            authority=FakeAuthority(principal),
            audit=self.audit,
            duties=Duties(self.audit, self.records, ledger, switches, wait_s=self.wait_s),
            routes=(lambda app: app.include_router(ai_routes(decisions, switches)),),
            parts=(switches, ledger),
        )
        app = create_app(services, Limits())
        await switches.refresh(deadline_of())
        async with app.router.lifespan_context(app):
            yield app


def deadline_of(seconds: float = 20.0) -> float:
    """A moment from now."""
    return time.monotonic() + seconds
