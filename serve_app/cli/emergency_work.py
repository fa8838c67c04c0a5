"""What `medrec emergency` does, on record before it says that it is done."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TypeVar

import orjson

from configs.args import RecordsArgs
from deployments.cell.state import CellError
from deployments.data.accounts.enrolment import Enrolled, Enrolment, enrolment
from deployments.data.audit.operator import DEADLINE_S, Operator, operator_audit
from deployments.data.emergency import merging, package
from deployments.data.emergency.activation import Activation, Activations
from deployments.data.emergency.merging import Returned
from deployments.data.emergency.package import Noted, Package
from deployments.data.emergency.review import Review, Reviews
from deployments.data.places import Places
from deployments.data.seal.sealer import Sealer
from serve_app.cli.whose import site_of, told_plainly

T = TypeVar("T")


def enrol(config: Path | None, name: str) -> int:
    """Give a user a place; its number."""
    return _at_desk(config, lambda desk: desk.enrol(name))


def unenrol(config: Path | None, name: str) -> None:
    """Take a user's place away."""
    _at_desk(config, lambda desk: desk.unenrol(name))


def enrolled(config: Path | None) -> list[Enrolled]:
    """Everybody enrolled."""
    return _at_desk(config, lambda desk: desk.enrolled())


def extend(config: Path | None) -> Activation:
    """Extend the open emergency of this cell."""

    async def work(operator: Operator, args: RecordsArgs) -> Activation:
        _insist_on_emergency_cell(args)
        activations = Activations(
            operator.database, operator.audit, args.emergency, args.organization
        )
        who = operator.caller
        return await activations.extend(
            who.principal.id, request_id=who.request_id, deadline=who.deadline
        )

    return _as_operator(config, work)


def review(config: Path | None, activation: str | None, *, as_json: bool) -> None:
    """Print every act of an emergency, page by page."""

    async def work(operator: Operator, args: RecordsArgs) -> list[Review]:
        reviews = Reviews(operator.database, operator.audit)
        pages: list[Review] = []
        after: int | None = 0
        while after is not None:
            caller = replace(operator.caller, deadline=time.monotonic() + DEADLINE_S)
            pages.append(await reviews.page(caller, activation=activation, after=after))
            after = pages[-1].next_after
        return pages

    pages = _as_operator(config, work)
    about = pages[0].activation
    acts = [act for page in pages for act in page.acts]
    if as_json:
        values = {
            "activation": asdict(about),
            "counts": pages[0].counts,
            "acts": [asdict(act) for act in acts],
        }
        print(orjson.dumps(values, option=orjson.OPT_INDENT_2).decode())
        return
    counted = ", ".join(f"{number} {kind}" for kind, number in sorted(pages[0].counts.items()))
    print(f"emergency {about.id}, {about.activated_at} to {about.over_at}: {counted or 'nothing'}")
    for act in acts:
        patients = ",".join(act.patients) or "-"
        line = (str(act.seq), act.at, act.kind, act.action, act.outcome, act.actor, patients)
        print("\t".join((*line, act.resource or "-", act.request_id)))


def export(config: Path | None, activation: str | None, out: Path) -> tuple[Package, list[Noted]]:
    """Write an emergency's package to a new file, readable by its owner only.

    Returns as well which other emergencies left notes.
    """

    async def work(operator: Operator, args: RecordsArgs) -> tuple[Package, list[Noted]]:
        found = await package.collect(_places(config).owner_dsn, activation)
        data = found.sealed(Sealer.load(_places(config).secrets))
        handle = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        await operator.record(
            "export", resource=f"Emergency/{found.activation.id}", notes=len(found.notes)
        )
        every = await package.noted(_places(config).owner_dsn)
        return found, [each for each in every if each.id != found.activation.id]

    return _as_operator(config, work)


def merge_file(config: Path | None, file: Path) -> int:
    """Merge a file's package. Returns the exit status: 1 where conflicts are listed."""
    args, site = site_of(config)
    if args.mode != "normal":
        raise CellError("an emergency is merged into the site, and this is an emergency cell")
    with told_plainly():
        found = package.opened(file.read_bytes(), Sealer.load(site.secrets))
        returned = asyncio.run(merging.merge(found, site, args))
    tell(returned)
    return 1 if returned.conflicts else 0


def tell(returned: Returned) -> None:
    """Print what came of a merge."""
    print(
        f"emergency {returned.activation}: {returned.merged} notes merged, {returned.already} were "
        f"there already, {returned.alerts} alerts, {returned.entries} audit entries"
    )
    for held in returned.conflicts:
        print(f"to be looked at: {held.kind} {held.id}: {held.reason}")


def _at_desk(config: Path | None, work: Callable[[Enrolment], Awaitable[T]]) -> T:
    args, site = site_of(config)
    if args.mode != "normal":
        raise CellError("people are enrolled on site: the list travels with the emergency copy")

    async def once() -> T:
        async with enrolment(site, args.organization, args.emergency.users) as desk:
            return await work(desk)

    with told_plainly():
        return asyncio.run(once())


def _as_operator(config: Path | None, work: Callable[[Operator, RecordsArgs], Awaitable[T]]) -> T:
    args, site = site_of(config)

    async def once() -> T:
        async with operator_audit(site, args.organization) as operator:
            return await work(operator, args)

    with told_plainly():
        return asyncio.run(once())


def _insist_on_emergency_cell(args: RecordsArgs) -> None:
    if args.mode != "emergency":
        raise CellError("this is no emergency cell: run it there, with its config")


def _places(config: Path | None) -> Places:
    return site_of(config)[1]
