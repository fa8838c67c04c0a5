"""A process that writes patients and kills itself where it is told to. Run by test_durability.py."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

from configs.args import RecordsArgs
from deployments.data.audit.chain import Audit
from deployments.data.database import Database
from deployments.data.records.store import Records
from deployments.data.seal.sealer import Sealer
from tests.deployments.data.records import people


def die(*_: Any, **__: Any) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


async def main(dsn: str, secrets: str, journal: str, where: str) -> None:
    database = Database(dsn, connections=2)
    await database.open()
    audit = Audit(database, Path(journal))
    await audit.start()
    records = Records(database, Sealer.load(Path(secrets)), audit, RecordsArgs())
    machine = people.caller("service", key="the-key", account="machine")
    if where == "before the commit":
        database._commit = die  # type: ignore[method-assign]
    elif where == "after the commit":
        audit.settle = die  # type: ignore[method-assign]
    written = await records.create(machine, "Patient", people.patient())
    print(written.stored.id, flush=True)
    die()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:5]))
