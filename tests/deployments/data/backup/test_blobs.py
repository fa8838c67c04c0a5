"""Blobs of the backup: whole or not there, and one that is neither keeps no other waiting."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments.data.backup import blobs, keys, objects, store
from deployments.data.backup.errors import BackupError
from deployments.data.backup.settings import BackupSettings
from deployments.data.backup.vault import Vault, part_name, parts_of
from deployments.data.blobs.files import path_of


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    keys.write(tmp_path / "secrets", keys.new())
    settings = BackupSettings(
        to=str(tmp_path / "to"), site="here", secrets=str(tmp_path / "secrets")
    )
    store.prepare(settings)
    return Vault.whole(settings)


def added(folder: Path, size: int) -> str:
    """A stored blob, by its name."""
    data = os.urandom(size)
    name = hashlib.sha256(data).hexdigest()
    path_of(folder, name).parent.mkdir(parents=True, exist_ok=True)
    path_of(folder, name).write_bytes(data)
    return name


def test_a_blob_that_lacks_a_part_is_not_taken_for_saved_and_is_copied_again(
    vault: Vault, tmp_path: Path
) -> None:
    size = 2 * objects.PART + 10
    name = added(tmp_path / "blobs", size)
    assert blobs.copy_new(vault, tmp_path / "blobs").blobs == 1
    assert blobs.parts_in(vault) == {name: parts_of(size)}
    vault.delete([part_name(blobs.stream_name(name), 0)])
    assert blobs.parts_in(vault) == {name: 0}
    assert blobs.copy_new(vault, tmp_path / "blobs").blobs == 1
    assert blobs.parts_in(vault) == {name: 3}
    assert blobs.digest(vault, name) == name
    assert blobs.copy_new(vault, tmp_path / "blobs").blobs == 0


def test_a_restore_places_every_other_blob_and_names_those_that_are_not_whole(
    vault: Vault, tmp_path: Path
) -> None:
    good, cut = (added(tmp_path / "blobs", size) for size in (100, objects.PART + 1))
    blobs.copy_new(vault, tmp_path / "blobs")
    vault.delete([part_name(blobs.stream_name(cut), 1)])
    wrong = hashlib.sha256(b"right").hexdigest()
    vault.write_stream(blobs.stream_name(wrong), [b"wrong"])
    never = "0" * 64
    copied, lost = blobs.place(vault, [cut, wrong, never, good], tmp_path / "restored")
    assert (copied.blobs, lost) == (1, sorted([cut, wrong, never]))
    found = [path for path in (tmp_path / "restored").rglob("*") if path.is_file()]
    assert found == [path_of(tmp_path / "restored", good)]


def test_a_file_that_the_disk_does_not_give_back_is_told_after_the_others_were_copied(
    vault: Vault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [added(tmp_path / "blobs", 100) for _ in range(4)]
    pieces = blobs._pieces

    def reading(path: Path) -> Iterator[bytes]:
        if path.name == names[0]:
            raise OSError(errno.EIO, "Input/output error")
        return pieces(path)

    monkeypatch.setattr(blobs, "_pieces", reading)
    with pytest.raises(BackupError, match=r"1 blobs cannot be read: .*EIO"):
        blobs.copy_new(vault, tmp_path / "blobs")
    assert blobs.parts_in(vault) == dict.fromkeys(names[1:], 1)
