"""`medrec site keys`: the keys that all cells of a site share, sealed on their way between hosts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from deployments.cell.state import Home
    from deployments.site.trust.key_files import Imported

keys_app = typer.Typer(
    help="Site and signing keys, sealed to another cell of the site.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
Config = Annotated[
    Path | None,
    typer.Option("--config", help="Cell config; that of the running cell, or configs/local.yaml."),
]


@keys_app.command("list")
def list_keys(config: Config = None) -> None:
    """Show the ids of this cell's keys, to be compared with another's."""
    from deployments.site.trust.key_files import held
    from serve_app.cli.whose import site_of

    _, at = site_of(config)
    found = held(at.secrets)
    for key in found.site:
        typer.echo(f"site\t{key}\t{'current' if key == found.current else 'old'}")
    for key in found.signing:
        typer.echo(f"signing\t{key}")


@keys_app.command()
def export(
    host: Annotated[str, typer.Option("--for", help="The host that may open it.")],
    out: Annotated[Path, typer.Option("--out", help="File to write; nobody else can use it.")],
    certificate: Annotated[
        Path | None,
        typer.Option(help="The host's host.crt; the authority's copy in MEDREC_HOME unless given."),
    ] = None,
    config: Config = None,
) -> None:
    """Seal this cell's keys to one host, for a memory stick: it opens nowhere else."""
    from deployments.cell import state
    from deployments.data.durable import replace_file
    from deployments.site.trust.certificates import common_name
    from deployments.site.trust.errors import TrustError
    from deployments.site.trust.files import read_certificate
    from deployments.site.trust.key_files import export_keys
    from deployments.site.trust.renewal import host_files
    from serve_app.cli.whose import site_of

    home = state.home()
    _, at = site_of(config)
    found = certificate or host_files(home.path / "ca", host).certificate
    recipient = read_certificate(found)
    if common_name(recipient) != host:
        raise TrustError(f"{found} is the certificate of {common_name(recipient)}, not of {host}")
    replace_file(out.resolve(), export_keys(at.secrets, _own(home), recipient))
    typer.echo(f"sealed to {host}, good for seven days; there: medrec site keys import {out.name}")


@keys_app.command("import")
def import_file(
    file: Annotated[Path, typer.Argument(help="What medrec site keys export wrote for this host.")],
    config: Config = None,
) -> None:
    """Open keys that were sealed to this host and add them to its own; none is ever replaced."""
    from deployments.cell import state
    from deployments.site.trust.errors import TrustError
    from deployments.site.trust.key_files import import_keys
    from serve_app.cli.whose import site_of

    home = state.home()
    args, at = site_of(config)
    try:
        data = file.read_bytes()
    except OSError as error:
        raise TrustError(f"{file} cannot be read: {error.strerror}") from error
    brought = import_keys(at.secrets, _own(home), data, senders=_senders(home))
    _journal(at, args.organization, brought)
    _tell(brought)


@keys_app.command()
def send(
    without: Annotated[
        list[str] | None, typer.Option(help="A cell that is left out; may be repeated.")
    ] = None,
    config: Config = None,
) -> None:
    """Give this cell's keys to every other running cell of the site, sealed to each."""
    from deployments.cell import state
    from deployments.cell.state import CellError
    from deployments.site.trust.delivery import delivery_of
    from serve_app.cli.whose import site_of

    home = state.home()
    _, at = site_of(config)
    way = delivery_of(home, at.secrets, without or ())
    if way is None:
        raise CellError(f"this cell is of no site ({home.path}): there is nobody to send keys to")
    try:
        for name, found in way.send().items():
            typer.echo(
                f"{name}: current site key {found.current}, {len(found.site)} site keys,"
                f" {len(found.signing)} signing keys"
            )
    finally:
        way.inside.close()


def _own(home: Home) -> Any:
    from deployments.site.trust.files import HostFiles

    return HostFiles.in_folder(home.path / "site" / "tls")


def _senders(home: Home) -> tuple[str, ...] | None:
    """The cells of the site; any host of the authority where the site is not known yet."""
    from deployments.site import here

    return here.find(home).plan.site.cells if here.is_member(home) else None


def _journal(at: Any, organization: str, brought: Imported) -> None:
    """On disk before anything is reported: there may be no database yet."""
    import asyncio

    from deployments.data.audit.entry import entry_of
    from deployments.data.audit.operator import operator_audit
    from deployments.site.trust.key_files import details_of

    async def once() -> None:
        async with operator_audit(at, organization) as operator:
            entry = entry_of(operator.caller, "key-change", "success", **details_of(brought))
            await operator.audit.journal(entry)

    asyncio.run(once())


def _tell(brought: Imported) -> None:
    typer.echo(f"from {brought.sender}; the current site key is {brought.held.current}")
    for what, ids in (
        ("site key", brought.site),
        ("signing key", brought.signing),
        ("file", brought.files),
    ):
        for name in ids:
            typer.echo(f"new {what}: {name}")
    if not (brought.site or brought.signing or brought.files):
        typer.echo("everything was here already")
