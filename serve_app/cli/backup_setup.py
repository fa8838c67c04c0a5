"""What `medrec backup init` and `recover` do: the key and the settings file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from configs.backup import BackupArgs
from deployments.cell import state
from deployments.data.backup import escrow, keys, server, settings, store
from deployments.data.backup.errors import BackupError
from deployments.data.backup.settings import BackupSettings
from deployments.data.backup.store import Store
from deployments.data.durable import replace_file
from deployments.data.seal.escrow import read_bundle
from serve_app.cli.whose import config_of, site_of


def settings_path(chosen: Path | None) -> Path:
    """The settings file that a command is told, or the home's."""
    return (chosen or state.home().path / settings.FILE).resolve()


def settings_at(chosen: Path | None) -> BackupSettings:
    """Read them. Raises `BackupError`."""
    return settings.read(settings_path(chosen))


def set_up(values: dict[str, Any], site: str, config: Path | None, chosen: Path | None) -> None:
    """Make the key unless there is one, and the settings file. Raises `BackupError`."""
    try:
        args = BackupArgs(**values)
    except ValidationError as error:
        told = error.errors()[0]
        raise BackupError(f"{told['loc'][0] if told['loc'] else 'to'}: {told['msg']}") from None
    path = settings_path(chosen)
    if path.exists():
        raise BackupError(f"backups are set up already: {path}")
    _, at = site_of(config)
    found = settings.settings_of(
        args,
        site=site,
        secrets=at.secrets,
        dsn=at.owner_dsn,
        blobs=at.blobs,
        configs=(config_of(config).resolve(),),
    )
    store.prepare(found)
    # Asks the bucket, so that a wrong name or no right to it is told now.
    there = any(True for _ in Store(found).entries(f"{site}/{escrow.FOLDER}"))
    if not (at.secrets / keys.FILE).exists():
        if there:
            raise BackupError(
                f"there are backups of {site} under another key: medrec backup recover"
            )
        keys.write(at.secrets, keys.new())
    replace_file(path, found.dump())
    settings.read(path)
    server.let_archiver_in(path)
    print(f"{path} says where backups go; the key is {at.secrets / keys.FILE}")
    if read_bundle(at.secrets) is None:
        print(
            "without a copy of that key no backup opens: medrec seal escrow keeps one with holders"
        )
    print("PostgreSQL archives from its next start; then: medrec backup run, medrec backup verify")


def rebuild_key(chosen: Path | None, shares: Sequence[Path]) -> None:
    """The backup key from holders' shares and what lies in the backup. Raises `CellError`."""
    found = settings_at(chosen)
    try:
        texts = [path.read_text("utf-8", "replace") for path in shares]
    except OSError as error:
        raise BackupError(f"{error.filename} cannot be read: {error.strerror}") from None
    every = escrow.sealed_in(found)
    if not every:
        raise BackupError("the backup holds no key in escrow: bring backup_key.json instead")
    key = escrow.recover(every[0], texts)
    keys.write(Path(found.secrets), key)
    server.let_archiver_in(settings_path(chosen))
    print(f"rebuilt backup key {key.writer.id.hex()}; now: medrec backup list")
