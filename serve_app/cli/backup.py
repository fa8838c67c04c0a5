"""`medrec backup`: make backups, look at them, prove that they can be restored, restore."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Backups of database, blobs, configs and keys, sealed, in a folder or a bucket.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
Settings = Annotated[
    Path | None,
    typer.Option("--settings", help="Settings file of the backups; the home's backup.json."),
]
AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]


@app.command()
def init(
    to: Annotated[str, typer.Option(help="Folder, or bucket gs://name or s3://name.")],
    site: Annotated[str, typer.Option(help="Name that the site's backups are kept under.")],
    prefix: Annotated[str, typer.Option(help="Folder below it.")] = "medrec",
    endpoint: Annotated[
        str | None, typer.Option(help="Address of a bucket service of one's own.")
    ] = None,
    keep_days: Annotated[int, typer.Option(min=1, help="Days that can be restored.")] = 35,
    base_at: Annotated[str, typer.Option(help="Local time of the daily base backup.")] = "02:00",
    config: Annotated[Path | None, typer.Option("--config", help="Cell config.")] = None,
    settings: Settings = None,
) -> None:
    """Make the backup key and the settings file; PostgreSQL archives from its next start."""
    from serve_app.cli.backup_setup import set_up

    values = {
        "to": to,
        "prefix": prefix,
        "endpoint": endpoint,
        "keep_days": keep_days,
        "base_at": base_at,
    }
    set_up(values, site, config, settings)


@app.command()
def run(settings: Settings = None, as_json: AsJson = False) -> None:
    """Make a base backup now, of the standby if there is one, and remove what is too old."""
    from serve_app.cli.backup_work import make

    make(settings, as_json=as_json)


@app.command()
def schedule(settings: Settings = None) -> None:
    """Stay in the foreground: blobs all the time, a base backup a day. On every cell host."""
    from serve_app.cli.backup_work import keep_schedule

    keep_schedule(settings)


@app.command("list")
def list_(settings: Settings = None, as_json: AsJson = False) -> None:
    """Show the base backups there are, and the last moment that can be restored."""
    from serve_app.cli.backup_work import show

    show(settings, as_json=as_json)


@app.command()
def restore(
    to: Annotated[Path, typer.Option(help="New folder, which becomes a cell's home.")],
    at: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%dT%H:%M:%S.%f%z"],
            help="Moment to restore, UTC unless it says so.",
        ),
    ] = None,
    latest: Annotated[bool, typer.Option("--latest", help="All that there is.")] = False,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Restore database, blobs, keys and configs as they were at a moment. Exit status 1: blobs lost."""
    from serve_app.cli.backup_work import bring_back

    if (at is None) != latest:
        raise typer.BadParameter("give a moment, or --latest", param_hint="--at")
    raise typer.Exit(bring_back(settings, to, at, as_json=as_json))


@app.command()
def verify(
    scratch: Annotated[
        Path | None, typer.Option(help="Folder with room for the database; the home unless given.")
    ] = None,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Restore the newest backup aside and check all that is in it. Exit status 1: a fault."""
    from serve_app.cli.backup_work import prove

    raise typer.Exit(prove(settings, scratch, as_json=as_json))


@app.command()
def recover(
    share: Annotated[list[Path], typer.Option(help="A holder's file; once for each holder.")],
    settings: Settings = None,
) -> None:
    """Rebuild the backup key on a bare machine, from shares of the site keys' escrow."""
    from serve_app.cli.backup_setup import rebuild_key

    rebuild_key(settings, share)
