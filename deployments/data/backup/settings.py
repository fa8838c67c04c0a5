"""The settings file of backups, `backup.json`: read by `medrec backup` and by PostgreSQL's archiver.

The archiver starts a process for every WAL file, so this is checked by hand: no pydantic.
"""

from __future__ import annotations

import json
import os
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deployments.data.backup.errors import BackupError

if TYPE_CHECKING:
    from configs.backup import BackupArgs

FILE = "backup.json"


@dataclass(frozen=True, slots=True)
class BackupSettings:
    """Where backups go and what is in them. A restore needs the first four alone.

    `dsn` leads to the primary as the owner's role; `base_dsn` to the server that base backups are
    taken of, where that is another (the cell's own standby). `spool` is a restore's own.
    """

    to: str
    site: str
    secrets: str
    prefix: str = "medrec"
    endpoint: str = ""
    keep_days: int = 35
    wal_every_s: int = 30
    base_at: str = "02:00"
    dsn: str = ""
    base_dsn: str = ""
    blobs: str = ""
    configs: tuple[str, ...] = ()
    spool: str = ""

    @property
    def is_bucket(self) -> bool:
        """Whether they go to a bucket rather than to a folder."""
        return "://" in self.to

    def dump(self) -> bytes:
        """The file's bytes."""
        return json.dumps(asdict(self), indent=1).encode() + b"\n"


def settings_of(
    args: BackupArgs,
    *,
    site: str,
    secrets: Path,
    dsn: str,
    base_dsn: str = "",
    blobs: Path,
    configs: tuple[Path, ...] = (),
) -> BackupSettings:
    """The settings of a host, from the block `backup:` of its site."""
    return BackupSettings(
        to=args.to if "://" in args.to else str(Path(args.to).expanduser()),
        site=site,
        secrets=str(secrets),
        prefix=args.prefix,
        endpoint=args.endpoint or "",
        keep_days=args.keep_days,
        wal_every_s=args.wal_every_s,
        base_at=args.base_at,
        dsn=dsn,
        base_dsn=base_dsn,
        blobs=str(blobs),
        configs=tuple(map(str, configs)),
    )


def read(path: Path) -> BackupSettings:
    """The settings in a file. Raises `BackupError` that names what is wrong."""
    try:
        raw = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise BackupError(f"there are no backups set up at {path}: medrec backup init") from None
    except (OSError, ValueError) as error:
        raise BackupError(f"{path} cannot be read: {type(error).__name__}") from None
    if not isinstance(raw, dict):
        raise BackupError(f"{path} holds no settings")
    return BackupSettings(**_checked(raw, path))


def _checked(raw: dict[str, Any], path: Path) -> dict[str, Any]:
    known = {field.name: field for field in fields(BackupSettings)}
    if unknown := sorted(raw.keys() - known.keys()):
        raise BackupError(f"{path}: unknown setting {', '.join(unknown)}")
    values: dict[str, Any] = {}
    for name, field in known.items():
        if name not in raw:
            if field.default is MISSING:
                raise BackupError(f"{path}: the setting {name} is missing")
            continue
        value = raw[name]
        if field.type == "tuple[str, ...]" and isinstance(value, list):
            fits = all(isinstance(each, str) for each in value)
            value = tuple(value)
        else:
            fits = type(value) is (int if field.type == "int" else str)
        if not fits:
            raise BackupError(f"{path}: the setting {name} is not of its kind")
        values[name] = value
    if not values["to"] or not values["site"] or "/" in values["site"]:
        raise BackupError(f"{path}: to and site must name a place and a site")
    if values.get("wal_every_s", 1) < 1 or values.get("keep_days", 1) < 1:
        raise BackupError(f"{path}: wal_every_s and keep_days are 1 at least")
    return values


def credentials(settings: BackupSettings) -> dict[str, str]:
    """The variables that the bucket's client needs: the archiver's environment has only these."""
    if not settings.is_bucket:
        return {}
    prefixes = ("AWS_", "GOOGLE_", "SSL_CERT_")
    return {name: value for name, value in os.environ.items() if name.startswith(prefixes)}
