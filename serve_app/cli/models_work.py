"""What `medrec models` does, on the store that the cell's config names and on the cell if it runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from configs.args import RecordsArgs
from configs.reader import read_values
from deployments.cell import condition, state
from deployments.cell.state import CellError
from deployments.cell.store import records_args
from deployments.data.audit.operator import record
from deployments.data.errors import DataError
from deployments.data.places import places
from deployments.site.models import manifest as manifests
from deployments.site.models import mending, rolling, staging, switching
from deployments.site.models.errors import StoreError
from deployments.site.models.peer import Peer
from deployments.site.models.rounds import SECTION
from deployments.site.models.store import SHORT, Model, Store, store_of
from deployments.site.models.verification import faults
from serve_app.cli.models_cell import Roller, details, roller_of
from serve_app.cli.whose import config_of


def stage(
    config: Path | None,
    name: str,
    folder: Path,
    manifest: Path | None,
    *,
    link: bool,
    repository: str | None,
    revision: str | None,
) -> None:
    """Stage, and say the version's name."""
    model = _store(config).model(name)
    given = None
    if manifest is not None:
        given = _given(manifest)
    elif (folder / manifests.FILE).is_file():
        given = manifests.read(folder)
    version = staging.stage(
        model, folder, given, link=link, repository=repository, revision=revision
    )
    _next(name, version)


def pull(config: Path | None, name: str, peer: str | None) -> None:
    """Fetch the other cell's current version, and say its name."""
    args = _args(config)
    url = peer or args.others.peer
    if url is None:
        raise StoreError(
            "no other cell is known: give --peer, or records.others.peer in the config"
        )
    with Peer(url, args.others.host) as other:
        version = mending.pull(store_of(args, state.home()).model(name), other)
    _next(name, version)


def switch(config: Path | None, name: str, version: str | None, timeout_s: float) -> None:
    """Switch, record it where a cell runs, and say what is current."""
    model = _store(config).present(name)
    if version is None:
        if not (every := model.versions()):
            raise StoreError(f"{name} has no version: medrec models stage or pull")
        version = every[-1]
    before = model.current
    with roller_of(model, timeout_s) as roller:
        now = switching.switch(model, version, roller.roll)
    _done(config, model, before, now, roller)


def rollback(config: Path | None, name: str, timeout_s: float) -> None:
    """Go back, record it where a cell runs, and say what is current."""
    model = _store(config).present(name)
    before = model.current
    with roller_of(model, timeout_s) as roller:
        now = switching.roll_back(model, roller.roll)
    _done(config, model, before, now, roller)


def verify(config: Path | None, name: str | None) -> None:
    """Read everything, say what is wrong; exit status 1 if anything is."""
    store = _store(config)
    wrong = 0
    for model in [store.present(name)] if name else store.models():
        for version in model.versions():
            found = faults(model.path_of(version), version)
            wrong += len(found)
            for fault in found:
                typer.echo(f"{model.name}\t{version[:SHORT]}\t{fault}")
            if not found:
                typer.echo(f"{model.name}\t{version[:SHORT]}\twhole")
    if wrong:
        raise typer.Exit(1)


def show(config: Path | None, *, as_json: bool) -> None:
    """Print every model with its versions."""
    home, store = state.home(), _store(config)
    with details() as (_, said):
        told = condition.read(home).get(SECTION, {})
        faulty = told.get("faulty", {})
        rows = [_row(model, said, faulty.get(model.name)) for model in store.models()]
    if as_json:
        found = {"store": str(store.folder), "watched_at": told.get("at"), "models": rows}
        typer.echo(json.dumps(found, indent=2))
        return
    for row in rows:
        for version in row["versions"]:
            origin = f"{version['repository'] or ''}@{version['revision'] or ''}".strip("@")
            marks = ",".join(mark for mark in _MARKS if version[mark])
            size = f"{version['size'] / 2**30:.2f} GB"
            fields = (row["model"], version["version"][:SHORT], marks or "-", size, origin)
            typer.echo("\t".join(fields).rstrip())
        if row["faulty"]:
            typer.echo(f"{row['model']}\tFAULTY\t{row['faulty']}")


def prune(config: Path | None, name: str | None) -> None:
    """Remove what is superfluous, and say what went."""
    store = _store(config)
    with details() as (problem, said):
        if problem is not None:
            raise StoreError(f"what the cell runs cannot be told, so nothing is removed: {problem}")
        for model in [store.present(name)] if name else store.models():
            for version in switching.prune(model, rolling.deployed(said, model)):
                typer.echo(f"{model.name}\t{version[:SHORT]}\tremoved")


_MARKS = ("current", "previous", "deployed")


def _row(model: Model, said: Mapping[str, Any], faulty: str | None) -> dict[str, Any]:
    deployed = rolling.deployed(said, model)
    versions = []
    for version in model.versions():
        try:
            found = manifests.read(model.path_of(version), version)
        except StoreError:
            found = None
        versions.append(
            {
                "version": version,
                "current": version == model.current,
                "previous": version == model.previous,
                "deployed": version in deployed,
                "size": 0 if found is None else found.size,
                "repository": None if found is None else found.repository,
                "revision": None if found is None else found.revision,
            }
        )
    return {"model": model.name, "faulty": faulty, "versions": versions}


def _done(config: Path | None, model: Model, before: str | None, now: str, roller: Roller) -> None:
    """Put a switch on record if a cell serves it, and say what is so now."""
    if roller.rolled:
        _record(config, model, before, now)
    if roller.rolled:
        what = "the cell serves it"
    elif roller.is_running:
        what = f"no deployment of the running cell has {model.folder / 'current'}"
    else:
        what = "no cell runs; the next start takes it"
    typer.echo(f"{model.name} {now[:SHORT]} is current: {what}")


def _record(config: Path | None, model: Model, before: str | None, now: str) -> None:
    args = _args(config)
    try:
        record(
            places(args, state.home()),
            "configuration",
            organization=args.organization,
            resource=f"Model/{model.name}",
            change="switched",
            version=now,
            before=before,
        )
    except DataError as error:
        raise CellError(
            f"{model.name} {now[:SHORT]} is current and served, but that is not on record: "
            f"{error.message}"
        ) from None


def _given(file: Path) -> manifests.Manifest:
    try:
        return manifests.parse(file.read_bytes(), str(file))
    except OSError as error:
        raise StoreError(f"{file} cannot be read: {error.strerror}") from error


def _next(name: str, version: str) -> None:
    typer.echo(f"{name}\t{version}")
    typer.echo(f"medrec models switch {name} {version[:SHORT]} serves it", err=True)


def _store(config: Path | None) -> Store:
    return store_of(_args(config), state.home())


def _args(config: Path | None) -> RecordsArgs:
    """How the config's cell keeps things; its models' folders need not be there yet."""
    file = config_of(config)
    return records_args(read_values(file)) or RecordsArgs()
