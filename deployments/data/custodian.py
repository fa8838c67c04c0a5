"""The custodian: keeps the records in order in the background, one job beside the other.

It does not serve requests. What a job finds goes to metrics and `report`; a failure is logged by
its type alone, and the job comes again at its time.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ray.util.metrics import Counter, Gauge

from configs.args import DataArgs
from deployments.cell import condition
from deployments.cell.state import home
from deployments.data.accounts.demo import refuse_demo
from deployments.data.alerts.alert import SEVERITIES
from deployments.data.audit.chain import Audit
from deployments.data.audit.sweep import Watch
from deployments.data.backup.ages import BackupMeters
from deployments.data.blobs.keeping import Keeper
from deployments.data.database import Database
from deployments.data.jobs import Figures, Job, jobs
from deployments.data.leadership import Leadership
from deployments.data.migrate import migrate
from deployments.data.places import places
from deployments.site.models.rounds import Rounds as ModelRounds
from deployments.site.models.store import store_of

logger = logging.getLogger("ray.serve")

CONNECTIONS = 4
LAP_S = 1.0
# A job's own deadline comes first; what outlasts it by this much is broken off.
GRACE_S = 5.0
# After a start the rare jobs come soon as well: a cell that restarts daily must forget in time too.
FIRST_AFTER_S = 10.0
LATE_S = 20.0


@dataclass
class Account:
    """What became of one job. Moments are Unix time, for people."""

    last_run: float | None = None
    last_success: float | None = None
    runs: int = 0
    failures: int = 0
    error: str = ""
    figures: Figures = field(default_factory=dict)


class Rounds:
    """Runs jobs at their times: a cell's own ones always, the others while leading.

    `begin` starts it, `end` ends it.
    """

    def __init__(self, duties: Sequence[Job], leadership: Leadership) -> None:
        self.accounts = {job.name: Account() for job in duties}
        self._jobs = duties
        self._leadership = leadership
        self._tasks: list[asyncio.Task[None]] = []
        self._lap_s = time.monotonic()

    def begin(self) -> None:
        """Start one task for each job, so that a long one delays no other."""
        self._tasks = [
            asyncio.create_task(self._lead()),
            *(asyncio.create_task(self._keep(job)) for job in self._jobs),
        ]

    async def end(self) -> None:
        """Break off what runs, and give up the lead."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._leadership.close()

    @property
    def ailment(self) -> str | None:
        """What is wrong with the rounds themselves, in a sentence; None if nothing is."""
        if any(task.done() for task in self._tasks):
            return "a job's loop has ended"
        late_s = time.monotonic() - self._lap_s
        return f"no lap for {late_s:.0f} s" if late_s > LATE_S else None

    async def run(self, job: Job) -> None:
        """Run one job now, within its deadline, and keep account of it."""
        account = self.accounts[job.name]
        account.last_run, account.runs = time.time(), account.runs + 1
        try:
            async with asyncio.timeout(job.deadline_s + GRACE_S):
                account.figures = await job.run(time.monotonic() + job.deadline_s)
        except Exception as error:
            account.failures, account.error = account.failures + 1, type(error).__name__
            logger.warning("custodian: %s failed: %s", job.name, account.error)
        else:
            account.last_success, account.error = time.time(), ""

    async def _lead(self) -> None:
        while True:
            before = self._leadership.is_held
            if await self._leadership.held() != before:
                logger.info("custodian: %s", "waits" if before else "leads")
            self._lap_s = time.monotonic()
            await asyncio.sleep(LAP_S)

    async def _keep(self, job: Job) -> None:
        due = time.monotonic() + min(job.every_s, FIRST_AFTER_S)
        while True:
            await asyncio.sleep(min(LAP_S, max(0.05, due - time.monotonic())))
            if time.monotonic() >= due and (job.everywhere or self._leadership.is_held):
                await self.run(job)
                due = time.monotonic() + job.every_s


class Custodian:
    """The deployment's one replica; `args` are those of the application `data`."""

    def __init__(self, args: dict[str, Any]) -> None:
        """Brings the database to the code's revision first: `serve deploy` comes without `medrec up`.

        Raises `CellError` if that fails, or if what a demo made would be there for patients.
        """
        data = DataArgs.model_validate(args)
        own_home = home()
        where = places(data.records, own_home)
        migrate(where.owner_dsn)
        if not data.records.demo:
            refuse_demo(where)
        self._database = Database(
            where.dsn,
            connections=CONNECTIONS,
            name="medrec-custodian",
            failover_wait_s=data.records.failover_wait_s,
        )
        self._audit = Audit(self._database, where.journal, enabled=data.records.audit)
        self._watch = Watch()
        self._keeper = Keeper(data.records, self._database, where.blobs, own_home)
        self._rounds = Rounds(
            jobs(data, self._database, self._audit, self._watch, where, self._keeper, own_home),
            Leadership(where.dsn),
        )
        self._meters = Meters()
        self._backup_meters = BackupMeters()
        # Each cell watches its own models, whoever leads and whether or not there is a database.
        self._models = ModelRounds(
            store_of(data.records, own_home),
            own_home,
            data.records.others,
            self._meters.show_models,
        )
        self._models.begin()
        self._loop = asyncio.get_running_loop().create_task(self._run())

    async def report(self) -> dict[str, Any]:
        """Each job's last run and result, as JSON values."""
        return {
            "leads": self._rounds._leadership.is_held,
            "jobs": {name: vars(account).copy() for name, account in self._rounds.accounts.items()},
            "chain": {"faults": self._watch.faults, "rounds": self._watch.rounds},
            "database": self._database.figures(),
            "models": self._models.report(),
        }

    def check_health(self) -> None:
        """Serve restarts the custodian if its rounds have stopped."""
        ended = "the rounds have ended" if self._loop.done() else None
        ailment = ended or self._rounds.ailment or self._models.ailment
        if ailment:
            raise RuntimeError(f"the custodian does not work: {ailment}")

    async def _run(self) -> None:
        await self._database.open()
        await self._audit.start()
        self._rounds.begin()
        while True:
            self._meters.show(await self.report(), self._audit)
            self._backup_meters.show(condition.read(home()).get("backup"))
            await asyncio.sleep(LAP_S)

    async def __del__(self) -> None:
        """Serve awaits this when the replica leaves: the next custodian leads at once."""
        self._loop.cancel()
        await self._models.end()
        await self._rounds.end()
        await self._keeper.close()
        await self._audit.close()
        await self._database.close()


class Meters:
    """The custodian's measurements, among the cell's own."""

    def __init__(self) -> None:
        job = ("job",)
        self._leads = Gauge("medrec_custodian_leads", "1 while this custodian leads.", ())
        self._runs = Counter("medrec_custodian_runs", "Runs of a job.", job)
        self._failures = Counter("medrec_custodian_failures", "Runs of a job that failed.", job)
        self._success = Gauge(
            "medrec_custodian_last_success_s", "Unix time of a job's last good end.", job
        )
        self._faults = Gauge("medrec_audit_chain_faults", "Faults that the watch has found.", ())
        self._stuck = Gauge("medrec_audit_outbox_stuck", "Audit rows that cannot be chained.", ())
        self._journal = Gauge("medrec_custodian_journal_bytes", "Size of its audit journal.", ())
        self._lag = Gauge("medrec_custodian_journal_lag_s", "Age of its oldest entry.", ())
        self._models = Gauge(
            "medrec_model_faulty", "1 if the current version is faulty.", ("model",)
        )
        self._blobs = {
            "missing": Gauge("medrec_blobs_missing", "Blobs that this cell lacks.", ()),
            "single": Gauge("medrec_blobs_single", "Blobs that are on one machine only.", ()),
            "corrupt": Gauge("medrec_blobs_corrupt", "Blobs that are damaged in this cell.", ()),
        }
        self._fetched = Counter("medrec_blobs_fetched", "Blobs fetched from the other cell.", ())
        self._told_fetched = 0
        self._alerts = Gauge("medrec_alerts_open", "Alerts that are not resolved.", ("severity",))
        self._unacknowledged = Gauge(
            "medrec_alerts_unacknowledged_age_s", "Age of the oldest unacknowledged alert.", ()
        )
        self._escalated = Counter("medrec_alerts_escalated", "Calls beyond an alert's first.", ())
        self._calls = 0
        self._told: dict[str, tuple[int, int]] = {}

    def show_models(self, faulty: Mapping[str, float]) -> None:
        """Bring the models' metric up to the watch: 1 for a faulty one, 0 for the others."""
        for name, value in faulty.items():
            self._models.set(value, {"model": name})

    def show(self, report: dict[str, Any], audit: Audit) -> None:
        """Bring the metrics up to `Custodian.report`."""
        self._leads.set(float(report["leads"]))
        self._faults.set(report["chain"]["faults"])
        self._stuck.set(report["jobs"]["chain-outbox"]["figures"].get("stuck", 0))
        self._journal.set(audit.journal_bytes)
        self._lag.set(audit.journal_lag_s)
        self._show_blobs(report["jobs"]["reconcile-blobs"]["figures"])
        self._show_alerts(report["jobs"]["escalate-alerts"]["figures"], leads=report["leads"])
        for name, account in report["jobs"].items():
            runs, failures = self._told.get(name, (0, 0))
            if account["runs"] > runs:
                self._runs.inc(account["runs"] - runs, {"job": name})
            if account["failures"] > failures:
                self._failures.inc(account["failures"] - failures, {"job": name})
            self._told[name] = (account["runs"], account["failures"])
            if account["last_success"] is not None:
                self._success.set(account["last_success"], {"job": name})

    def _show_blobs(self, figures: dict[str, int]) -> None:
        for name, gauge in self._blobs.items():
            # Nothing is said before the first comparison: 0 would be a claim.
            if name in figures:
                gauge.set(figures[name])
        if (fetched := figures.get("fetched", 0)) > self._told_fetched:
            self._fetched.inc(fetched - self._told_fetched)
            self._told_fetched = fetched

    def _show_alerts(self, figures: Figures, *, leads: bool) -> None:
        """Only who leads knows them; two custodians together must not count an alert twice."""
        for severity in SEVERITIES:
            count = figures.get(f"open_{severity}", 0) if leads else 0
            self._alerts.set(count, {"severity": severity})
        self._unacknowledged.set(figures.get("unacknowledged_age_s", 0) if leads else 0)
        calls = figures.get("escalated", 0)
        if calls > self._calls:
            self._escalated.inc(calls - self._calls)
            self._calls = calls
