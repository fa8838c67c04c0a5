"""Where the data node keeps things on this machine: connection strings and private folders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from configs.args import RecordsArgs
from configs.reader import PROJECT_ROOT
from deployments.cell.state import Home
from deployments.data import postgres


@dataclass(frozen=True, slots=True)
class Places:
    """Connection strings of the application's and the owner's role, and three folders (0700)."""

    dsn: str
    owner_dsn: str
    secrets: Path
    blobs: Path
    journal: Path


def places(args: RecordsArgs, home: Home) -> Places:
    """The places that `args` names, the home's own for the rest; the folders exist afterwards."""
    if args.dsn is not None and args.owner_dsn is not None:
        dsn, owner_dsn = args.dsn, args.owner_dsn
    else:
        server = postgres.local(home)
        dsn, owner_dsn = server.dsn(postgres.APPLICATION), server.dsn(postgres.OWNER)
    return Places(
        dsn=dsn,
        owner_dsn=owner_dsn,
        secrets=_private(_chosen(args.secrets, home.path / "secrets")),
        blobs=_private(_chosen(args.blobs, home.path / "blobs")),
        journal=_private(home.path / "journal"),
    )


def _chosen(text: str | None, default: Path) -> Path:
    return default if text is None else PROJECT_ROOT / Path(text).expanduser()


def _private(folder: Path) -> Path:
    """The folder, made for its owner only. One that exists keeps its rights."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder
