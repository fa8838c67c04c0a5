"""A folder and a bucket behave alike: written once, read whole, and what is wrong is told."""

from __future__ import annotations

import os
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest

from deployments.data.backup import keys, objects, store
from deployments.data.backup.errors import AlreadyThere, BackupError, Damaged, NotInBackup
from deployments.data.backup.settings import BackupSettings
from deployments.data.backup.vault import Vault, part_name


@pytest.fixture(params=["folder", "bucket"])
def vault(
    request: pytest.FixtureRequest, tmp_path: Path, bucket_service: str, credentials: None
) -> Vault:
    secrets = tmp_path / "secrets"
    keys.write(secrets, keys.new())
    settings = BackupSettings(to=str(tmp_path / "to"), site="here", secrets=str(secrets))
    if request.param == "bucket":
        name = f"b{os.urandom(4).hex()}"
        ask = urllib.request.Request(f"{bucket_service}/{name}", method="PUT")
        urllib.request.urlopen(ask, timeout=10).close()
        settings = replace(settings, to=f"s3://{name}", endpoint=bucket_service)
    store.prepare(settings)
    return Vault.whole(settings)


def test_an_object_is_written_once_and_again_only_as_it_is(vault: Vault) -> None:
    assert not vault.has("1/wal/a")
    vault.create("1/wal/a", b"content")
    vault.create("1/wal/a", b"content")
    with pytest.raises(BackupError, match="already with another content"):
        vault.create("1/wal/a", b"other")
    with pytest.raises(AlreadyThere):
        vault.store.create("here/1/wal/a", b"raw")
    assert vault.read("1/wal/a") == b"content"
    assert vault.has("1/wal/a")


def test_lists_are_by_name_from_a_name_on_and_folders_are_known(vault: Vault) -> None:
    for name in ("1/wal/b", "1/wal/a", "1/wal/c", "2/base/x", "blobs/y"):
        vault.create(name, b"")
    assert [entry.name for entry in vault.entries("1/wal")] == ["1/wal/a", "1/wal/b", "1/wal/c"]
    assert next(vault.entries("1/wal", after="1/wal/a")).name == "1/wal/b"
    assert vault.folders() == ["1", "2", "blobs"]
    assert list(vault.entries("nowhere")) == []
    assert vault.delete(["1/wal/b", "1/wal/never"]) == 0
    assert not vault.has("1/wal/b")


def test_a_stream_is_read_back_whole(vault: Vault) -> None:
    pieces = [os.urandom(7 * 2**20) for _ in range(5)]
    written = vault.write_stream("s", iter(pieces))
    assert (written.size, written.parts) == (35 * 2**20, 3)
    assert b"".join(vault.read_stream("s")) == b"".join(pieces)
    assert vault.is_whole("s")
    empty = vault.write_stream("empty", [])
    assert (empty.size, empty.parts, list(vault.read_stream("empty"))) == (0, 1, [b""])


def test_a_streams_missing_or_swapped_part_is_told(vault: Vault) -> None:
    vault.write_stream("s", [bytes([number]) * objects.PART for number in range(3)])
    first, last = (f"here/{part_name('s', number)}" for number in (0, 2))
    content = vault.store.read(last)
    vault.store.delete([last])
    with pytest.raises(Damaged, match="the end of s is missing"):
        list(vault.read_stream("s"))
    assert not vault.is_whole("s")
    vault.store.create(last, vault.store.read(first))
    with pytest.raises(Damaged, match="moved"):
        list(vault.read_stream("s"))
    vault.store.delete([first, last])
    vault.store.create(last, content)
    with pytest.raises(NotInBackup, match="a part of s is missing"):
        list(vault.read_stream("s"))
    with pytest.raises(NotInBackup):
        list(vault.read_stream("never"))
    # Several parts are on their way at a time: the last one alone says nothing of those before it.
    assert not vault.is_whole("s")


def test_the_writers_key_opens_nothing(vault: Vault, tmp_path: Path) -> None:
    settings = BackupSettings(to=str(tmp_path), site="here", secrets=str(tmp_path / "secrets"))
    (tmp_path / "medrec").mkdir()
    writer = Vault.for_writing(settings)
    writer.create("a", b"content")
    with pytest.raises(BackupError, match="key that opens"):
        writer.read("a")


def test_a_place_that_is_not_there_is_told(tmp_path: Path, credentials: None) -> None:
    secrets = tmp_path / "secrets"
    keys.write(secrets, keys.new())
    unmounted = BackupSettings(to=str(tmp_path / "to"), site="here", secrets=str(secrets))
    with pytest.raises(BackupError, match="is its disk mounted"):
        Vault.whole(unmounted)
    assert not (tmp_path / "to").exists()
