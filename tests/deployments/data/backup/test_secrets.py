"""A rotation of the site keys between two base backups locks nobody out of what is restored."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from deployments.data.backup import folders, secrets, store
from deployments.data.backup import keys as backup_keys
from deployments.data.backup.settings import BackupSettings
from deployments.data.backup.vault import Vault
from deployments.data.seal import keys

NIGHT = datetime(2026, 11, 25, 2, 0, tzinfo=UTC)


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    folder = tmp_path / "secrets"
    backup_keys.write(folder, backup_keys.new())
    settings = BackupSettings(to=str(tmp_path / "to"), site="here", secrets=str(folder))
    store.prepare(settings)
    return Vault.whole(settings)


def hours(number: float) -> datetime:
    return NIGHT + timedelta(hours=number)


def test_a_restored_folder_has_the_keys_of_its_moment_and_all_others(
    vault: Vault, tmp_path: Path
) -> None:
    folder = tmp_path / "secrets"
    first = keys.create(folder)
    base = folders.packed_secrets(folder)
    assert secrets.keep(vault, folder, hours(-1))
    assert not secrets.keep(vault, folder, hours(1))
    second = first.with_new_current().without({first.current})
    keys.write(folder, second)
    (folder / "token_key.pem").write_text("new")
    assert secrets.keep(vault, folder, hours(10))

    before, after = tmp_path / "before", tmp_path / "after"
    secrets.bring_back(vault, base, NIGHT, hours(5), before)
    # Rows may have come under the new key before its copy was made.
    assert keys.read(before).current == first.current
    assert set(keys.read(before).keys) == {first.current, second.current}
    assert not (before / "token_key.pem").exists()
    secrets.bring_back(vault, base, NIGHT, None, after)
    assert keys.read(after).current == second.current
    assert set(keys.read(after).keys) == {first.current, second.current}
    assert (after / "token_key.pem").read_text() == "new"
    assert not (after / backup_keys.FILE).exists()


def test_of_copies_before_the_oldest_backup_the_last_is_needed(vault: Vault) -> None:
    names = [f"secrets/{hours(number):%Y%m%dT%H%M%SZ}-0" for number in (-3, -2, -1, 1, 2)]
    assert secrets.outdated(names, NIGHT) == names[:2]
    assert secrets.outdated(names[2:], NIGHT) == []
