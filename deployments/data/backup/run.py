"""One whole backup: base backup, new blobs, configs, secrets, and the manifest that completes it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from deployments.data.backup import base, blobs, escrow, folders, keys, manifest, retention
from deployments.data.backup import secrets as copies
from deployments.data.backup.errors import AlreadyThere
from deployments.data.backup.manifest import Manifest
from deployments.data.backup.retention import Pruned
from deployments.data.backup.settings import BackupSettings
from deployments.data.backup.vault import Vault
from deployments.data.seal.escrow import read_bundle

Say = Callable[[str], None]


@dataclass
class Steps:
    """How long each step took, in seconds."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time one step; again under the same name adds to it."""
        began = time.monotonic()
        try:
            yield
        finally:
            spent = self.seconds.get(name, 0.0) + time.monotonic() - began
            self.seconds[name] = round(spent, 3)


def run(settings: BackupSettings, say: Say = lambda text: None) -> tuple[Manifest, Pruned]:
    """Make a base backup and prune. Raises `BackupError`; then nothing counts as a backup.

    Blobs go after the database: whatever it knows was stored before.
    """
    vault, steps = Vault.whole(settings), Steps()
    found = base.source(settings)
    started, figures = base.now_and_figures(settings.dsn)
    id = f"{started:%Y%m%dT%H%M%SZ}-{os.urandom(2).hex()}"
    folder = f"{found.system}/base/{id}"
    say(f"copying the {'standby' if found.is_standby else 'primary'}")
    with steps.step("base"):
        copied = base.copy(vault, found, f"{folder}/base.tar")
        stopped = base.server_time(settings.dsn)
    with steps.step("wal"):
        within_s = max(base.ARCHIVED_WITHIN_S, 4.0 * settings.wal_every_s)
        base.await_archived(
            vault, settings.dsn, found.system, copied, found.segment_bytes, within_s=within_s
        )
    with steps.step("blobs"):
        if settings.blobs:
            new = blobs.copy_new(vault, Path(settings.blobs))
            say(f"copied {new.blobs} new blobs ({new.bytes} bytes)")
        # What is here, not what is there: an erased blob leaves the backup with the last that needs it.
        # And what the database knows: the backup may have the last copy of what no machine has any more.
        names = blobs.names_at(Path(settings.blobs)) if settings.blobs else []
        with psycopg.connect(settings.dsn, connect_timeout=5, autocommit=True) as connection:
            names = sorted({*names, *blobs.known(connection)})
        listed = vault.write_stream(f"{folder}/blobs", ["\n".join(names).encode()])
    with steps.step("config"):
        packed = folders.packed_configs(tuple(map(Path, settings.configs)))
        config = vault.write_stream(f"{folder}/config.tar", [packed])
        packed = folders.packed_secrets(Path(settings.secrets))
        secrets = vault.write_stream(f"{folder}/secrets.tar", [packed])
    made = Manifest(
        id=id,
        site=settings.site,
        system=found.system,
        timeline=copied.timeline,
        started_at=started,
        stopped_at=stopped,
        start_lsn=copied.start_lsn,
        stop_lsn=copied.stop_lsn,
        segment_bytes=found.segment_bytes,
        from_standby=found.is_standby,
        server_version=found.version,
        base=copied.stream,
        blobs=listed,
        config=config,
        secrets=secrets,
        figures=figures,
        seconds=steps.seconds,
    )
    copies.keep(vault, Path(settings.secrets), stopped)
    keep_in_escrow(vault, Path(settings.secrets))
    manifest.write(vault, made)
    return made, retention.prune(vault, manifest.every(vault), stopped, settings.keep_days)


def keep_in_escrow(vault: Vault, secrets: Path) -> bool:
    """Leave the backup key, sealed to the site keys' escrow, in the backup; False: no escrow."""
    bundle = read_bundle(secrets)
    if bundle is None:
        return False
    key = keys.read(secrets)
    name = f"{vault.site}/{escrow.FOLDER}/{bundle.fingerprint}-{key.writer.id.hex()}.json"
    # Under one escrow and one key any two of them say the same.
    with suppress(AlreadyThere):
        vault.store.create(name, escrow.sealed(key, bundle))
    return True
