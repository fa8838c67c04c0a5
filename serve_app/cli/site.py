"""`medrec site`: a whole site on this machine, the files of a real one, and orders to its edges."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from configs.reader import PROJECT_ROOT
from serve_app.cli.site_keys import keys_app

app = typer.Typer(help="A site: two cells, edges, an emergency cell.", no_args_is_help=True)
app.add_typer(keys_app, name="keys")

LOCAL_SITE = PROJECT_ROOT / "configs" / "site-local.yaml"
File = Annotated[Path, typer.Option("--site", help="Site file.", exists=True, dir_okay=False)]
Cell = Annotated[str, typer.Argument(help="Name of a cell.")]
Forced = Annotated[bool, typer.Option("--force", help="Whatever the other side's data are like.")]
AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]


@app.command()
def up(
    site: File = LOCAL_SITE,
    loopback: Annotated[
        bool, typer.Option("--loopback", help="All hosts on 127.0.0.1, also where this is root.")
    ] = False,
    fake_time: Annotated[
        bool, typer.Option("--fake-time", help="Under libfaketime, for drills with clocks.")
    ] = False,
    disk_mb: Annotated[
        int, typer.Option("--disk-mb", min=0, help="A small disk under each PostgreSQL; 0: none.")
    ] = 0,
) -> None:
    """Start a whole site on this machine and stay in the foreground until Ctrl-C or `site down`."""
    from serve_app.cli.site_up import run

    run(site, loopback=loopback, fake_time=fake_time, disk_mb=disk_mb)


@app.command()
def down() -> None:
    """Stop the site of this home, and every process of it."""
    from serve_app.cli.site_up import stop

    stop()


@app.command()
def status(as_json: AsJson = False) -> None:
    """Who serves and why, the database, copies, hosts. Exit status 3: no edge answers."""
    from serve_app.cli.site_status import run

    raise typer.Exit(run(as_json=as_json))


@app.command()
def steward(host: Annotated[str, typer.Option("--host", help="The edge that this is.")]) -> None:
    """Watch and decide, as a service of an edge."""
    from serve_app.cli.site_orders import watch

    watch(host)


@app.command()
def serve(cell: Cell, force: Forced = False) -> None:
    """Let a cell serve: the way back after a failover, once it is whole again."""
    from serve_app.cli.site_orders import give

    give("serve", cell, force)


@app.command()
def both(force: Forced = False) -> None:
    """Let both cells serve at once."""
    from serve_app.cli.site_orders import give

    give("both", "", force)


@app.command()
def drain(cell: Cell, force: Forced = False) -> None:
    """Take a cell out of service: no new requests, streams go on, the primary moves away."""
    from serve_app.cli.site_orders import hand_over

    hand_over(cell, force)


@app.command()
def handover(
    away_from: Annotated[str, typer.Option("--away-from", help="The host to be relieved.")],
    force: Forced = False,
) -> None:
    """Move traffic and PostgreSQL's primary away from a host: before maintenance, on a UPS's word."""
    from serve_app.cli.site_orders import hand_over

    hand_over(away_from, force)


@app.command()
def emergency(
    yes: Annotated[bool, typer.Option("--yes", help="Without asking.")] = False,
) -> None:
    """Go to the emergency cell now."""
    from serve_app.cli.site_orders import give

    if not yes:
        typer.confirm("Every client goes to the reduced service. Go on?", abort=True)
    give("emergency", "", False)


@app.command("return")
def come_back(
    cell: Cell,
    force: Forced = False,
    package: Annotated[
        Path | None,
        typer.Option("--package", exists=True, help="What `medrec emergency export` wrote."),
    ] = None,
) -> None:
    """End emergency: let a cell serve, and merge back what was written there."""
    from serve_app.cli.site_orders import come_back as run

    run(cell, force, package)


@app.command()
def render(
    site: Annotated[Path, typer.Argument(help="Site file.", exists=True, dir_okay=False)],
    out: Annotated[Path, typer.Option("--out", file_okay=False, help="Folder to write into.")],
    secrets: Annotated[
        Path | None,
        typer.Option("--secrets", file_okay=False, help="Folder of passwords and authority."),
    ] = None,
) -> None:
    """Write every file of every host below a folder."""
    from serve_app.cli.site_render import run

    run(site, out, secrets)
