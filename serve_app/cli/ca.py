"""`medrec ca`: the internal authority of a site: hosts, the edge, devices; renewed and revoked."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from deployments.site.trust.certificates import Kind

app = typer.Typer(
    help="The certificate authority of a site, for its hosts, its edge and enrolled devices.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
Folder = Annotated[
    Path | None,
    typer.Option("--folder", help="The authority's folder; ca in MEDREC_HOME unless given."),
]
Addresses = Annotated[
    list[str] | None, typer.Option("--address", help="An IP address; may be repeated.")
]
Names = Annotated[list[str] | None, typer.Option("--dns", help="A DNS name; may be repeated.")]


@app.command()
def init(
    name: Annotated[str, typer.Option(help="The site's name, part of the authority's.")] = "medrec",
    folder: Folder = None,
) -> None:
    """Make the authority, once: its key signs for ten years, so keep the folder from everybody."""
    from deployments.site.trust import authority

    at = _folder(folder)
    with authority.changing(at):
        made = authority.create(at, name)
    typer.echo(f"made {at / 'ca.crt'}, good until {made.certificate.not_valid_after_utc:%Y-%m-%d}")


@app.command()
def host(
    name: Annotated[str, typer.Argument(help="The host's name in configs/site.yaml.")],
    address: Addresses = None,
    dns: Names = None,
    folder: Folder = None,
) -> None:
    """Issue a host's certificate, for both ends of the connections between hosts."""
    from deployments.site.trust import authority
    from deployments.site.trust.renewal import with_own_name

    at = _folder(folder)
    with authority.changing(at):
        names = with_own_name(name, [*(dns or ()), *(address or ())])
        files = authority.Authority(at).issue("host", name, names)
    typer.echo(f"{name}: copy {files.folder} to the host, for its owner only")


@app.command()
def edge(dns: Names = None, address: Addresses = None, folder: Folder = None) -> None:
    """Issue the certificate that clients see, where the hospital has no other."""
    from deployments.site.trust import authority

    names = [*(dns or ()), *(address or ())]
    if not names:
        raise typer.BadParameter("name what clients connect to", param_hint="--dns or --address")
    at = _folder(folder)
    with authority.changing(at):
        files = authority.Authority(at).issue("edge", authority.EDGE, names)
    typer.echo(f"{', '.join(names)}: copy {files.folder} to both edges")


@app.command()
def device(
    user: Annotated[str, typer.Option(help="User name of whom the device belongs to.")],
    folder: Folder = None,
) -> None:
    """Issue the client certificate without which nobody signs in to the emergency service."""
    from deployments.site.trust import authority

    at = _folder(folder)
    with authority.changing(at):
        made = authority.Authority(authority.devices_folder(at)).issue_device(user)
    typer.echo(f"{user}: install {made.p12} and {made.files.ca} on the device")
    typer.echo(f"password, shown this once: {made.password}")


@app.command("list")
def list_certificates(folder: Folder = None) -> None:
    """Show every certificate issued: kind, name, state, end, serial, what it is for."""
    from deployments.site.trust.authority import Authority, devices_folder

    now, at = time.time(), _folder(folder)
    site, devices = Authority(at), Authority(devices_folder(at))
    for entry in (*site.register.certificates, *devices.register.certificates):
        state = "valid" if entry.ends > now else "over"
        state = state if entry.revoked is None else "revoked"
        fields = (entry.kind, entry.name, state, _day(entry.ends), f"{entry.serial:x}")
        typer.echo("\t".join((*fields, " ".join(entry.names))))


@app.command()
def renew(
    within_days: Annotated[
        int, typer.Option(min=0, max=397, help="Renew what ends within these days.")
    ] = 30,
    folder: Folder = None,
) -> None:
    """Make anew what ends soon, with fresh keys; devices are issued again by hand."""
    from datetime import timedelta

    from deployments.site.trust import authority
    from deployments.site.trust.renewal import renew as run

    at = _folder(folder)
    with authority.changing(at):
        done = run(authority.Authority(at), timedelta(days=within_days))
    for reason in done:
        typer.echo(f"renewed {reason}")
    typer.echo(f"{len(done)} renewed")


@app.command()
def revoke(
    name: Annotated[str, typer.Argument(help="Host or user name; edge for the edge's.")],
    is_device: Annotated[bool, typer.Option("--device", help="The name is a user's.")] = False,
    folder: Folder = None,
) -> None:
    """Revoke every certificate of a name, and sign the list that HAProxy reads (crl-file)."""
    from deployments.site.trust import authority

    kind: Kind = "device" if is_device else "edge" if name == authority.EDGE else "host"
    at = _folder(folder)
    issuer = authority.devices_folder(at) if is_device else at
    with authority.changing(at):
        done = authority.Authority(issuer).revoke(kind, name)
        authority.publish_devices(at)
    there = f"{at / 'edge' / 'devices-crl.pem'} to both edges" if is_device else ""
    there = there or f"{at / 'crl.pem'} to every host"
    typer.echo(f"revoked {len(done)} of {kind} {name}; copy {there}, and reload HAProxy there")


def _folder(folder: Path | None) -> Path:
    from deployments.cell import state

    return (folder or state.home().path / "ca").resolve()


def _day(moment: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(moment))
