"""What the custodian does, job by job: how often, for how long at most, and what came of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

from configs.args import DataArgs, RecordsArgs
from deployments.cell.state import Home
from deployments.data import replication
from deployments.data.accounts import purge as accounts
from deployments.data.alerts.escalation import Escalation
from deployments.data.audit.chain import Audit
from deployments.data.audit.sweep import Watch, sweep
from deployments.data.blobs.keeping import Keeper
from deployments.data.blobs.sweep import sweep as sweep_blobs
from deployments.data.database import Database
from deployments.data.emergency import keeping, publisher
from deployments.data.emergency.copy import Copy
from deployments.data.interactions import retention
from deployments.data.places import Places
from deployments.data.records import housekeeping

Figures = dict[str, int]


@dataclass(frozen=True, slots=True)
class Job:
    """One duty. `run` is given a moment of `time.monotonic()` by which it must be done.

    `everywhere`: each cell does it for itself; the others are done where the lead is.
    """

    name: str
    every_s: float
    deadline_s: float
    run: Callable[[float], Awaitable[Figures]]
    everywhere: bool = False


def jobs(
    args: DataArgs,
    database: Database,
    audit: Audit,
    watch: Watch,
    places: Places,
    keeper: Keeper,
    home: Home,
) -> tuple[Job, ...]:
    """Every job there is; each is safe to repeat and to break off."""

    async def chain_outbox(deadline: float) -> Figures:
        swept = await sweep(database, deadline=deadline)
        return {"chained": swept.chained, "stuck": swept.stuck}

    async def verify_chain(deadline: float) -> Figures:
        step = await watch.verify_step(database, deadline=deadline)
        return {"checked": step.checked, "seq": step.seq, "faults": watch.faults}

    async def close_abandoned(deadline: float) -> Figures:
        older_than_s = args.abandoned_after_s
        closed = await retention.close_abandoned(
            database, audit, older_than_s=older_than_s, deadline=deadline
        )
        return {"closed": closed}

    async def purge_texts(deadline: float) -> Figures:
        return await retention.purge(database, audit, deadline=deadline)

    async def purge_accounts(deadline: float) -> Figures:
        return await accounts.purge(database, deadline=deadline)

    async def purge_records(deadline: float) -> Figures:
        gone = await housekeeping.purge(database, deadline=deadline)
        return {"keys": gone.keys, "relationships": gone.relationships}

    async def sweep_uploads(deadline: float) -> Figures:
        swept = await sweep_blobs(database, places.blobs, deadline=deadline)
        return {"parts": swept.parts, "orphans": swept.orphans}

    async def reconcile_blobs(deadline: float) -> Figures:
        return await keeper.lap()

    escalation = Escalation(database, audit, args.records)

    async def watch_replication(deadline: float) -> Figures:
        return await replication.watch(database, home, deadline=deadline)

    return (
        Job("escalate-alerts", 3.0, 30.0, escalation.run),
        Job("watch-replication", 2.0, 2.0, watch_replication),
        Job("chain-outbox", 5.0, 30.0, chain_outbox),
        Job("verify-chain", 5.0, 30.0, verify_chain),
        Job("close-abandoned", 60.0, 60.0, close_abandoned),
        Job("purge-texts", 600.0, 300.0, purge_texts),
        Job("purge-accounts", 600.0, 60.0, purge_accounts),
        Job("purge-records", 3600.0, 120.0, purge_records),
        Job("sweep-uploads", 3600.0, 600.0, sweep_uploads, everywhere=True),
        # Its waits are bounded one by one; a large blob takes the time that it takes.
        Job("reconcile-blobs", 5.0, 7200.0, reconcile_blobs, everywhere=True),
        *_emergency(args.records, database, places, home),
    )


def _emergency(rules: RecordsArgs, database: Database, places: Places, home: Home) -> Iterator[Job]:
    """A site says that it lives; an emergency cell keeps its copy of the site."""
    if rules.mode == "normal":

        async def beat(deadline: float) -> Figures:
            return await publisher.beat(database, deadline=deadline)

        yield Job("heartbeat", publisher.HEARTBEAT_S, publisher.HEARTBEAT_S, beat)
    elif rules.emergency.source_dsn is not None:
        keeper = keeping.CopyKeeper(Copy(places.owner_dsn, rules.emergency.source_dsn), home)
        yield Job("emergency-copy", keeping.EVERY_S, keeping.DEADLINE_S, keeper.run)
