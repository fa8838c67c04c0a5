"""The parts of one API replica, put together from its arguments. Waits for no other process."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import FastAPI
from starlette.middleware import Middleware

from configs.args import ApiArgs, EmergencyArgs
from deployments.ai.client import LanguageService
from deployments.cell.state import Home
from deployments.data.accounts.door import Door
from deployments.data.accounts.learning import Learning
from deployments.data.accounts.wiring import issuer_of, open_accounts
from deployments.data.alerts.alerts import Alerts
from deployments.data.alerts.feed import Feed
from deployments.data.alerts.watch import RuleWatch
from deployments.data.audit.chain import Audit
from deployments.data.audit.reader import AuditReader
from deployments.data.blobs.store import Blobs
from deployments.data.database import Database
from deployments.data.emergency.activation import Activations
from deployments.data.emergency.notes import Notes
from deployments.data.emergency.review import Reviews
from deployments.data.emergency.standing import Standing
from deployments.data.interactions.decisions import Decisions
from deployments.data.interactions.ledger import Ledger
from deployments.data.interactions.switches import FILE as SWITCHES_FILE
from deployments.data.interactions.switches import Switches
from deployments.data.places import places
from deployments.data.records.store import Records
from deployments.data.seal.sealer import Sealer
from deployments.site import here
from deployments.site.models.store import store_of
from serve_app.ai.routes import ai_routes
from serve_app.alerts.hub import Hub
from serve_app.alerts.routes import alert_routes
from serve_app.alerts.stream import Streams
from serve_app.auth.routes import auth_routes
from serve_app.break_glass import break_glass_routes
from serve_app.chat.duties import Duties
from serve_app.fhir.binary import binary_routes
from serve_app.fhir.routes import fhir_routes
from serve_app.internal.acts import act_routes
from serve_app.internal.blobs import blob_routes
from serve_app.internal.condition import condition_routes
from serve_app.internal.keys import key_routes
from serve_app.internal.models import model_routes
from serve_app.metrics import DataGauges
from serve_app.modes.gate import EnrolledOnly
from serve_app.modes.routes import Emergency, mode_routes
from serve_app.modes.watch import ModeWatch
from serve_app.services import Services


def assemble(args: ApiArgs, home: Home, language: LanguageService) -> Services:
    """The services of a replica over the records that `args` names, in the home `home`.

    Raises `CellError` where keys are missing, naming the command that makes them.
    """
    rules = args.records
    at = places(rules, home)
    sealer = Sealer.load(at.secrets)
    database = Database(
        at.dsn,
        connections=rules.pool_connections,
        name="medrec-api",
        failover_wait_s=rules.failover_wait_s,
    )
    audit = Audit(database, at.journal, enabled=rules.audit)
    records = Records(database, sealer, audit, rules, RuleWatch(sealer, audit, rules))
    emergency = rules.emergency if rules.mode == "emergency" else None
    accounts = open_accounts(
        rules.sign_in,
        issuer_of(rules.sign_in, home),
        at.secrets,
        database,
        audit,
        demo=rules.demo,
        emergency=emergency,
    )
    ledger = Ledger(database, sealer, audit, rules.retention)
    switches = Switches(database, audit, home.path / SWITCHES_FILE)
    decisions = Decisions(database, sealer, audit)
    blobs = Blobs(sealer, at.blobs, rules)
    alerts = Alerts(database, sealer, audit, rules)
    hub = Hub(
        max_streams=rules.alerts.max_streams, max_per_person=rules.alerts.max_streams_per_person
    )
    feed = Feed(database, sealer, hub)
    streams = Streams(
        alerts,
        feed,
        hub,
        accounts.authority,
        lasts_s=args.limits.request_timeout_s,
        deadline_s=rules.deadline_s,
    )
    activations = Activations(database, audit, emergency, rules.organization) if emergency else None
    standing = Standing(activations)
    modes = Emergency(
        args=rules,
        standing=standing,
        activations=activations,
        notes=Notes(database, sealer, audit, standing),
        reviews=Reviews(database, audit),
    )
    max_body_bytes = args.limits.max_body_bytes

    def add_internal(app: FastAPI) -> None:
        app.include_router(model_routes(store_of(rules, home)))
        app.include_router(condition_routes(home))
        app.include_router(act_routes(audit, rules.organization))
        if here.is_member(home):
            place = here.find(home)
            cells = [name for name in place.plan.site.cells if name != place.host.name]
            app.include_router(
                key_routes(at.secrets, place.host.tls, cells, audit, rules.organization)
            )

    def add_records(app: FastAPI) -> None:
        app.include_router(mode_routes(modes))
        app.include_router(auth_routes(accounts))
        app.include_router(break_glass_routes(records.break_glass))
        app.include_router(alert_routes(alerts, streams))
        app.include_router(ai_routes(decisions, switches, step_up_s=rules.sign_in.step_up_s))
        # Binary's paths have a shape that FHIR's general ones would take for theirs.
        app.include_router(
            binary_routes(records, blobs, database, rules, max_json_bytes=max_body_bytes)
        )
        reader = AuditReader(database, audit)
        app.include_router(blob_routes(blobs))
        app.include_router(fhir_routes(records, reader, rules, max_body_bytes=max_body_bytes))

    return Services(
        language=language,
        authority=accounts.authority,
        audit=audit,
        duties=Duties(audit, records, ledger, switches, wait_s=rules.deadline_s),
        routes=(add_records, add_internal),
        parts=(
            _DatabasePart(database),
            audit,
            accounts,
            Learning(accounts.authority),
            switches,
            ledger,
            _BlobsPart(blobs),
            DataGauges(audit, database, blobs),
            feed,
            hub,
            ModeWatch(standing, hub.broadcast),
        ),
        deadline_s=rules.deadline_s,
        callers=frozenset(rules.others.callers),
        standing=standing,
        estimate_s=rules.emergency.estimate_s,
        behind_guard=_behind_guard(database, emergency),
        basic_chat=emergency,
    )


def _behind_guard(database: Database, emergency: EmergencyArgs | None) -> list[Middleware]:
    if emergency is None:
        return []
    return [Middleware(EnrolledOnly, database=database, door=Door(emergency.users))]


@dataclass(frozen=True, slots=True)
class _DatabasePart:
    database: Database

    async def start(self) -> None:
        await self.database.open()

    async def close(self) -> None:
        await self.database.close()


@dataclass(frozen=True, slots=True)
class _BlobsPart:
    blobs: Blobs

    async def start(self) -> None:
        """Nothing runs until something is stored."""

    async def close(self) -> None:
        await self.blobs.close()
