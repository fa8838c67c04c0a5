"""`medrec seal`: the site keys without which no record opens; made, rotated, in escrow, rebuilt."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from configs.args import RecordsArgs
    from deployments.data.places import Places

app = typer.Typer(
    help="The site keys, without which no record opens.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
Config = Annotated[
    Path | None,
    typer.Option("--config", help="Cell config; that of the running cell, or configs/local.yaml."),
]
_STYLES = {"ok": "green", "warning": "yellow", "error": "bold red"}


@app.command()
def init(config: Config = None) -> None:
    """Make the first site key, once, before the first patient. Then: medrec seal escrow."""
    from deployments.data.seal import keys

    _, at = _places(config)
    made = keys.create(at.secrets)
    _journal(config, act="init", to=made.current)
    _say(f"made site key {made.current} in {keys.path_of(at.secrets)}")
    _say("keep a copy in escrow: medrec seal escrow --holders 5 --threshold 3")


@app.command()
def rotate(
    config: Config = None,
    keep_old: Annotated[
        bool, typer.Option("--keep-old", help="Keep the old key, which old backups need.")
    ] = False,
    without: Annotated[
        list[str] | None,
        typer.Option(help="A cell of the site that is left out: it opens nothing until it has it."),
    ] = None,
) -> None:
    """Make a new site key and bring everything under it, while the platform works on.

    A rotation that was cut off is gone on with. It takes a minute at least. In a site every other
    cell is given the new key, sealed, before it is used.
    """
    from deployments.cell import state
    from deployments.data.seal.errors import SiteKeysError
    from deployments.data.seal.rotate import SETTLE_S
    from deployments.data.seal.rotate import rotate as run
    from deployments.site.trust.delivery import delivery_of

    args, at = _places(config)
    way = delivery_of(state.home(), at.secrets, without or ())
    _record(config, act="rotate", step="begin")
    # No write under the old key may outlive its request's deadline.
    settle_s = max(SETTLE_S, args.deadline_s + 30)
    try:
        done = run(
            *(at.secrets, at.owner_dsn),
            keep_old=keep_old,
            settle_s=settle_s,
            say=_say,
            carry=None if way is None else way.carry,
        )
    except SiteKeysError:
        _record(config, "failed", act="rotate", step="end")
        raise
    finally:
        if way is not None:
            way.inside.close()
    _record(
        config,
        "failed" if done.broken else "success",
        **{"act": "rotate", "step": "end", "from": done.old, "to": done.new},
        rewrapped=done.rewrapped,
        broken=done.broken,
        dropped=list(done.dropped),
    )
    _say(f"{done.rewrapped} keys re-wrapped; the current site key is {done.new}")
    if done.dropped:
        _say(f"dropped: {', '.join(done.dropped)}; backups made before now need them from escrow")
    if done.broken:
        raise SiteKeysError(
            f"{done.broken} rows do not open, so the old keys were kept: medrec seal check"
        )


@app.command()
def escrow(
    holders: Annotated[int, typer.Option(min=2, max=16, help="How many people get a share.")] = 5,
    threshold: Annotated[int, typer.Option(min=2, max=16, help="How many of them it takes.")] = 3,
    out: Annotated[
        Path | None, typer.Option(help="New folder for the shares and the bundle.")
    ] = None,
    renew: Annotated[
        bool, typer.Option("--renew", help="Only seal today's keys to the escrow there is.")
    ] = False,
    config: Config = None,
) -> None:
    """Split the right to rebuild the site keys among holders, of whom some must come together."""
    from deployments.data.seal import escrow as escrows
    from deployments.data.seal import keys
    from deployments.data.seal.errors import SiteKeysError
    from deployments.data.seal.rotate import alone, keep_bundle, renew_escrow

    _, at = _places(config)
    if not renew and out is None:
        raise typer.BadParameter("the shares need a folder", param_hint="--out")
    with keys.lock(at.secrets), alone(at.owner_dsn) as connection:
        loaded = keys.read(at.secrets)
        if out is None:
            renewed = renew_escrow(at.secrets, connection, loaded)
            if renewed is None:
                raise SiteKeysError("there is no escrow to renew: medrec seal escrow --out FOLDER")
            bundle = renewed
        else:
            bundle, shares = escrows.establish(loaded, holders=holders, threshold=threshold)
            _write_shares(out, bundle, shares)
            keep_bundle(at.secrets, connection, bundle)
    details = {"act": "escrow-renew" if out is None else "escrow", "escrow": bundle.fingerprint}
    _record(config, **details, holders=bundle.holders, threshold=bundle.threshold)
    _say(f"escrow {bundle.fingerprint} holds site keys {', '.join(bundle.keys)}")
    if out is not None:
        _say(f"give each holder one file share-*.txt of {out}, then delete the folder from here")
        _say(f"keep {keys.BUNDLE} with the backups; rotations renew it in the database")


@app.command()
def recover(
    share: Annotated[list[Path], typer.Option(help="A holder's file; once for each holder.")],
    bundle: Annotated[
        Path | None, typer.Option(help="The escrow's bundle; the database's newest unless given.")
    ] = None,
    config: Config = None,
) -> None:
    """Rebuild lost site keys from enough holders' shares."""
    from deployments.data.durable import replace_file
    from deployments.data.seal import escrow as escrows
    from deployments.data.seal import keys
    from deployments.data.seal.errors import SiteKeysError
    from deployments.data.seal.rotate import newest_bundle

    _, at = _places(config)
    try:
        with keys.lock(at.secrets):
            if keys.path_of(at.secrets).exists():
                there = keys.path_of(at.secrets)
                raise SiteKeysError(f"there are site keys at {there}: move them away")
            data = _read(bundle) if bundle is not None else newest_bundle(at.owner_dsn)
            found = escrows.parse_bundle(data, str(bundle or "the database's bundle"))
            texts = [_read(path).decode("utf-8", "replace") for path in share]
            rebuilt = escrows.recover(found, texts)
            keys.write(at.secrets, rebuilt)
            replace_file(at.secrets / keys.BUNDLE, found.dump())
    except SiteKeysError:
        _journal(config, "failed", act="recover", shares=len(share))
        raise
    _journal(config, act="recover", escrow=found.fingerprint, to=rebuilt.current)
    _say(f"rebuilt {len(rebuilt.keys)} site keys of {found.made_at}; now: medrec seal check")


@app.command()
def check(config: Config = None) -> None:
    """Say whether file, database and escrow agree. Exit status 1: something is lost or broken."""
    from deployments.data.seal.check import check as run

    _, at = _places(config)
    found = run(at.secrets, at.owner_dsn)
    for finding in found:
        _say(f"[{_STYLES[finding.level]}]{finding.level}[/]: {finding.reason}", markup=True)
    if any(finding.level == "error" for finding in found):
        raise typer.Exit(1)


def _places(config: Path | None) -> tuple[RecordsArgs, Places]:
    from deployments.cell import state
    from serve_app.cli.whose import site_of

    # The lost keys may be why the cell does not run: its last config is as good.
    last = state.read(state.home())
    return site_of(Path(last.config) if config is None and last is not None else config)


def _record(config: Path | None, outcome: Any = "success", **details: Any) -> None:
    """In the chain before anything is reported; needs the database."""
    from deployments.data.audit import operator

    args, at = _places(config)
    operator.record(at, "seal", outcome, organization=args.organization, **details)


def _journal(config: Path | None, outcome: Any = "success", **details: Any) -> None:
    """On disk before anything is reported: there may be no database yet, or none any more."""
    import asyncio

    from deployments.data.audit.entry import entry_of
    from deployments.data.audit.operator import operator_audit

    args, at = _places(config)

    async def once() -> None:
        async with operator_audit(at, args.organization) as operator:
            await operator.audit.journal(entry_of(operator.caller, "seal", outcome, **details))

    asyncio.run(once())


def _write_shares(out: Path, bundle: Any, shares: Any) -> None:
    from deployments.data.durable import replace_file
    from deployments.data.seal import keys
    from deployments.data.seal.errors import SiteKeysError

    if out.exists() and any(out.iterdir()):
        raise SiteKeysError(f"{out} is not empty: shares of two escrows must not be mixed")
    keys.prepare(out)
    for share in shares:
        replace_file(out / f"share-{share.number}-of-{share.holders}.txt", share.text().encode())
    replace_file(out / keys.BUNDLE, bundle.dump())


def _read(path: Path) -> bytes:
    from deployments.data.seal.errors import SiteKeysError

    try:
        return path.read_bytes()
    except OSError as error:
        raise SiteKeysError(f"{path} cannot be read: {error.strerror}") from error


def _say(text: str, *, markup: bool = False) -> None:
    from rich.console import Console

    Console(highlight=False, soft_wrap=True).print(text, markup=markup)
